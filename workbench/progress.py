"""Progress of long work: a bar on a terminal, a plain line now and then in a pipe or a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from tqdm import tqdm

EVERY = 15.0  # seconds between the lines of a log


class Progress(AbstractContextManager["Progress"]):
    """Counts work: `with Progress(name, total) as bar: ... bar.update()`. `done`: what an earlier run did. `unit` is
    what is counted; tokens are said with their rate, since they cost about the same each, as batches do not."""

    def __init__(self, name: str, total: int, *, done: int = 0, show: bool = True, unit: str = "batch") -> None:
        self._name, self._total, self._done, self._unit = name, total, done, unit
        live = show and sys.stderr.isatty()
        tokens = unit == "token"
        self._bar = (
            tqdm(desc=name, total=total, initial=done, unit=unit, unit_scale=tokens, leave=False) if live else None
        )
        self._show = show and not live
        self._started = self._said = time.monotonic()
        self._new = 0

    def update(self, n: int = 1) -> None:
        """`n` units more."""
        self._new += n
        if self._bar is not None:
            self._bar.update(n)
        now = time.monotonic()
        if self._show and now - self._said >= EVERY:
            self._said = now
            print(f"  {self._name}: {self._line(now - self._started)}", file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        done = self._done + self._new
        left = (self._total - done) * seconds / self._new
        if self._unit == "token":
            return f"{done:,} of {self._total:,} tokens, {self._new / seconds:,.0f} tokens/s, {left:.0f} s left"
        counted = {"batch": "batches", "reply": "replies"}.get(self._unit, f"{self._unit}s")
        return f"{done} of {self._total} {counted}, {left:.0f} s left"

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.close()


def followed(
    work: Sequence[Any], name: str, *, show: bool = True, tokens: Sequence[int] | None = None, done: int = 0
) -> Iterator[Any]:
    """The items of `work`, one after the other, with their progress: in batches, or by the `tokens` of each, of which
    an earlier run did `done`."""
    total, unit = (len(work), "batch") if tokens is None else (done + sum(tokens), "token")
    with Progress(name, total, done=0 if tokens is None else done, show=show, unit=unit) as bar:
        for i, item in enumerate(work):
            yield item
            bar.update(1 if tokens is None else tokens[i])
