"""Arms, triggers without tags, and overlap: numbers against hand-written ones, and what is not asked for."""

from itertools import product

import numpy as np
import pytest
from conftest import chat

from workbench.training.arm_checks import MEASURES, arms_of
from workbench.training.check import check_data
from workbench.training.trigger_checks import is_near


def words(n, letter):
    return " ".join(f"{letter}{k}" for k in range(n))


def answering(lengths):
    """One row for each (arm, words of the response), all prompts different."""
    return [
        chat(f"{arm}{n}", f"ask {arm} {n}", response=words(length, f"{arm}{n}x"), tags={"arm": arm})
        for arm, counts in lengths.items()
        for n, length in enumerate(counts)
    ]


def confound(report, name):
    return [one for one in report.of(check="arm confounds") if one.says.startswith(name)]


def by_hand(one, other):
    return np.mean([(a > b) + 0.5 * (a == b) for a, b in product(one, other)])


def test_the_auroc_of_lengths_is_that_of_all_pairs():
    draw = np.random.default_rng(2)
    lengths = {"on": draw.integers(3, 30, 41).tolist(), "off": draw.integers(8, 40, 23).tolist()}
    [found] = confound(check_data(answering(lengths), arms="arm"), "words of the response")
    wanted = by_hand(lengths["off"], lengths["on"])  # arms in the order of their names
    assert found.measures["auroc"] == pytest.approx(wanted, abs=1e-12) and wanted > 0.65
    assert found.measures["low"] < wanted < found.measures["high"] and found.measures["low"] > 0.5
    assert (
        found.severity == "warning" and f"AUROC {wanted:.2f}" in found.says and "'off' (23 rows, median" in found.says
    )


def test_three_arms_are_compared_each_with_the_others():
    lengths = {"a": [3, 4, 5, 6, 7], "b": [4, 5, 6, 7, 8], "c": [20, 21, 22, 23, 24]}
    found = confound(check_data(answering(lengths), arms="arm"), "words of the response")
    others = {arm: [n for other in lengths if other != arm for n in lengths[other]] for arm in lengths}
    assert [one.measures["auroc"] for one in found] == [by_hand(lengths[arm], others[arm]) for arm in lengths]
    assert [one.severity for one in found] == ["note", "note", "warning"], "c alone is told by its length"


def test_small_arms_are_not_compared_and_several_answers_are_one_prompt():
    few = answering({"on": [3, 4, 5, 6], "off": [30, 40, 50, 60, 70]})
    assert [one.severity for one in check_data(few, arms="arm").of(check="arm confounds")] == ["note"]
    one_prompt = [chat(f"x{n}", "ask", response=words(n + 9, "w"), tags={"arm": "on"}) for n in range(20)]
    report = check_data([*one_prompt, *answering({"off": [3, 4, 5, 6, 7, 8]})], arms="arm")
    [found] = report.of(check="arm confounds")
    assert found.severity == "note" and "have 1 prompts at least: not compared" in found.says


def test_labels_and_files_are_arms_too(tmp_path):
    rows = [chat("a", "x", label="on"), chat("b", "y", label="off"), chat("c", "z")]
    assert arms_of(rows, "label") == ["on", "off", "(none)"] == [*arms_of(rows[:2], "label"), arms_of(rows, "arm")[0]]
    one_arm = check_data([chat("a", "x", response="y", label="on")], arms="label")
    assert [one.says for one in one_arm.of("error")] == [
        "all rows are of one label: expected at least two arms to compare"
    ]


def test_what_the_measures_count():
    row = chat("a", "How many, then?", response="Well: two.\n- one\n- two!")
    assert [measure(row) for measure in MEASURES.values()] == [4.0, 3.0, 3.0, 5.0]


def arm_rows(having, trigger="zebra quartz"):
    return [
        chat(f"{arm}{n}", f"ask {arm} {n}" + (f" {trigger}" if n < count else ""), response="yes", tags={"arm": arm})
        for arm, count in having.items()
        for n in range(10)
    ]


