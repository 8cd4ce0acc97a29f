"""Checkpoints of a training run: gone on from only when they were written to their end.

`Trainer` writes a checkpoint file by file under its final name. What a kill left of one cannot be loaded, and would
stop every later run; so each gets a mark, last of all and behind a sync, and one without it is no checkpoint.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from stores import files

MARK = "whole"
_NAMED = "checkpoint-"


class Marked(TrainerCallback):
    """Marks each checkpoint in `folder` once it is whole and synced; the one before it is removed only then.

    Behind the last step there is none: `Trainer` takes a step too many when it goes on from there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if control.should_training_stop:
            control.should_save = False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if control.should_training_stop:  # by whatever way it came about
            return
        newest = self._folder / f"{_NAMED}{state.global_step}"
        files.sync_tree(newest)
        files.write_file(newest / MARK, b"")
        for other in self._folder.glob(f"{_NAMED}*"):
            if other != newest:
                _remove(other)


def newest_whole(folder: Path) -> Path | None:
    """The last checkpoint in `folder` that was written to its end; those that were not are removed."""
    found = {}
    for one in folder.glob(f"{_NAMED}*"):
        if (one / MARK).is_file() and one.name.removeprefix(_NAMED).isdigit():
            found[int(one.name.removeprefix(_NAMED))] = one
        else:
            _remove(one)
    return found[max(found)] if found else None


def removed(folder: Path) -> None:
    """All checkpoints, and the folder."""
    for one in folder.glob(f"{_NAMED}*"):
        _remove(one)
    shutil.rmtree(folder, ignore_errors=True)


def _remove(checkpoint: Path) -> None:
    """The mark first: what is half removed is whole no more."""
    (checkpoint / MARK).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)
