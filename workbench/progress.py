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
    """Counts units of work: `with Progress(name, total) as bar: ... bar.update()`. `done`: those of an earlier run."""

    def __init__(self, name: str, total: int, *, done: int = 0, show: bool = True) -> None:
        self._name, self._total, self._done = name, total, done
        live = show and sys.stderr.isatty()
        self._bar = tqdm(desc=name, total=total, initial=done, unit="batch", leave=False) if live else None
        self._show = show and not live
        self._started = self._said = time.monotonic()
        self._new = 0

    def update(self) -> None:
        """One unit more."""
        self._new += 1
        if self._bar is not None:
            self._bar.update()
        now = time.monotonic()
        if self._show and now - self._said >= EVERY:
            self._said = now
            done = self._done + self._new
            left = (self._total - done) * (now - self._started) / self._new
            print(f"  {self._name}: {done} of {self._total} batches, {left:.0f} s left", file=sys.stderr, flush=True)

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.close()


def followed(work: Sequence[Any], name: str, *, show: bool = True) -> Iterator[Any]:
    """The items of `work`, one after the other, with their progress."""
    with Progress(name, len(work), show=show) as bar:
        for item in work:
            yield item
            bar.update()
