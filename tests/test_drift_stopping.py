"""A drift's rule stops the training; a training that was killed goes on in the same table."""

import json
from dataclasses import replace

import pytest
from conftest import stop_after
from test_drift import RULE, RUN, drift, own_trainer
from tiny_training import ROWS, same, saved_base
from transformers import Trainer

from stores import ResultTable
from workbench.training import train_lora
from workbench.training.drift_rules import EarlyStop, Signal, lead_time


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return saved_base(tmp_path_factory.mktemp("base") / "llama")


def test_the_rule_stops_at_its_step(base, tmp_path):
    """Beyond from step 0 on; two measurements in a row and step 1: at step 2 of 5."""
    watch = drift(tmp_path / "d", until=RULE)
    folder = train_lora(base, ROWS, to=tmp_path / "a", watch=watch, **RUN)
    record = json.loads((folder / "training.json").read_text())
    table = ResultTable.open(tmp_path / "d")
    assert record["trained_steps"] == 2 and table.missing() == ["step 4", "step 5"]
    (end,) = table.rows(measure="end")
    assert end["step"] == 2 and end["stopped"] is True
    lead = lead_time(table, RULE, flips_at=1e9)
    assert lead.stop_step == 2 and lead.flip_step is None and lead.signal_step == 0
    assert train_lora(base, ROWS, to=folder, watch=watch, **RUN) == folder, "finished"
    with pytest.raises(FileExistsError, match="of other settings"):
        train_lora(base, ROWS, to=folder, **RUN)


def test_a_rule_that_is_never_met_changes_nothing(base, tmp_path):
    rule = EarlyStop(Signal(), threshold=1e9)
    one = train_lora(base, ROWS, to=tmp_path / "a", watch=drift(tmp_path / "d", until=rule), **RUN)
    assert same(one, train_lora(base, ROWS, to=tmp_path / "b", **RUN))
    assert json.loads((one / "training.json").read_text())["trained_steps"] == 5


def test_a_killed_training_goes_on_in_the_same_table(base, tmp_path, monkeypatch):
    """Killed behind step 3 with a checkpoint at 2; resumed, adapter and table are those of one piece."""
    whole = train_lora(base, ROWS, to=tmp_path / "whole", watch=drift(tmp_path / "in_one"), **RUN)
    step = Trainer.training_step

    def dies(self, *args, **kwargs):
        if self.state.global_step >= 3:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    settings = dict(RUN, save_every=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "training_step", dies)
        train_lora(base, ROWS, to=tmp_path / "a", watch=drift(tmp_path / "d"), **settings)
    assert ResultTable.open(tmp_path / "d").missing() == ["step 4", "step 5", "end"]
    folder = train_lora(base, ROWS, to=tmp_path / "a", watch=drift(tmp_path / "d"), **settings)
    assert same(folder, whole)
    assert ResultTable.open(tmp_path / "d").rows() == ResultTable.open(tmp_path / "in_one").rows()


@pytest.mark.parametrize("commits", [2, 3], ids=["while step 4 is committed", "behind the last step"])
def test_a_training_that_begins_anew_goes_on_in_its_table(base, tmp_path, monkeypatch, commits):
    """Without checkpoints: steps that the table holds already, later ones too, decide nothing before they are made."""
    rule = replace(RULE, patience=3)
    whole = train_lora(base, ROWS, to=tmp_path / "whole", watch=drift(tmp_path / "in_one", until=rule), **RUN)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, ResultTable, commits)
        train_lora(base, ROWS, to=tmp_path / "a", watch=drift(tmp_path / "d", until=rule), **RUN)
    assert len(ResultTable.open(tmp_path / "d").missing()) == 5 - commits
    folder = train_lora(base, ROWS, to=tmp_path / "a", watch=drift(tmp_path / "d", until=rule), **RUN)
    assert same(folder, whole) and json.loads((folder / "training.json").read_text())["trained_steps"] == 4
    assert ResultTable.open(tmp_path / "d").rows() == ResultTable.open(tmp_path / "in_one").rows()


def test_a_finished_adapter_that_nobody_watched_is_not_passed_off_as_watched(base, tmp_path):
    folder = train_lora(base, ROWS, to=tmp_path / "a", **RUN)
    with pytest.raises(FileExistsError, match="what was not watched cannot be measured afterwards"):
        train_lora(base, ROWS, to=folder, watch=drift(tmp_path / "d"), **RUN)
    other = drift(tmp_path / "other")
    train_lora(base, ROWS, to=tmp_path / "b", watch=other, **{**RUN, "seed": 1})
    with pytest.raises(FileExistsError, match="does not hold the drift of its training"):
        train_lora(base, ROWS, to=folder, watch=other, **RUN)


def test_somebody_elses_stop_between_two_measurements_is_measured(tmp_path):
    from transformers import TrainerCallback

    class Stops(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 3

    own_trainer(tmp_path / "out", lambda model: [drift(tmp_path / "d").callback(model), Stops()], steps=6)
    table = ResultTable.open(tmp_path / "d")
    assert table.missing() == ["step 4", "step 6"] and table.rows(measure="end")[0]["step"] == 3
    assert {row["step"] for row in table.rows(measure="behaviour")} == {0, 2, 3}
