"""Ablate a direction or a subspace, or keep nothing else."""

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
from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions


@dataclass(frozen=True, eq=False)
class Ablate(Printed):
    """Removes a direction (or every direction of a subspace): `h <- h − ((h − μ)·v̂) v̂`.

    `to="mean"` goes back to the mean of the negative class, and raises ValueError where the direction has none (an
    imported vector: `to="zero"`, or `wb.with_mean`). `layer="all"` acts on the embedding and every block's output; each
    layer uses its own vector, unless `source` names one layer whose vector serves everywhere. Sites where nothing moved
    are left alone.
    """

    direction: Directions | Subspace
    layer: Layers = "all"
    to: Literal["mean", "zero"] = "mean"
    at: Scope = "all"
    source: int | None = None

    def __post_init__(self) -> None:
        checked_scope(self.at)
        if self.to not in ("mean", "zero"):
            raise ValueError(f"Ablate(to={self.to!r}) is unknown: expected 'mean' or 'zero'.")
        if self.to == "mean" and self.direction.origin is None:
            raise ValueError(
                "Ablate(to='mean') needs the mean of the negative class, which this direction does not carry: use "
                "to='zero', or wb.with_mean(v, store)."
            )

    def edits(self, model: TracedModel) -> dict[Site, list[LowRankEdit]]:
        out: dict[Site, list[LowRankEdit]] = {}
        for site, basis, origin in placed(self.direction, self.layer, self.source, model, "Ablate"):
            keep = basis @ origin if self.to == "mean" and origin is not None else np.zeros(len(basis))
            rows, k = as_rows(basis), len(basis)
            out[site] = [
                LowRankEdit(
                    read=rows,
                    write=rows,
                    gain=-torch.ones(1, k),
                    shift=as_rows(keep),
                    carry=torch.ones(1),
                    scopes=(self.at,),
                    centre=torch.zeros(1, model.d_model) if origin is None else as_rows(origin),
                    remaining=as_rows(keep),
                )
            ]
        return out

    def describe(self) -> dict[str, Any]:
        return {
            "intervention": "ablate",
            **layer_facts(self.layer),
            "to": self.to,
            "at": scope_name(self.at),
            "source": self.source,
        }


@dataclass(frozen=True, eq=False)
class KeepOnly(Printed):
    """Keeps only a subspace of the residual, and the mean elsewhere: `h <- P h + (1 − P) μ`, with μ the subspace's
    origin, or its mean where it has no other."""

    subspace: Subspace
    layer: Layers = "all"
    at: Scope = "all"
    source: int | None = None

    def edits(self, model: TracedModel) -> dict[Site, list[LowRankEdit]]:
        out: dict[Site, list[LowRankEdit]] = {}
        for site, basis, origin in placed(self.subspace, self.layer, self.source, model, "KeepOnly"):
            chosen = site if self.source is None else Site(self.source)
            mean = self.subspace.mean[self.subspace.sites.index(chosen)] if origin is None else origin
            rest = mean - basis.T @ (basis @ mean)
            k = len(basis)
            gain = torch.cat([torch.ones(1, k), torch.zeros(1, 1)], dim=1)
            out[site] = [
                LowRankEdit(
                    read=as_rows(np.vstack([basis, np.zeros_like(rest)])),
                    write=as_rows(np.vstack([basis, rest])),
                    gain=gain,
                    shift=1 - gain,
                    carry=torch.zeros(1),
                    scopes=(self.at,),
                    centre=as_rows(mean),
                )
            ]
        return out

    def describe(self) -> dict[str, Any]:
        return {
            "intervention": "keep_only",
            **layer_facts(self.layer),
            "at": scope_name(self.at),
            "source": self.source,
        }
