"""Cells become rows: many interventions on the same prompts in one batch, so that a grid costs few forwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from hooks.edits import LowRankEdit, bank
from hooks.encode import Batch
from hooks.model import Edit, Tally, TracedModel
from hooks.site import Site
from hooks.stacking import stacked


@runtime_checkable
class Intervention(Protocol):
    """What is done to a model: edits by site, and the facts that a table states about it."""

    def edits(self, model: TracedModel) -> dict[Site, list[LowRankEdit]]: ...

    def describe(self) -> dict[str, Any]: ...


def refuse_others(given: Any, *, listed: bool = False) -> None:
    """Raises TypeError for what is no intervention, and where a list of them is wanted, for one alone."""
    if listed and (hasattr(given, "edits") or isinstance(given, str)):
        raise TypeError(f"cells is {type(given).__name__}: expected a list of interventions, [wb.Ablate(v, layer=3)].")
    for one in given:
        if not hasattr(one, "edits") or not hasattr(one, "describe"):
            raise TypeError(
                f"an intervention is {type(one).__name__}: expected wb.Ablate(v, layer=3), wb.Steer(...), or an object "
                "with edits(model) and describe()."
            )


def combined(model: TracedModel, interventions: Sequence[Intervention]) -> dict[Site, list[LowRankEdit]]:
    """The edits of several interventions that act together, at each site in list order, fused where that is exact."""
    refuse_others(interventions)
    edits: dict[Site, list[LowRankEdit]] = {}
    for intervention in interventions:
        for site, listed in intervention.edits(model).items():
            edits.setdefault(site, []).extend(listed)
    return {site: stacked(listed) for site, listed in edits.items()}


@dataclass(frozen=True)
class Grid:
    """Cells that run together: `edits[cell]` maps site to that cell's edits; an empty map is the unedited model."""

    edits: Sequence[Mapping[Site, Sequence[LowRankEdit]]]

    def batch(self, batch: Batch) -> Batch:
        """The prompts once for each cell, cell by cell."""
        return batch if len(self.edits) == 1 else batch.rows(list(range(len(batch))) * len(self.edits))

    def banks(self, prompts: int, d_model: int) -> dict[Site, list[Edit]]:
        """One bank a site (and a place in its list), each cell acting on its own rows."""
        out: dict[Site, list[Edit]] = {}
        for site in sorted({site for cell in self.edits for site in cell}):
            depth = max(len(cell.get(site, ())) for cell in self.edits)
            for place in range(depth):
                here = [(i, cell[site][place]) for i, cell in enumerate(self.edits) if len(cell.get(site, ())) > place]
                cell_of = np.full(len(self.edits), -1)
                cell_of[[i for i, _ in here]] = np.arange(len(here))
                together = bank([edit for _, edit in here], d_model)
                out.setdefault(site, []).append(together.for_rows(np.repeat(cell_of, prompts).tolist()))
        return out

    def per_cell(self, tallies: Mapping[Site, Sequence[Tally]], prompts: int) -> list[CellTally]:
        """What the edits of each cell did, row by row."""
        zeros = np.zeros((len(self.edits), prompts))
        edited, removed, energy, leftover = zeros.copy(), zeros.copy(), zeros.copy(), zeros.copy()
        for tally in (tally for listed in tallies.values() for tally in listed):
            edited += tally.edited.numpy().reshape(zeros.shape)
            removed += tally.removed.numpy().reshape(zeros.shape)
            energy += tally.energy.numpy().reshape(zeros.shape)
            leftover = np.maximum(leftover, tally.leftover.numpy().reshape(zeros.shape))
        return [CellTally(edited[i].astype(int), removed[i], energy[i], leftover[i]) for i in range(len(self.edits))]


@dataclass(frozen=True)
class CellTally:
    """Per prompt of one cell: positions edited (over all sites), Σ‖h' − h‖², Σ‖h − μ‖², largest leftover."""

    edited: np.ndarray
    removed: np.ndarray
    energy: np.ndarray
    leftover: np.ndarray


def grouped(edits: Sequence[Mapping[Site, Sequence[LowRankEdit]]], most: int) -> Iterator[tuple[list[int], Grid]]:
    """Cells in runs of at most `most` that can share a batch, in order. Per-position edits run alone, gates with gates
    of the same power; a cell that measures removed energy shares with none that does not, or what it states would
    depend on its company."""
    waiting: list[int] = []
    measured: set[tuple[bool, bool, int | None]] = set()
    for i, cell in enumerate(edits):
        alone = any(edit.shift.dim() == 3 for listed in cell.values() for edit in listed)
        mine = {
            (edit.centre is None, edit.remaining is None, None if edit.threshold is None else edit.power)
            for listed in cell.values()
            for edit in listed
        }
        if waiting and (alone or len(waiting) == most or (mine and measured and mine != measured)):
            yield waiting, Grid([edits[j] for j in waiting])
            waiting, measured = [], set()
        if alone:
            yield [i], Grid([cell])
        else:
            waiting.append(i)
            measured = measured or mine
    if waiting:
        yield waiting, Grid([edits[j] for j in waiting])


def fingerprint(edits: Mapping[Site, Sequence[LowRankEdit]]) -> str:
    """A hash of what a cell does and measures, to five digits: a direction that is fitted again differs in its last
    bits (linear algebra libraries depend on where an array lies in memory), and a sweep must know it as the same when
    it resumes."""
    digest = hashlib.sha256()
    for site in sorted(edits):
        for edit in edits[site]:
            digest.update(f"{site} {edit.scopes} {edit.power}".encode())
            terms = (edit.read, edit.write, edit.gain, edit.shift, edit.carry)
            for tensor in (*terms, edit.threshold, edit.centre, edit.remaining):
                values = np.zeros(0) if tensor is None else np.nan_to_num(torch.as_tensor(tensor).double().numpy())
                scale = float(np.abs(values).max(initial=0.0)) or 1.0
                digest.update(
                    f"{values.shape} {scale:.4e}".encode() + np.round(values / scale * 1e5).astype(int).tobytes()
                )
    return digest.hexdigest()[:16]
