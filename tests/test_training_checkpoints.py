"""Checkpoints of a training that was killed while it wrote one: never gone on from, and never in the way."""

from __future__ import annotations

import pytest
from tiny_training import ROWS, saved_base, tensors

from workbench.training import checkpoints, train_lora

SETTINGS = dict(rank=2, steps=6, batch_size=2, learning_rate=1e-2, save_every=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return saved_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    return tensors(train_lora(base, ROWS, to=tmp_path_factory.mktemp("whole") / "adapter", **SETTINGS))


def killed_in(monkeypatch, base, to, name, step):
    """A training that dies as it comes to this method of the Trainer behind so many steps."""
    from transformers import Trainer

    method = getattr(Trainer, name)

    def dies(self, *arguments, **named):
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return method(self, *arguments, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, name, dies)
        train_lora(base, ROWS, to=to, **SETTINGS)
    return next(to.parent.glob("*.training"))


def steps_of(monkeypatch, base, to):
    """How many steps it takes to go on to the end."""
    from transformers import Trainer

    steps, method = [], Trainer.training_step
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", lambda self, *a, **k: steps.append(1) or method(self, *a, **k))
        train_lora(base, ROWS, to=to, **SETTINGS)
    return len(steps)


@pytest.mark.parametrize("name", ["_save_optimizer_and_scheduler", "_save_rng_state"])
@pytest.mark.parametrize(("step", "left"), [(2, 6), (4, 4)])
def test_a_checkpoint_that_was_being_written_is_not_gone_on_from(base, whole, tmp_path, monkeypatch, name, step, left):
    """The one before it is, or the beginning where there is none; and the adapter is the same, bit for bit."""
    folder = killed_in(monkeypatch, base, tmp_path / "a", name, step)
    assert (folder / f"checkpoint-{step}" / "adapter_model.safetensors").exists(), "a torn one lies there"
    assert steps_of(monkeypatch, base, tmp_path / "a") == left
    again = tensors(tmp_path / "a")
    assert all((again[name] == whole[name]).all() for name in whole)
    assert not folder.exists()


def test_the_one_before_is_removed_when_the_next_is_whole(base, tmp_path, monkeypatch):
    folder = killed_in(monkeypatch, base, tmp_path / "a", "training_step", 4)
    assert [one.name for one in folder.iterdir()] == ["checkpoint-4"]
    assert checkpoints.newest_whole(folder) == folder / "checkpoint-4"


def test_behind_the_last_step_there_is_no_checkpoint(base, whole, tmp_path, monkeypatch):
    """Killed when all steps are done and the adapter is not written yet: Trainer would take a seventh step."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "removed", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
        train_lora(base, ROWS, to=tmp_path / "a", **SETTINGS)
    folder = next(tmp_path.glob("*.training"))
    assert [one.name for one in folder.iterdir()] == ["checkpoint-4"]
    assert steps_of(monkeypatch, base, tmp_path / "a") == 2
    again = tensors(tmp_path / "a")
    assert all((again[name] == whole[name]).all() for name in whole)


def test_the_newest_is_found_by_its_number(tmp_path):
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-11", "checkpoint-old"):
        (tmp_path / name).mkdir()
        if name != "checkpoint-11":
            (tmp_path / name / checkpoints.MARK).touch()
    assert checkpoints.newest_whole(tmp_path) == tmp_path / "checkpoint-10"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]
    assert checkpoints.newest_whole(tmp_path / "nothing") is None


def test_what_is_half_removed_is_whole_no_more(tmp_path, monkeypatch):
    """Killed between mark and files, it must not be taken for a checkpoint."""
    one = tmp_path / "run" / "checkpoint-2"
    one.mkdir(parents=True)
    (one / checkpoints.MARK).touch()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.shutil, "rmtree", lambda *_, **__: None)
        checkpoints.removed(tmp_path / "run")
    assert one.exists() and checkpoints.newest_whole(tmp_path / "run") is None
