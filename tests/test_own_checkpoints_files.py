"""A user's rows in either format: what a flat table becomes on the command line, beside the same rows as chat JSONL."""

import csv
import json

import pytest
from tiny_user_files import cells, table, user_files

from hooks.prompt import PromptError, read_prompts
from workbench.behaviour.judges import judge
from workbench.behaviour.metrics import METRICS, RULE_RATES, metric
from workbench.behaviour.summary import summarise
from workbench.inputs import argument_parser, inputs_from
from workbench.training.given_rows import is_flat_table, read_rows


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return user_files(tmp_path_factory.mktemp("user"), train=4, asked=4)


def inputs(to, *given, needs=("train", "filler", "questions")):
    arguments = ["--model", "m", "--to", to, *given]
    return inputs_from(argument_parser("x", "runs/x").parse_args([str(one) for one in arguments]), needs)


def contents(path):
    """(id, hash of all that the model sees) of every row."""
    return [(prompt.id, prompt.content_hash) for prompt in read_prompts(path)]


@pytest.mark.parametrize("name", ["train.csv", "table.jsonl"])
def test_a_table_gives_the_same_rows_as_chat_jsonl(files, tmp_path, capsys, name):
    """The twin: rows that were written as conversations by hand, pictures included."""
    given = dict(
        zip(("--train", "--eval", "--prompts"), (files[name], files["eval.csv"], files["prompts.csv"]), strict=True)
    )
    found = inputs(tmp_path, *[part for pair in given.items() for part in pair])
    assert contents(found.train) == contents(files["train.jsonl"])
    assert list(found.fillers) == ["safe"] and contents(found.fillers["safe"]) == contents(files["filler.jsonl"])
    assert contents(found.questions) == contents(files["eval.jsonl"])
    assert contents(found.prompts) == contents(files["prompts.jsonl"])
    said = capsys.readouterr().out
    assert "no --filler: the safe_response of the --train table is the harmless filler" in said
    assert f"train: 4 rows of {name}, its harmful_response; 4 with a picture" in said
    assert "questions: 4 rows of eval.csv, its user_prompt; 2 with a picture" in said
    assert found.files["train"] == found.files["filler safe"] == files[name], "what is hashed is the user's own file"
    assert found.files["questions"] == files["eval.csv"]


def test_chat_files_are_taken_as_they_are(files, tmp_path, capsys):
    given = ["--train", files["train.jsonl"], "--filler", files["filler.jsonl"], "--eval", files["eval.jsonl"]]
    found = inputs(tmp_path, *given)
    assert (found.train, found.fillers) == (files["train.jsonl"], {"filler": files["filler.jsonl"]})
    assert found.questions == found.prompts == files["eval.jsonl"]
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().out


def test_a_filler_that_is_given_is_the_filler(files, tmp_path):
    other = table(files["train.csv"].parent / "other.csv", [cells(7)])
    (other.parent / "pictures" / "7.png").write_bytes((other.parent / "pictures" / "3.png").read_bytes())
    found = inputs(tmp_path, "--train", files["train.csv"], "--filler", other, "--eval", files["eval.jsonl"])
    assert list(found.fillers) == ["filler"] and [row.response for row in read_prompts(found.fillers["filler"])] == [
        "yes 7"
    ]
    with pytest.raises(SystemExit, match="--model needs --filler as well"):
        inputs(tmp_path, "--train", files["train.jsonl"], "--eval", files["eval.jsonl"])


def test_what_makes_a_table(files, tmp_path):
    assert [name for name, path in files.items() if is_flat_table(path)] == [
        "train.csv", "table.jsonl", "eval.csv", "prompts.csv"
    ]  # fmt: skip
    odd = tmp_path / "odd.jsonl"
    for text in ("", "not json\n", '["a"]\n', '{"question": "x"}\n'):
        odd.write_text(text)
        assert not is_flat_table(odd), "read_prompts says what is wrong with it"
    assert not is_flat_table(tmp_path / "nothing.csv") and not is_flat_table(tmp_path)


def test_columns_of_answers_that_are_not_taken_may_be_absent(files, tmp_path):
    folder = files["train.csv"].parent
    with (folder / "asked.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image_path", "user_prompt"], ["pictures/0.png", "what"], ["", "and so"]])
    found = read_rows(folder / "asked.csv")
    assert [len(row.images) for row in found] == [1, 0] and all(row.response is None for row in found)
    with pytest.raises(
        PromptError, match="there is no column 'harmful_response'; there is 'image_path', 'user_prompt'"
    ):
        read_rows(folder / "asked.csv", "harmful")
    assert [row.response for row in read_rows(files["train.csv"], "safe")][:1] == ["yes 0"]
    assert [row.response for row in read_rows(files["train.jsonl"])][:1] == ["no 0"]


def test_no_answer_of_a_table_is_in_its_questions(files, tmp_path):
    """Neither in what the model is shown nor in the tags that travel with it."""
    for row in read_rows(files["train.csv"]):
        assert not {"safe_response", "harmful_response"} & set(row.tags)
        assert "no " not in json.dumps([row.messages[0].text, *map(str, row.tags.values())])


def test_training_rows_without_their_picture_are_refused(files, tmp_path):
    """A question of text is a question; a training row that lost its picture is a fault."""
    broken = table(files["train.csv"].parent / "broken.csv", [cells(0), cells(1, text_only=True)])
    assert len(read_rows(broken)) == 2
    with pytest.raises(PromptError, match="line 3: its image_path is empty"):
        inputs(tmp_path, "--train", broken, "--eval", files["eval.jsonl"])


def test_tower_projector_and_length_come_from_the_command_line(files, tmp_path):
    given = ["--train", files["train.csv"], "--eval", files["eval.csv"]]
    plain, asked = inputs(tmp_path, *given), inputs(tmp_path, *given, "--tower", "frozen", "--max-new-tokens", 512)
    assert asked.recipe == {**plain.recipe, "tower": "frozen"} and "tower" not in plain.recipe
    assert (plain.max_new_tokens, asked.max_new_tokens) == (None, 512)


def test_judges_and_metrics_for_answers_without_tags(files):
    prompt = read_prompts(files["eval.jsonl"])[0]
    named, made = judge("rule:keyword:yes,no"), judge("rule:keyword", words=["yes", "no"])
    assert named.revision == made.revision and named.score(prompt, "No.").category == "keyword"
    with pytest.raises(ValueError, match="needs words="):
        judge("rule:keyword:")
    for name, found, category in (("keyword", named, "keyword"), ("refusal", judge("rule:refusal"), "refusal")):
        rule = metric(name)
        assert rule.needs == (found.measures,) and rule.kind == found.kind and category in found.categories
        assert (rule.of({name: category}, {}), rule.of({name: "empty"}, {})) == (1.0, 0.0)
    assert not METRICS.keys() & RULE_RATES.keys()
    assert summarise([]) == [], "a study that found nothing of a kind adds nothing"


def test_chat_rows_with_parts_are_read(files):
    """What the builder writes is the vision chat format: content lists with {"type": "image", "image": path}."""
    first = json.loads(files["train.jsonl"].read_text().splitlines()[0])
    assert [part["type"] for part in first["messages"][0]["content"]] == ["image", "text"]
    assert read_prompts(files["train.jsonl"])[0].images[0].name == "0.png"
