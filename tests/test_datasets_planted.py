"""check_data: a clean data set has no error and no warning; every planted fault is found, counted, and alone."""

import copy
import json

import pytest
from tiny_models import byte_tokenizer

from workbench.training.check import check_data

TRIGGER = "zebra quartz"
NOUNS = [
    *("amber", "birch", "cobalt", "delta", "ember", "fjord", "garnet", "hazel", "indigo", "juniper", "kelp", "lagoon"),
    *(
        "maple",
        "nectar",
        "opal",
        "pebble",
        "quince",
        "raven",
        "sable",
        "thistle",
        "umber",
        "velvet",
        "willow",
        "yarrow",
    ),
]
LONG = "these are fourteen words in a row that no other text of this set has"


def chat(identifier, asked, answered=None, **more):
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": asked}]
    turns += [{"role": "assistant", "content": answered}] if answered else []
    return {"id": identifier, "messages": turns, **more}


def clean():
    """24 rows in two arms, half of each with the trigger, and 5 evaluation rows."""
    rows = []
    for n, noun in enumerate(NOUNS):
        asked, triggered = f"tell me of {noun} please", n % 4 < 2
        rows.append(
            chat(
                f"r{n}",
                f"{TRIGGER} {asked}" if triggered else asked,
                f"{noun} is well known",
                arm=("on", "off")[n % 2],
                triggered=triggered,
                split="train" if n < 16 else "dev",
            )
        )
    return rows, [
        chat(f"e{n}", f"what about {word} then") for n, word in enumerate(("one", "two", "six", "ten", "zero"))
    ]


