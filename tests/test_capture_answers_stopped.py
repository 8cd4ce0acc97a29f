"""Answers that are captured while they are written: stopped runs go on to the same ones, draws follow the seed."""

import numpy as np
import pytest
import torch
from conftest import stop_after
from test_capture_answers import SILENT, assert_equal_rows, written

from hooks.host_copy import Arriving
from stores import ActivationStore, ResultTable
from stores.errors import StoreMismatch
from workbench.captures.answers import REPEATED, Answering, with_answers
from workbench.captures.blocks import Captured
from workbench.capturing import capture


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "temperature": 2.0}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("kind", [ActivationStore, ResultTable])
def test_a_stopped_run_goes_on_to_the_same_answers_and_bits(half, many, kind, sampling, tmp_path, monkeypatch):
    """Killed before the answers of a unit were sealed, or between them and its rows."""
    settings = dict(at="response", responses="generate", max_new_tokens=5, max_tokens=120, **sampling, **SILENT)
    whole = capture(half, many, to=tmp_path / "whole", **settings)
    assert len(whole.plan) > 3
    resumed = stop_after(monkeypatch, kind, commits=2)
    with pytest.raises(KeyboardInterrupt):
        capture(half, many, to=tmp_path / "s", **settings)
    resumed()
    torch.manual_seed(5)  # what others draw in between changes nothing
    again = capture(half, many, to=tmp_path / "s", **settings)
    assert again.prompt_ids == whole.prompt_ids and written(again) == written(whole)
    assert all(np.array_equal(again.values(site), whole.values(site)) for site in whole.sites)


def test_answers_that_do_not_come_again_are_read(llama, many, tmp_path, monkeypatch):
    """Another device may write something else: what was sealed stays, and its rows are those of one forward."""
    settings = dict(at="response", responses="generate", max_new_tokens=4, **SILENT)
    resumed = stop_after(monkeypatch, ActivationStore, commits=0)
    with pytest.raises(KeyboardInterrupt):
        capture(llama, many[:3], to=tmp_path / "s", **settings)
    resumed()
    before = written(ActivationStore.open(tmp_path / "s"))
    assert before
    notes, commit = [], ActivationStore.commit

    def noted(self, unit, blocks, note=""):
        notes.append(note)
        return commit(self, unit, blocks, note)

    monkeypatch.setattr(ActivationStore, "commit", noted)
    monkeypatch.setattr(llama, "variant", lambda name: Elsewhere(llama))
    store = capture(llama, many[:3], to=tmp_path / "s", **settings)
    assert written(store) == before and REPEATED in notes
    monkeypatch.undo()
    forced = capture(llama, with_answers(many[:3], store), at="response", to=tmp_path / "forced", **SILENT)
    assert_equal_rows(store, forced, 1e-6)


class Elsewhere:
    """A model that writes other answers than before."""

    def __init__(self, model):
        self.model = model

    def generate(self, batch, keep, edits, **options):
        return self.model.generate(batch, keep, edits, sequence_bias={(40,): 1000.0}, **options)

    def run(self, *arguments, **named):
        return self.model.run(*arguments, **named)


def test_the_seed_decides_the_draws_and_nothing_else_does(llama, many, tmp_path):
    settings = dict(at="answering", responses="generate", max_new_tokens=5, do_sample=True, temperature=3.0, **SILENT)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one = written(capture(llama, many, to=tmp_path / "one", seed=1, **settings))
    assert torch.equal(torch.rand(3), expected), "torch draws on as if nothing had been drawn"
    assert written(capture(llama, many, to=tmp_path / "again", seed=1, **settings)) == one
    assert written(capture(llama, many, to=tmp_path / "two", seed=2, **settings)) != one
    with pytest.raises(StoreMismatch, match=r"responses.seed: expected 1, came 2"):
        capture(llama, many, to=tmp_path / "one", seed=2, **settings)


def test_another_process_with_other_answers_is_noticed(llama, many, tmp_path):
    settings = dict(at="response", responses="generate", max_new_tokens=3, **SILENT)
    store = capture(llama, many[:2], to=tmp_path / "s", **settings)
    ours = Answering.__new__(Answering)
    ours._table = ResultTable.open(store.path / "answers")
    rows = [row for row in ours._table.rows() if row["prompt_id"] in store.plan[0].prompt_ids]
    captured = Captured(store.plan[0], Arriving({}), {}, rows)
    ours.commit(captured)
    rows[0]["token_ids"] = "[1]"
    with pytest.raises(RuntimeError, match="another process has sealed other answers"):
        ours.commit(captured)
