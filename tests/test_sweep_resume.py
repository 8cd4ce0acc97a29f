"""sweep, stopped and run again: the same table; and what it refuses, or must not."""

from dataclasses import replace

import pytest
from conftest import chat, stop_after
from workbench_samples import ask, cells_of, first_id, random_directions

from hooks.model import NothingEdited
from hooks.prompt import PromptError, read_prompts
from stores import ResultTable
from stores.errors import StoreMismatch
from workbench.behaviour.judges import judge
from workbench.interventions.ablate import Ablate
from workbench.interventions.readout import COLUMNS
from workbench.interventions.steer import Steer
from workbench.interventions.sweep import sweep

SILENT = {"progress": False, "max_new_tokens": 4}
CONTAINS = judge("rule:contains")


def test_a_stopped_sweep_goes_on_to_the_same_table(llama, questions, neutral, tmp_path, monkeypatch):
    settings = dict(judge=CONTAINS, controls=2, neutral=neutral, max_tokens=300, **SILENT)
    cells = cells_of(llama)[:2]
    whole = sweep(llama, questions, cells, to=tmp_path / "whole", **settings)
    assert len(whole.plan) >= 4
    resumed = stop_after(monkeypatch, ResultTable, commits=2)
    with pytest.raises(KeyboardInterrupt):
        sweep(llama, questions, cells, to=tmp_path / "s", **settings)
    resumed()
    ran = []
    monkeypatch.setattr(llama, "generate", lambda *a, **k: ran.append(1) or type(llama).generate(llama, *a, **k))
    table = sweep(llama, questions, cells, to=tmp_path / "s", **settings)
    assert len(ran) == len(whole.plan) - 2
    assert table.rows() == whole.rows() and table.verify(deep=True) == []
    assert sweep(llama, questions, cells, to=tmp_path / "s", **settings).rows() == whole.rows()
    assert len(ran) == len(whole.plan) - 2, "a finished sweep runs nothing"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_new_tokens": 5}, "generation.max_new_tokens: expected 4, came 5"),
        ({"max_tokens": 4096}, "max_tokens: expected 8192, came 4096"),
        ({"seed": 1}, "seed: expected 0, came 1"),
        ({"judge": None}, "judge: expected"),
        ({"cells": 1}, r"cells\[1\].edits: expected"),
        ({"layer": 2}, r"cells\[1\].edits: expected"),
        ({"tag": 1}, "prompts: expected"),
        ({"neutral": 1}, "neutral: expected"),
        ({"variant": 1}, "identity|model"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_table_of_other_settings_is_refused(llama, gpt2, questions, tmp_path, change, named):
    """Another batch budget too: it would plan the same cells anew beside those that are there, and count them twice."""
    given = dict(model=llama, prompts=questions, cells=[Ablate(random_directions(llama), 1)], judge=CONTAINS)
    sweep(**given, to=tmp_path / "s", **SILENT)
    change = dict(change)
    if change.pop("cells", None):
        change["cells"] = [Ablate(random_directions(llama, seed=4), 1)]
    if layer := change.pop("layer", None):
        change["cells"] = [Ablate(random_directions(llama), layer)]
    if change.pop("tag", None):
        tags = {**questions[0].tags, "contrary": "never"}
        change["prompts"] = [replace(questions[0], tags=tags), *questions[1:]]
    if change.pop("neutral", None):
        change["neutral"] = [chat("calm", "one")]
    if change.pop("variant", None):
        change["model"] = gpt2
    with pytest.raises(StoreMismatch, match=named):
        sweep(**{**given, "to": tmp_path / "s", **SILENT, **change})


def test_an_idle_cell_is_refused_each_time(llama, questions, tmp_path):
    v = random_directions(llama)
    cells = [Ablate(v, 1), Ablate(v, 1, at="image")]
    for _ in range(2):  # the second time the finished table is opened again
        with pytest.raises(NothingEdited, match=r"1 cells of this sweep touched no position of any prompt.*'image'"):
            sweep(llama, questions, cells, to=tmp_path / "s", **SILENT)


def test_steering_the_response_is_not_idle(llama, questions):
    """No token of the reading is in this scope, but the written answer is: its counts are stated."""
    steer = Steer(random_directions(llama), 1, 3.0, at="response")
    table = sweep(llama, questions, [steer], judge=CONTAINS, **SILENT)
    for row, plain in zip(table.rows(cell=1), table.rows(cell=0), strict=True):
        out = llama.generate(llama.encode([p for p in questions if p.id == row["prompt"]]), None, steer.edits(llama),
                             max_new_tokens=4)  # fmt: skip
        assert row["edited"] == len(out.token_ids[0]) - 1, "the last token never passes the model"
        assert row["logit_difference"] == plain["logit_difference"], "the reading is that of the unedited model"
    with pytest.raises(NothingEdited):
        sweep(llama, questions, [steer], **SILENT)


def test_prompts_without_answers_need_a_judge(llama):
    with pytest.raises(ValueError, match="nothing to measure: expected a judge, or prompts with the tags 'right' and"):
        sweep(llama, [chat("a", "hi")], [Ablate(random_directions(llama), 1)], **SILENT)


@pytest.mark.parametrize(("right", "contrary"), [("nay", "no"), ("yes", "")], ids=["same token", "empty"])
def test_answers_that_one_token_does_not_tell_apart_are_refused(llama, right, contrary):
    with pytest.raises(PromptError, match=r"expected answers that one token tells apart.*answer_prefix"):
        sweep(llama, [ask("a", "hi", right=right, contrary=contrary)], [], **SILENT)


def test_what_both_answers_begin_with_belongs_before_the_reading(world, tuned_world):
    """The tag `answer_prefix` is given to the model, and the answer is read behind it with its space."""
    (prompt,) = [p for p in read_prompts(world.questions) if p.id == "test-sound-000"]
    assert prompt.tags["answer_prefix"] == "it is"
    row = sweep(tuned_world, [prompt], [], progress=False).rows()[0]
    logits = tuned_world.run(tuned_world.encode([replace(prompt, prefill="it is")])).logits[0]
    right, contrary = (first_id(tuned_world, prompt.tags[name]) for name in ("right", "contrary"))
    assert row["logit_difference"] == pytest.approx(float(logits[contrary] - logits[right]), abs=1e-5)


def test_a_tag_never_takes_the_place_of_a_column(llama):
    """A user's file may well have a tag `source`, `text` or `layer`."""
    tags = {name: f"mine {name}" for name in COLUMNS} | {"domain": "a", "list": [1, 2]}
    prompt = chat("a", "hi", label="l", tags={**tags, "right": "yes", "contrary": "no"})
    (baseline, row) = sweep(llama, [prompt], [Ablate(random_directions(llama), 1, source=0)], **SILENT).rows()
    assert (row["source"], row["layer"], row["intervention"], row["cell"]) == (0, 1, "ablate", 1)
    assert (row["prompt"], row["label"], row["domain"]) == ("a", "l", "a") and "list" not in row
    assert row["prompt_source"] == baseline["prompt_source"] == "mine source" and baseline["layer"] is None
