"""Cells of a sweep, and the twins that they are compared with: the same intervention along another direction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hooks.edits import LowRankEdit
from hooks.site import Site
from workbench.interventions.cells import Intervention
from workbench.subspace import controls as control_directions
from workbench.subspace.directions import Directions
from workbench.subspace.rows import RowSource

SAME_LENGTH = 1e-3  # relative


@dataclass(frozen=True)
class Cell:
    """One point of the grid. `control`: None for the intervention itself, else its twin's kind, `draw` its number."""

    intervention: Intervention | None
    control: str | None = None
    draw: int | None = None

    def describe(self) -> dict[str, Any]:
        facts = (
            {"intervention": "none", "layer": None, "layers": None}
            if self.intervention is None
            else self.intervention.describe()
        )
        return {**facts, "control": self.control, "draw": self.draw}


def random_twins(
    cells: Sequence[Intervention], n: int, kinds: Sequence[str], activations: RowSource | None, seed: int
) -> Iterator[Cell]:
    """`n` random twins of each kind for each cell, of its own length: the same draws at every layer and coefficient."""
    for kind in kinds if n else ():
        if kind not in control_directions.KINDS:
            raise ValueError(f"control kind {kind!r} is unknown: expected among {', '.join(control_directions.KINDS)}.")
        if kind == "energy_matched" and activations is None:
            raise ValueError(
                "energy-matched controls are combinations of captured activations: give them, "
                "activations=store.where(...)."
            )
        drawn: dict[int, list[Any]] = {}
        for intervention in cells:
            v = getattr(intervention, "direction", None)
            if not isinstance(v, Directions):
                raise ValueError(
                    f"{type(intervention).__name__} has no Directions to draw controls for: use controls=0."
                )
            if kind == "energy_matched":
                _refuse_other_scope(intervention, activations)
            if id(v) not in drawn:
                make = getattr(control_directions, kind)
                drawn[id(v)] = make(v, activations, n, seed) if kind == "energy_matched" else make(v, n, seed)
            for draw, twin in enumerate(drawn[id(v)]):
                yield Cell(replace(intervention, direction=twin), kind, draw)  # type: ignore[type-var]


def _refuse_other_scope(intervention: Intervention, activations: RowSource | None) -> None:
    scope, at = (activations.info.get("scope") if activations is not None else None), intervention.describe().get("at")
    if scope and at and scope != at:
        raise ValueError(
            f"energy-matched controls need activations of the positions that are edited, {at!r}; these were captured "
            f"at {scope!r}, where other directions hold the energy: capture(..., at={at!r})."
        )


def refuse_other_lengths(cells: Sequence[Cell], edits: Sequence[Mapping[Site, Sequence[LowRankEdit]]]) -> None:
    """Raises ValueError for a twin that adds more, or less, at a site than every intervention there does. A Gaussian
    vector times the norm of the direction, for one, is √d_model times too long, and steers by its length alone."""
    allowed: dict[Site, list[float]] = {}
    for cell, edit in zip(cells, edits, strict=True):
        if cell.control is None:
            for site, length in _added(edit).items():
                allowed.setdefault(site, []).append(length)
    for cell, edit in zip(cells, edits, strict=True):
        for site, length in _added(edit).items() if cell.control is not None else ():
            here = allowed.get(site, [])
            if here and all(abs(length - one) > SAME_LENGTH * one for one in here):
                fair = " or ".join(f"{one:.4g}" for one in sorted(set(here)))
                raise ValueError(
                    f"control {cell.control!r}, draw {cell.draw}, adds a vector of length {length:.4g} at {site}, and "
                    f"what it is a control of one of {fair}: expected equal lengths (wb.sweep(controls=20) draws them "
                    "so; a direction of your own can be scaled)."
                )


def _added(edits: Mapping[Site, Sequence[LowRankEdit]]) -> dict[Site, float]:
    """The length that is added at each site, of edits that add whatever the residual is."""
    out = {}
    for site, listed in edits.items():
        adds = all(not bool((one.gain != 0).any()) and one.cells == 1 and one.shift.dim() == 2 for one in listed)
        if adds and all(bool((one.carry == 1).all()) for one in listed):
            out[site] = float(
                torch.stack([(one.shift[0].double() @ one.write[0].double()) for one in listed]).sum(0).norm()
            )
    return out