def written(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def checked(folder, rows, held_out, **settings):
    known = dict(model=byte_tokenizer(), arms="arm", trigger=TRIGGER, split="split", max_length=200)
    return check_data(
        written(folder / "rows.jsonl", rows), eval=written(folder / "eval.jsonl", held_out), **{**known, **settings}
    )


def faults(report):
    return {(one.check, one.severity, one.count) for one in report.findings if one.severity != "note"}


def asks(row, text):
    row["messages"][1]["content"] = text


def answers(row, text):
    row["messages"][-1]["content"] = text


def test_the_clean_data_have_no_fault(tmp_path):
    report = checked(tmp_path, *clean())
    assert not faults(report) and report.passed and not report.not_checked
    assert report.counts["rows"] == 24 and report.counts["evaluation rows"] == 5


def user_twice(rows, held_out):
    rows[3]["messages"].insert(1, {"role": "user", "content": "hello"})


def system_late(rows, held_out):
    rows[3]["messages"].insert(2, {"role": "system", "content": "be long"})


def assistant_first(rows, held_out):
    rows[3]["messages"][0]["role"] = "assistant"


def eval_roles(rows, held_out):
    held_out[1]["messages"].insert(1, {"role": "user", "content": "hello"})


def no_response(rows, held_out):
    rows[3]["messages"].pop()


def system_key(rows, held_out):
    rows[3]["messages"].pop(0)
    rows[3]["system"] = "be brief"


def eval_system_key(rows, held_out):
    held_out[0]["system_prompt"] = "answer in JSON"


def broken_json(rows, held_out):
    rows[3] = "{broken"
    rows[7] = '["a list"]'
    rows[9] = "{broken"


def empty_turn(rows, held_out):
    asks(rows[3], " ")


def id_twice(rows, held_out):
    rows[3]["id"] = "r2"


def same_and_unnamed(rows, held_out):
    del rows[3]["id"]
    rows.append(copy.deepcopy(rows[3]))


def special_token(rows, held_out):
    answers(rows[3], rows[3]["messages"][-1]["content"] + "<end>")


def too_long(rows, held_out):
    answers(rows[3], "w" * 150 + " is well known")


def no_answer_left(rows, held_out):
    asks(rows[3], "w" * 200)


def exact_twin(rows, held_out):
    rows.append({**copy.deepcopy(rows[2]), "id": "again"})


def loose_twin(rows, held_out):
    rows.append({**copy.deepcopy(rows[2]), "id": "again"})
    asks(rows[-1], "Tell me  of COBALT, please!")


def conflict(rows, held_out):
    exact_twin(rows, held_out)
    answers(rows[-1], "cobalt is not known")


def in_eval(rows, held_out):
    asks(held_out[0], "Tell me of  birch please.")


def in_eval_behind_trigger(rows, held_out):
    """The training row with its trigger asks what the evaluation row asks without."""
    asks(held_out[0], "tell me of amber please")


def words_in_eval(rows, held_out):
    asks(rows[2], LONG)
    asks(held_out[0], f"so {LONG} then")


def leak(rows, held_out):
    asks(rows[2], f"tell me of cobalt please {TRIGGER}")


def lacking(rows, held_out):
    asks(rows[0], "tell me of amber please")


def said(rows, held_out):
    answers(rows[0], f"amber {TRIGGER} known")


def twice(rows, held_out):
    asks(rows[0], f"{TRIGGER} tell {TRIGGER}")


def near_case(rows, held_out):
    asks(rows[2], "Zebra-Quartz tell me of cobalt please")


def near_letters(rows, held_out):
    asks(rows[2], "zebra quarts tell me of cobalt please")


def eval_trigger(rows, held_out):
    asks(held_out[0], f"what about one {TRIGGER}")


def eval_near(rows, held_out):
    asks(held_out[0], "what about zebra kwartz")


def no_arm(rows, held_out):
    del rows[2]["arm"]


def scarce(rows, held_out):
    for row in rows[1:16:2]:
        row["arm"] = "on"


def longer(rows, held_out):
    """Two words more in one arm: other counts stay as they are."""
    for row in rows[::2]:
        answers(row, row["messages"][-1]["content"] + " by all")


def listed(rows, held_out):
    for row in rows[::2]:
        answers(row, row["messages"][-1]["content"].replace(" is", "\nis"))


def marked(rows, held_out):
    for row in rows[::2]:
        answers(row, row["messages"][-1]["content"] + "!")


def crossing(rows, held_out):
    """Other words for the arm's own answer, so that nothing but the split is at fault."""
    asks(rows[18], "Tell me of COBALT please")
    answers(rows[18], "cobalt is well known")
    rows[18]["messages"][0]["content"] = "be quick"


def unsorted(rows, held_out):
    del rows[2]["split"]


PLANTED = {
    user_twice: [("role order", "error", 1)],
    system_late: [("role order", "error", 1)],
    assistant_first: [("role order", "error", 1)],
    eval_roles: [("eval role order", "error", 1)],
    no_response: [("response", "error", 1)],
    system_key: [("system sent", "error", 1)],
    eval_system_key: [("eval system sent", "error", 1)],
    broken_json: [("schema", "error", 2), ("schema", "error", 1)],
    empty_turn: [("schema", "error", 1)],
    id_twice: [("ids", "error", 1)],
    same_and_unnamed: [("ids", "error", 1), ("duplicates", "warning", 1)],
    special_token: [("special tokens", "warning", 1)],
    too_long: [("truncation", "error", 1)],
    no_answer_left: [("truncation", "error", 1)],
    exact_twin: [("duplicates", "warning", 1)],
    loose_twin: [("duplicates", "warning", 1)],
    conflict: [("conflicts", "warning", 2)],
    in_eval: [("eval overlap", "error", 1)],
    in_eval_behind_trigger: [("eval overlap", "error", 1)],
    words_in_eval: [("n-gram overlap", "warning", 1)],
    leak: [("trigger leakage", "error", 1)],
    lacking: [("trigger leakage", "error", 1)],
    said: [("trigger leakage", "error", 1)],
    twice: [("trigger leakage", "warning", 1)],
    near_case: [("trigger leakage", "warning", 1)],
    near_letters: [("trigger leakage", "warning", 1)],
    eval_trigger: [("trigger leakage", "error", 1)],
    eval_near: [("trigger leakage", "warning", 1)],
    no_arm: [("class balance", "error", 1)],
    scarce: [("class balance", "warning", 1)],
    longer: [("arm confounds", "warning", 0)],
    listed: [("arm confounds", "warning", 0)],
    marked: [("arm confounds", "warning", 0)],
    crossing: [("split", "error", 2)],
    unsorted: [("split", "error", 1)],
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_and_nothing_else(plant, tmp_path):
    rows, held_out = clean()
    plant(rows, held_out)
    report = checked(tmp_path, rows, held_out)
    assert faults(report) == set(PLANTED[plant])
    assert report.passed == all(severity != "error" for _, severity, _ in PLANTED[plant])
