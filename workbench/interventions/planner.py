"""The plan of a sweep: which cells share a forward, and how little of it they need to run.

| way | what is run | when |
|---|---|---|
| clean | nothing more: it is the unedited model | the cell edits no position of this batch |
| prefix | the columns behind the first edited one, cells as rows over one cache | edits at the end of the prompts |
| suffix | the blocks behind the first edited one, several cells a pass (`exact`: one, and the same bits) | else |
| staircase | as suffix, cells of several layers in one pass | one layer's cells leave a pass nearly empty |
| naive | whole forwards, cells as rows | the model does not allow the others |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from hooks.edits import LowRankEdit
from hooks.encode import Batch
from hooks.shortcuts import Shortcuts, start_of
from hooks.site import Site

CellEdits = Mapping[Site, Sequence[LowRankEdit]]
# Tokens in flight below which a pass costs its weights and its launches, not its sums: measured on one CPU core,
# derived for an H100 (295 operations a byte).
NEARLY_EMPTY = {"cpu": 256, "cuda": 2048}


@dataclass(frozen=True)
class Pass:
    """One forward: the cells in the order of their rows, the first block (or column) that is computed, and why so."""

    way: str
    cells: tuple[int, ...]
    start: int
    why: str

    def cost(self, n_layers: int, starts: Mapping[int, int], columns: int) -> float:
        """In forwards of one cell."""
        if self.way == "prefix":
            return len(self.cells) * (columns - self.start) / columns
        if self.way == "staircase":
            computed = [n_layers - starts[cell] for cell in self.cells] + [n_layers - self.start]
            return sum(computed) / n_layers
        return len(self.cells) * (n_layers - self.start) / n_layers


@dataclass(frozen=True)
class Bounds:
    """What a pass may hold: `tokens` of all its rows, `bytes` of keys and values; `exact` is one cell a pass."""

    tokens: int
    bytes: int
    exact: bool = False
    nearly_empty: int = NEARLY_EMPTY["cpu"]


def first_column(batch: Batch, edits: CellEdits) -> int:
    """The first column, of rows padded left, that the edits touch in any row; the width of the batch for none."""
    tokens = batch.tokens
    columns = tokens.position.shape[1]
    touched = torch.zeros(columns, dtype=torch.bool)
    for scope in {scope for listed in edits.values() for edit in listed for scope in edit.scopes}:
        touched |= tokens.mask(scope).any(dim=0).cpu()
    return int(touched.nonzero()[0]) if bool(touched.any()) else columns


def kind_of(cell: int, edits: CellEdits) -> tuple[Any, ...]:
    """Cells of one kind may share a pass: what a cell states must not depend on its company, gates have one power, and
    what differs from position to position runs alone."""
    listed = [edit for at_site in edits.values() for edit in at_site]
    if any(edit.shift.dim() == 3 for edit in listed):
        return ("alone", cell)
    parts = {(edit.centre is None, edit.remaining is None, _power(edit)) for edit in listed}
    return ("together", *sorted(parts, key=str))


def _power(edit: LowRankEdit) -> int | None:
    return None if edit.threshold is None else edit.power


def passes(
    model: Any,
    edits: Mapping[int, CellEdits],
    *,
    rows: int,
    columns: int,
    text_only: bool,
    first_columns: Mapping[int, int],
    allowed: Shortcuts,
    bounds: Bounds,
    bytes_per_row: int,
) -> list[Pass]:
    """The forwards that read these cells (`edits` by cell) on a batch of `rows` by `columns`.

    `first_columns` are those that each cell touches first; `bytes_per_row` what a row's keys and values take.
    """
    acting = {c: cell for c, cell in edits.items() if first_columns[c] < columns}
    starts = {c: min(start_of(model, site, text_only=text_only) for site in cell) for c, cell in acting.items()}
    made = [Pass("clean", (c,), model.n_layers, "nothing is edited here") for c in edits if c not in acting]
    rest: list[int] = []
    late = [c for c in starts if allowed.prefix is None and not bounds.exact and 2 * first_columns[c] >= columns]
    for kind, alike in _grouped(late, lambda c: kind_of(c, edits[c])):
        length = min(*(first_columns[c] for c in alike), columns - 1)
        most = min(bounds.tokens // (rows * (columns - length)), bounds.bytes // max(1, 2 * rows * bytes_per_row))
        if most < 1 or not length:
            rest += alike
            continue
        why = f"edits begin at column {length} of {columns}"
        made += [Pass("prefix", part, length, why) for part in _parts(alike, 1 if kind[0] == "alone" else most)]
    rest += [c for c in starts if c not in late]
    for _, alike in _grouped(rest, lambda c: kind_of(c, edits[c])):
        made += _by_blocks(sorted(alike, key=lambda c: starts[c]), starts, rows * columns, allowed, bounds)
    return made


def _by_blocks(
    cells: Sequence[int], starts: Mapping[int, int], tokens: int, allowed: Shortcuts, bounds: Bounds
) -> list[Pass]:
    full = 1 if bounds.exact else max(1, bounds.tokens // tokens)
    if allowed.replay is not None:
        return [Pass("naive", part, 0, allowed.replay) for part in _parts(cells, full)]
    if allowed.copies is not None:
        full = 1
    made: list[Pass] = []
    waiting: list[int] = []  # cells of layers that would leave a pass nearly empty
    stairs = allowed.staircase is None and not bounds.exact and full > 1
    for start, group in groupby(cells, key=lambda c: starts[c]):
        alike = tuple(group)
        if stairs and len(alike) * tokens < bounds.nearly_empty:
            waiting += alike
        else:
            why = f"the blocks in front of {start} are as in the clean pass"
            made += [Pass("suffix", part, start, why) for part in _parts(alike, full)]
    for part in _parts(waiting, max(1, full - 1)):
        why = f"{tokens} tokens a cell would leave a pass nearly empty"
        way = "staircase" if len({starts[c] for c in part}) > 1 else "suffix"
        made.append(Pass(way, part, starts[part[0]], why))
    return made


def _parts(cells: Sequence[int], most: int) -> list[tuple[int, ...]]:
    return [tuple(cells[n : n + most]) for n in range(0, len(cells), most)]


def _grouped(cells: Sequence[int], key: Any) -> list[tuple[Any, list[int]]]:
    found: dict[Any, list[int]] = {}
    for cell in cells:
        found.setdefault(key(cell), []).append(cell)
    return list(found.items())


def explained(made: Sequence[Pass], starts: Mapping[int, int], n_layers: int, columns: int) -> list[str]:
    """What the plan of one batch does, in lines for people."""
    lines, cells = [], sum(len(one.cells) for one in made)
    for (way, why), alike in _by_reason(made).items():
        held = sum(len(one.cells) for one in alike)
        lines.append(f"{way}: {held} cells in {len(alike)} passes, since {why}")
    spent = 1 + sum(one.cost(n_layers, starts, columns) for one in made if one.way != "clean")
    ways = Counter(one.way for one in made)
    lines.append(
        f"in all {sum(ways.values())} passes; {spent:.1f} forwards' work, the clean pass with it, for {cells} cells"
    )
    return lines


def _by_reason(made: Sequence[Pass]) -> dict[tuple[str, str], list[Pass]]:
    found: dict[tuple[str, str], list[Pass]] = {}
    for one in made:
        why = "the blocks in front of the first edit are as in the clean pass" if one.way == "suffix" else one.why
        found.setdefault((one.way, why), []).append(one)
    return found
