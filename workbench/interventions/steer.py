"""Steer along a direction, or clamp the coordinate along it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from hooks.edits import LowRankEdit
from hooks.model import TracedModel
from hooks.positions import Scope, checked_scope, scope_name
from hooks.site import Site
from stores.printed import Printed
from workbench.interventions.placement import Layers, as_rows, layer_facts, placed
from workbench.subspace.directions import Directions


@dataclass(frozen=True, eq=False)
class Steer(Printed):
    """Adds a direction: `h <- h + c·‖v‖·v̂`.

    `coefficient` c multiplies the vector as measured (`unit="raw"`: +1 moves by the class difference), or counts
    multiples of the median residual norm at that site (`unit="residual"`, the one to compare models by). Read-out
    vectors are refused: they are made to be dotted with, not added.
    """

    direction: Directions
    layer: Layers
    coefficient: float | int = 1.0
    at: Scope = "all"
    unit: Literal["raw", "residual"] = "raw"
    source: int | None = None

    def __post_init__(self) -> None:
        checked_scope(self.at)
        _refuse_read_out(self.direction, "Steer")
        if self.unit not in ("raw", "residual"):
            raise ValueError(f"Steer(unit={self.unit!r}) is unknown: expected 'raw' or 'residual'.")
        if self.unit == "residual" and self.direction.residual_norm is None:
            raise ValueError(
                "Steer(unit='residual') needs the median residual norm, which this direction does not carry: use "
                "unit='raw'."
            )

    def edits(self, model: TracedModel) -> dict[Site, list[LowRankEdit]]:
        out: dict[Site, list[LowRankEdit]] = {}
        for site, basis, _ in placed(self.direction, self.layer, self.source, model, "Steer"):
            rows = as_rows(basis)
            length = self.coefficient * self._unit_length(site)
            out[site] = [
                LowRankEdit(rows, rows, torch.zeros(1, 1), torch.full((1, 1), length), torch.ones(1), scopes=(self.at,))
            ]
        return out

    def _unit_length(self, site: Site) -> float:
        index = self.direction.sites.index(site if self.source is None else Site(self.source))
        lengths = self.direction.norm if self.unit == "raw" else self.direction.residual_norm
        assert lengths is not None
        return float(lengths[index])

    def describe(self) -> dict[str, Any]:
        facts = {
            "intervention": "steer",
            **layer_facts(self.layer),
            "coefficient": self.coefficient,
            "unit": self.unit,
        }
        return {**facts, "at": scope_name(self.at), "source": self.source}


@dataclass(frozen=True, eq=False)
class Clamp(Printed):
    """Sets the coordinate along a direction: `h <- h + (value − h·v̂) v̂`, in the residual's own units."""

    direction: Directions
    layer: Layers
    value: float | int
    at: Scope = "all"
    source: int | None = None

    def __post_init__(self) -> None:
        _refuse_read_out(self.direction, "Clamp")  # what sets the coordinate is added along the direction

    def edits(self, model: TracedModel) -> dict[Site, list[LowRankEdit]]:
        out: dict[Site, list[LowRankEdit]] = {}
        for site, basis, _ in placed(self.direction, self.layer, self.source, model, "Clamp"):
            rows, value = as_rows(basis), torch.full((1, 1), float(self.value))
            out[site] = [
                LowRankEdit(
                    rows,
                    rows,
                    -torch.ones(1, 1),
                    value,
                    torch.ones(1),
                    (self.at,),
                    centre=as_rows(np.zeros(model.d_model)),
                    remaining=value,
                )
            ]
        return out

    def describe(self) -> dict[str, Any]:
        facts = {
            "intervention": "clamp",
            **layer_facts(self.layer),
            "coefficient": self.value,
            "unit": "residual coordinate",
        }
        return {**facts, "at": scope_name(self.at), "source": self.source}


def _refuse_read_out(direction: Directions, name: str) -> None:
    if direction.role != "write":
        raise ValueError(
            f"{name} was given a read-out vector: expected a write vector (a difference of means, for one)."
        )
