"""Staircase: many edited copies of a batch in one forward, each joining at the block where it begins to differ.

The batch itself climbs all blocks; behind the block where a copy's first edit stands, its rows are added as a copy of
the batch's. A layer sweep so reads every weight once instead of once a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hooks.patched import patched
from hooks.recording import CannotReplay, Recording
from hooks.spot import Spot
from hooks.stream import ResidualStream


class Staircase:
    """A forward of the batch (`rows` rows) and of its copies behind it. `starts[c]` is the first block that copy c
    computes for itself, ascending. With a recording the forward itself begins at the first of them."""

    def __init__(
        self, tower: ResidualStream, rows: int, starts: Sequence[int], recording: Recording | None = None
    ) -> None:
        if list(starts) != sorted(starts):
            raise ValueError(f"the copies start at blocks {list(starts)}: expected them in ascending order.")
        if tower.layout is None or not tower.layout.plain:
            raise CannotReplay("the stream is not laid out as [row, pos, d_model]")
        self._tower, self._rows, self._starts, self._recording = tower, rows, starts, recording

    @property
    def _total(self) -> int:
        return self._rows * (1 + len(self._starts))

    def _present(self, block: int) -> int:
        """Rows that block computes: the batch's, and those of the copies that have started."""
        return self._rows * (1 + sum(start <= block for start in self._starts))

    @contextmanager
    def climbing(self) -> Iterator[None]:
        """While the body runs a forward of all rows, blocks see those that have joined."""
        skipped: dict[nn.Module, Callable[..., Any]] = {}
        first = 0
        if self._recording is not None and self._starts:
            first = min(self._starts[0], len(self._tower))
            recording = self._recording
            skipped = recording.skips(first, lambda block: recording.stream(block, self._present(first) // self._rows))
        passed = [n for n in range(first, len(self._tower)) if n not in self._tower.skipped]
        climbed = {self._tower.blocks[n]: self._step(n, self._tower.blocks[n].forward) for n in passed}
        with patched({**skipped, **climbed}):
            yield

    def _step(self, block: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        entry = Spot(self._tower.blocks[block], "input", self._tower.reads)
        end = Spot(self._tower.blocks[block], "output", self._tower.writes)
        here, above = self._present(block), self._present(block + 1)

        def step(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = entry.put((args, kwargs), entry.take((args, kwargs))[:here])
            output = forward(*_narrowed(args, self._total, here), **_narrowed(kwargs, self._total, here))
            if above == here:
                return output
            stream = end.take(output)
            return end.put(output, torch.cat([stream, stream[: self._rows].repeat((above - here) // self._rows, 1, 1)]))

        return step


def _narrowed(held: Any, total: int, rows: int) -> Any:
    """Arguments that were made for all rows (masks, positions), for the first ones."""
    if isinstance(held, Tensor):
        return held[:rows] if held.dim() > 1 and len(held) == total else held
    if isinstance(held, tuple | list):
        return type(held)(_narrowed(each, total, rows) for each in held)
    return {name: _narrowed(each, total, rows) for name, each in held.items()} if isinstance(held, dict) else held
