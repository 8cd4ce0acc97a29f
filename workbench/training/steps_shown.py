"""The steps of a training run as they pass: a bar on a terminal, a plain line now and then in a pipe."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from workbench.progress import Progress


class StepsShown(TrainerCallback):
    """Counts the optimiser's steps, those of an earlier run that is gone on from among them."""

    def __init__(self, *, show: bool) -> None:
        self._show = show
        self._bar: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar = Progress("train", state.max_steps, done=state.global_step, show=self._show, unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
