"""Passes: one batch read under many cells, by the forwards that the planner chose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.encode import Batch
from hooks.model import Generation, Keep, Trace
from hooks.prefix_cache import Prefix, next_token, prefix
from hooks.recording import Recorder, Recording
from hooks.shortcuts import Shortcuts, shortcuts, start_of
from hooks.site import Site
from hooks.staircase import Staircase
from workbench.interventions.cells import CellTally, Grid
from workbench.interventions.planner import Bounds, CellEdits, Pass, first_column, kind_of, passes

Around = Callable[[Batch, Callable[[Any], Trace]], Trace]


@dataclass(frozen=True)
class Reading:
    """What one pass read: logits that choose the next token of each row, and what the edits did, cell by cell."""

    cells: tuple[int, ...]
    logits: Float[Tensor, "cell row vocab"]
    tallies: list[CellTally]


@dataclass(frozen=True)
class Answers:
    """What one pass wrote: texts, cell by cell and prompt by prompt."""

    cells: tuple[int, ...]
    generation: Generation
    tallies: list[CellTally]


class Passes:
    """The forwards of one batch: its clean pass is run once, and every cell from where it begins to differ.

    `read(cells)` gives next-token logits, `answer(cells)` texts; `cells` maps a cell's number to its edits.
    """

    def __init__(self, model: Any, batch: Batch, bounds: Bounds, beside: Around | None = None) -> None:
        """`beside` looks on while the unedited forward runs (see `workbench.captures.beside`)."""
        self._model, self._batch, self._bounds, self._beside = model, batch.padded("right"), bounds, beside
        self._prefixes: dict[int, Prefix] = {}

    @cached_property
    def _left(self) -> Batch:
        return self._model.encoder.collate([one.prompt_only() for one in self._batch.encoded], "left")

    @cached_property
    def allowed(self) -> Shortcuts:
        found = shortcuts(self._model, self._batch)
        needs = self._bytes_per_row * len(self._batch)
        if found.replay is None and needs > self._bounds.bytes:
            why = f"the recorded streams would take {needs / 2**30:.1f} GiB, of {self._bounds.bytes / 2**30:.1f} GiB"
            found = Shortcuts(why, why, why, found.prefix)
        return found

    @property
    def _bytes_per_row(self) -> int:
        """A row's streams behind all blocks; its keys and values take no more in any model known to us."""
        size = torch.empty((), dtype=self._model.dtype).element_size()
        return self._model.n_layers * self._batch.inputs["input_ids"].shape[1] * self._model.d_model * size

    @cached_property
    def clean(self) -> tuple[Trace, Recording]:
        """The unedited forward, and its blocks where the model allows to start behind them."""
        recorder = Recorder(self._model.towers["language"], len(self._batch))
        recording = recorder.recording() if self.allowed.replay is None else None

        def run(keep: Mapping[Site, Keep]) -> Trace:
            return self._model.run(self._batch, keep, through=recording)

        trace = run({}) if self._beside is None else self._beside(self._batch, run)
        return trace, recorder.recorded()

    @property
    def columns(self) -> int:
        """Columns of the batch, padded left."""
        return self._left.inputs["input_ids"].shape[1]

    def plan(self, cells: Mapping[int, CellEdits]) -> list[Pass]:
        """The forwards that read these cells."""
        return passes(
            self._model,
            cells,
            rows=len(self._batch),
            columns=self.columns,
            text_only=not self._batch.image_rows,
            first_columns={c: first_column(self._left, edits) for c, edits in cells.items()},
            allowed=self.allowed,
            bounds=self._bounds,
            bytes_per_row=self._bytes_per_row,
        )

    def starts(self, cells: Mapping[int, CellEdits]) -> dict[int, int]:
        """The first block that each cell changes."""
        text_only = not self._batch.image_rows
        return {
            c: min((start_of(self._model, site, text_only=text_only) for site in edits), default=self._model.n_layers)
            for c, edits in cells.items()
        }

    def read(self, cells: Mapping[int, CellEdits]) -> Iterator[Reading]:
        """Next-token logits of every cell, pass by pass."""
        n, plan = len(self._batch), self.plan(cells)
        stairs = [one.start for one in plan if one.way == "staircase"]
        # Stairs carry the unedited rows with them: recording these first pays where it spares more than it costs.
        recorded = "clean" in vars(self) or len(stairs) < len(plan) or sum(stairs) > self._model.n_layers
        for one in plan:
            grid = Grid([cells[c] for c in one.cells])
            if one.way == "clean":
                trace = self.clean[0]
            elif one.way == "prefix":
                trace = self._behind(one, grid)
            elif one.way == "staircase":
                trace, grid = self._climbed(one, grid, cells, recorded)
            else:
                trace = self._run(one, grid)
            assert trace.logits is not None
            logits, tallies = trace.logits.unflatten(0, (-1, n)), grid.per_cell(trace.tallies, n)
            yield Reading(one.cells, logits[-len(one.cells) :], tallies[-len(one.cells) :])

    def _run(self, one: Pass, grid: Grid) -> Trace:
        banks = grid.banks(len(self._batch), self._model.d_model)
        through = self.clean[1].starting(one.start, len(one.cells)) if one.way == "suffix" and one.start else None
        return self._model.run(grid.batch(self._batch), edits=banks, must_edit=False, through=through)

    def _climbed(self, one: Pass, grid: Grid, cells: Mapping[int, CellEdits], recorded: bool) -> tuple[Trace, Grid]:
        """The batch itself climbs in front of its copies."""
        grid, starts = Grid([{}, *grid.edits]), self.starts(cells)
        recording = self.clean[1] if one.start and recorded else None
        tower = self._model.towers["language"]
        stairs = Staircase(tower, len(self._batch), [starts[c] for c in one.cells], recording)
        banks = grid.banks(len(self._batch), self._model.d_model)
        batch = grid.batch(self._batch)
        return self._model.run(batch, edits=banks, must_edit=False, through=stairs.climbing()), grid

    def _behind(self, one: Pass, grid: Grid) -> Trace:
        n = len(self._batch)
        shared = self._shared(one.start).rows(list(range(n)) * len(one.cells))
        return next_token(self._model, grid.batch(self._left), grid.banks(n, self._model.d_model), shared)

    def _shared(self, length: int) -> Any:
        if length not in self._prefixes:
            self._prefixes = {length: self._prefix(self._model, self._left, length)}
        return self._prefixes[length]

    def _prefix(self, model: Any, batch: Batch, length: int) -> Any:
        return prefix(model, batch, length)

    def across(
        self, variants: Sequence[str], max_new_tokens: int, prompts: Sequence[int], **sampling: Any
    ) -> Generation:
        """Texts of several variants without edits, as rows of one batch: variant by variant, and for each the answers
        to the rows `prompts` of the batch. A prompt of many answers is read once a variant."""
        n = len(self._batch)
        rows = self._left.rows(list(range(n)) * len(variants))
        asked = [place * n + row for place in range(len(variants)) for row in prompts]
        shared = None
        if len(prompts) > n and self.columns > 1 and self.allowed.prefix is None:
            shared = self._prefix(self._by_row(variants, n), rows, self.columns - 1).rows(asked)
        return self._by_row(variants, len(prompts)).generate(
            rows.rows(asked), must_edit=False, max_new_tokens=max_new_tokens, after=shared, **sampling
        )

    def _by_row(self, variants: Sequence[str], each: int) -> Any:
        return self._model.variant([variant for variant in variants for _ in range(each)])

    def answer(
        self,
        cells: Mapping[int, CellEdits],
        max_new_tokens: int,
        prompts: Sequence[int] | None = None,
        **sampling: Any,
    ) -> Iterator[Answers]:
        """Texts of every cell, cells as rows; behind one cache where no cell touches what it holds. `prompts` says
        which row of the batch each answer is to (a row may be answered many times); by default each once."""
        asked = list(range(len(self._batch)) if prompts is None else prompts)
        left = self._left if prompts is None else self._left.rows(asked)
        n, columns = len(asked), self.columns
        kinds: dict[Any, list[int]] = {}
        for c, edits in cells.items():
            kinds.setdefault(kind_of(c, edits) if edits else ("together",), []).append(c)
        for alike in _with_unedited(kinds):
            length = min(columns - 1, *(first_column(self._left, cells[c]) for c in alike))
            after = length if self.allowed.prefix is None and 2 * length >= columns and not self._bounds.exact else 0
            most = max(1, self._bounds.tokens // (n * (columns - after + max_new_tokens if after else columns)))
            if after:
                most = min(most, max(1, self._bounds.bytes // (2 * n * self._bytes_per_row)))
            for part in (alike[at : at + most] for at in range(0, len(alike), most)):
                grid = Grid([cells[c] for c in part])
                shared = self._shared(after).rows(asked * len(part)) if after else None
                out = self._model.generate(
                    grid.batch(left),
                    edits=grid.banks(n, self._model.d_model),
                    must_edit=False,
                    max_new_tokens=max_new_tokens,
                    after=shared,
                    **sampling,
                )
                yield Answers(tuple(part), out, grid.per_cell(out.tallies, n))


def _with_unedited(kinds: Mapping[Any, list[int]]) -> list[list[int]]:
    """The cells of each kind; those that edit nothing go with any."""
    plain = kinds.get(("together",), [])
    others = [cells for kind, cells in kinds.items() if kind != ("together",)]
    together = next((cells for kind, cells in kinds.items() if kind[0] == "together" and kind != ("together",)), None)
    if together is None:
        return [*([plain] if plain else []), *others]
    return [sorted([*plain, *cells]) if cells is together else cells for cells in others]