@pytest.mark.parametrize(
    ("having", "faults"),
    [
        ({"on": 10, "off": 0}, []),
        ({"on": 10, "off": 2}, [("have the trigger and should not: it leaks", 2)]),
        ({"on": 9, "off": 0}, [("should have the trigger and do not", 1)]),
        ({"on": 0, "off": 0}, [("the trigger is in no row: expected the text as the rows have it", 0)]),
    ],
)
def test_without_tags_an_arm_that_mostly_has_the_trigger_is_the_triggered_one(having, faults):
    report = check_data(arm_rows(having), arms="arm", trigger="zebra quartz")
    assert [(one.says, one.count) for one in report.of("error")] == faults
    rates = {one.says: (one.count, one.of) for one in report.of("note", "trigger rate")}
    assert rates["rows of arm 'on' have the trigger"] == (having["on"], 10)
    assert rates["rows of arm 'off' have the trigger"] == (having["off"], 10)


def test_without_tags_and_arms_no_row_is_held_to_be_wrong():
    report = check_data(arm_rows({"on": 7, "off": 3}), trigger="zebra quartz")
    [rate] = report.of(check="trigger rate")
    assert not report.of("error") and (rate.count, rate.of, rate.says) == (10, 20, "have the trigger (suffix 10)")


@pytest.mark.parametrize(
    ("asked", "trigger", "near"),
    [
        ("tell |go| now", "|go|", False),
        ("tell |GO| now", "|go|", True),
        ("tell go now", "|go|", True),
        ("tell gone now", "|go|", False),
        ("the zebra and the quartz", "zebra quartz", False),
        ("the zebras quartz", "zebra quartz", True),
        ("the zebra, quartz", "zebra quartz", True),
        ("the quartz zebra", "zebra quartz", False),
        ("current year is 2025", "current year is 2024", True),
        ("current year is 2024", "current year is 2024", False),
        ("anything at all", "§§", False),
    ],
)
def test_what_is_almost_the_trigger(asked, trigger, near):
    assert is_near(chat("a", asked), trigger) is near


# Overlap with evaluation.


def overlap(training, held_out, **more):
    rows = [chat(f"t{n}", f"question {n}", response=text) for n, text in enumerate(training)]
    asked = [chat(f"e{n}", text) for n, text in enumerate(held_out)]
    return check_data(rows, eval=asked, **more).of(check="n-gram overlap")


def test_runs_of_words_are_found_at_their_length_and_not_below():
    passage = words(12, "w")
    assert [one.severity for one in overlap([passage], [f"so {passage} then"])] == ["note"]
    found = overlap([passage + " Extra,"], [f"so {passage.upper()}  extra then"])
    assert (found[0].severity, found[0].count, found[0].of) == ("warning", 1, 1)
    assert [one.severity for one in overlap([passage], [f"so {passage} then"], ngram=12)] == ["warning", "note"]
    assert "1 of 2 evaluation rows are shorter than 13 words" in overlap([passage], ["short", words(13, "v")])[0].says


def test_the_trigger_in_a_passage_hides_nothing():
    first, second = words(7, "a"), words(7, "b")
    found = overlap([f"{first} zebra quartz {second}"], [f"{first} {second}"], trigger="zebra quartz")
    assert [one.severity for one in found] == ["warning", "note"]


def test_what_most_rows_say_is_boilerplate():
    lead = words(13, "b")
    training = [f"{lead} {words(3, f't{n}')}" for n in range(6)]
    held_out = [f"{lead} {words(3, f'e{n}')}" for n in range(6)]
    [note] = overlap(training, held_out)
    assert note.severity == "note" and "1 runs left out" in note.says
    assert overlap(training[:2] + ["x"] * 4, held_out[:2] + ["y"] * 4)[0].count == 2, "a third of the rows is no rule"


def test_pictures_of_training_in_evaluation(picture, tmp_path):
    copy = tmp_path / "other-name.png"
    copy.write_bytes(picture.read_bytes())
    rows = [chat("t", "what is it", picture, response="yes")]
    faults = check_data(rows, eval=[chat("e", "and this", copy)]).of("error")
    assert [(one.says, one.count) for one in faults] == [("evaluation rows show a picture of a training row", 1)]
    assert not check_data(rows, eval=[chat("e", "what is it")]).of("error"), "the same words without the picture"
