"""The work of a sweep in the pieces that its table commits: some cells on the prompts of one batch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hooks.prompt import Prompt
from workbench.interventions.planner import CellEdits, kind_of
from workbench.units import kinds_of, length_sorted

ROWS, PASSES = 1024, 8  # of a commit, and whole forwards of work: what a kill loses at most

COMPANY = 256  # cells


@dataclass(frozen=True)
class Work:
    """`units` are batches of prompts; `parts` runs of cells, those of one kind and of neighbouring sites together."""

    units: list[list[int]]
    parts: list[list[list[int]]]
    order: list[int]

    def runs_of(self, cells: Collection[int]) -> list[list[int]]:
        """The runs of cells, those among them, whose distance to the unedited model is measured together: always in the
        same company, or a sweep that was stopped would end with other roundings."""
        runs = [self.order[at : at + COMPANY] for at in range(0, len(self.order), COMPANY)]
        return [run for run in runs if not set(run).isdisjoint(cells)]

    @staticmethod
    def of(
        model: Any,
        prompts: Sequence[Prompt],
        lengths: Sequence[int],
        edits: Sequence[CellEdits],
        max_tokens: int,
        *,
        written: bool,
    ) -> Work:
        """`written`: the cells also write answers, which is the longer work."""
        units = length_sorted(lengths, max_tokens, kinds_of(model, prompts, lengths))
        order = sorted(range(len(edits)), key=lambda c: (str(kind_of(c, edits[c])[:1]), _depth(edits[c]), c))
        parts = []
        for unit in units:
            tokens = len(unit) * max(lengths[i] for i in unit)
            most = max(1, min(ROWS // len(unit), (1 if written else PASSES) * max_tokens // tokens))
            parts.append([order[at : at + most] for at in range(0, len(order), most)])
        return Work(units, parts, order)

    @property
    def keys(self) -> list[str]:
        return [key for u, parts in enumerate(self.parts) for key in (_key(u, part) for part in range(len(parts)))]

    @property
    def clean_passes(self) -> dict[str, list[int]]:
        """Each batch by the name of its clean pass, which is no unit of the table."""
        return {f"batch{u}.clean": unit for u, unit in enumerate(self.units)}

    def left(self, missing: Collection[str]) -> Iterator[tuple[list[int], list[tuple[str, list[int]]]]]:
        """Each unit that has missing parts, with these."""
        for u, unit in enumerate(self.units):
            named = [(_key(u, n), cells) for n, cells in enumerate(self.parts[u])]
            if here := [(key, cells) for key, cells in named if key in missing]:
                yield unit, here


def batch_name(key: str) -> str:
    """The batch that a unit, or a clean pass, is of."""
    return key.partition(".")[0]


def _key(unit: int, part: int) -> str:
    return f"batch{unit}.cells{part}"


def _depth(edits: CellEdits) -> tuple[int, str]:
    return min(((site.layer, site.point) for site in edits), default=(-1, ""))


def memory_of(model: Any) -> int:
    """Bytes that a sweep may keep beside the weights: a quarter of what the device has free, 2 GiB on a CPU."""
    if model.device.type == "cuda":
        return torch.cuda.mem_get_info(model.device)[0] // 4
    return 2 * 2**30
