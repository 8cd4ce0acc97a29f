"""Recording: one forward kept block by block, so that others start where they begin to differ from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hooks.layout import Layout
from hooks.patched import patched
from hooks.spot import Spot
from hooks.stream import ResidualStream


class CannotReplay(RuntimeError):
    """The blocks of this model cannot be passed in part, or not for several rows at once; the reason is said."""


@dataclass(frozen=True, eq=False)
class Recording:
    """What every block of a tower returned in one forward of `rows` rows; the streams behind the blocks of `streams`.

    A forward that `starting` has wrapped runs its embedding, its masks and its head as always, while the blocks in
    front of `start` give back what was recorded: everything that is not a block stays the model's own code.
    """

    tower: ResidualStream
    rows: int
    templates: Mapping[int, Any]  # what a block returns, its stream left empty
    streams: Mapping[int, Tensor]  # block -> the stream that it returned, in the model's own layout

    @property
    def nbytes(self) -> int:
        return sum(stream.nbytes for stream in self.streams.values())

    def last_before(self, start: int) -> int | None:
        """The last block in front of `start` that the forward passed; None for none."""
        passed = [n for n in self.templates if n < start]
        return max(passed) if passed else None

    def stream(self, block: int, copies: int = 1) -> Tensor:
        """A copy of the stream behind a block, its rows `copies` times one after the other."""
        return self._layout.repeated(self.streams[block], copies)

    def give(self, block: int, stream: Tensor) -> Any:
        """What the block returned, with this stream in it."""
        return Spot(self.tower.blocks[block], "output", self.tower.writes).put(self.templates[block], stream)

    @property
    def _layout(self) -> Layout:
        layout = self.tower.layout
        assert layout is not None
        return layout

    @contextmanager
    def starting(self, start: int, copies: int = 1) -> Iterator[None]:
        """While the body runs a forward of `copies` times the recorded rows, its blocks begin at `start`."""
        with patched(self.skips(start, lambda block: self.stream(block, copies))):
            yield

    def skips(self, start: int, given: Callable[[int], Tensor]) -> dict[nn.Module, Callable[..., Any]]:
        """Forwards for the blocks in front of `start`: the last gives `given(block)`, the others hand on their input,
        which nobody reads."""
        last = self.last_before(start)
        if last is None:
            return {}
        if last not in self.streams:
            raise ValueError(
                f"the stream behind block {last} was not recorded: expected one of {sorted(self.streams)}."
            )

        def handing_on(block: int) -> Callable[..., Any]:
            entry = Spot(self.tower.blocks[block], "input", self.tower.reads)
            return lambda *args, **kwargs: self.give(block, entry.take((args, kwargs)))

        forwards = {self.tower.blocks[n]: handing_on(n) for n in self.templates if n < last}
        return {**forwards, self.tower.blocks[last]: lambda *args, **kwargs: self.give(last, given(last))}


class Recorder:
    """Records the blocks of a tower while a forward runs: `with recorder.recording(): model.run(...)`."""

    def __init__(self, tower: ResidualStream, rows: int, wanted: Collection[int] | None = None) -> None:
        """`wanted` are the blocks whose streams are kept (default: all)."""
        self._tower, self._rows = tower, rows
        self._wanted = set(range(len(tower))) if wanted is None else set(wanted)
        self._templates: dict[int, Any] = {}
        self._streams: dict[int, Tensor] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        handles = [block.register_forward_hook(self._keep(n)) for n, block in enumerate(self._tower.blocks)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, block: int) -> Callable[..., None]:
        spot = Spot(self._tower.blocks[block], "output", self._tower.writes)

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            stream = spot.take(output)
            self._templates[block] = spot.put(output, stream.new_empty((0,) * stream.dim()))
            if block in self._wanted:
                # A copy: some models add to the stream in place behind a block.
                self._streams[block] = stream.clone()

        return keep

    def recorded(self) -> Recording:
        return Recording(self._tower, self._rows, dict(self._templates), dict(self._streams))
