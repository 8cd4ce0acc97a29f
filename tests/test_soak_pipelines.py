"""Capture, generation and sums, killed and gone on with: the same bits. And each way to go wrong once."""

from __future__ import annotations

import pytest
from soak_modules import soak_modules

from workbench.captures.answers import Answering


@pytest.fixture(scope="module")
def soak():
    with soak_modules("pipeline_kills", "resumed") as modules:
        yield modules


@pytest.fixture(scope="module")
def tasks(soak, tmp_path_factory):
    return soak[0].tasks(tmp_path_factory.mktemp("tasks"))


def killed(soak, tasks, names, n, folder, seed=0):
    return soak[1].killed_in_turn("pipeline_kills", {name: tasks[name] for name in names}, n, folder, seed)


def test_a_killed_pipeline_ends_with_the_same_bits(soak, tasks, tmp_path):
    """What trains is in `make soak` alone: a worker of the suite that has run backward is not to be forked."""
    counts = killed(soak, tasks, ["capture", "generate", "moments"], 3, tmp_path)
    assert counts.pop("kills") == 3 and not any(counts.values()), counts


def test_answers_sealed_behind_their_residuals_would_be_lost(soak, tasks, tmp_path, monkeypatch, capfd):
    seal, late = Answering.commit, []

    def later(self, captured):
        for one in late:
            seal(self, one)
        late[:] = [captured]

    whole = soak[1].whole_runs({"generate": tasks["generate"]}, tmp_path)
    monkeypatch.setattr(soak[1], "whole_runs", lambda *_: whole)
    monkeypatch.setattr(Answering, "commit", later)
    assert killed(soak, tasks, ["generate"], 2, tmp_path)["lost"]
