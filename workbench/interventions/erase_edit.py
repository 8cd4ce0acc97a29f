"""Erase what linear read-outs could tell classes apart by: LEACE as an edit of the stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from hooks.edits import LowRankEdit
from hooks.model import TracedModel
from hooks.positions import Scope, checked_scope, scope_name
from hooks.site import Site
from stores.printed import Printed
from workbench.interventions.placement import Layers, as_rows, layer_facts, refuse_other_model, sites_of
from workbench.subspace.erase import Eraser


@dataclass(frozen=True, eq=False)
class Erase(Printed):
    """Applies an eraser of `wb.leace`: `h <- h − Σ_j ((h − μ)·read_j) write_j`, an oblique projection.

    `layer="all"` acts on every site that the eraser has, the embedding too where it has one; each with its own. Fit it
    on rows of the positions that are edited: guarding holds for the distribution it was fitted on. Erasing at one layer
    changes what later ones see, so erasers of several layers fitted on unedited rows no longer fit exactly. Sites where
    there is nothing to erase are left alone.
    """

    eraser: Eraser
    layer: Layers = "all"
    at: Scope = "all"

    def __post_init__(self) -> None:
        checked_scope(self.at)

    def edits(self, model: TracedModel) -> dict[Site, list[LowRankEdit]]:
        """Raises ValueError for another model's eraser, a layer without one, or when nothing is to erase anywhere."""
        refuse_other_model(self.eraser.read_out(), model, "Erase")
        out: dict[Site, list[LowRankEdit]] = {}
        for site in self._sites(model):
            read, write, mean = self.eraser.at(site)
            if not len(read):
                continue
            keep, k = as_rows(read @ mean), len(read)
            out[site] = [
                LowRankEdit(
                    read=as_rows(read),
                    write=as_rows(write),
                    gain=-torch.ones(1, k),
                    shift=keep,
                    carry=torch.ones(1),
                    scopes=(self.at,),
                    centre=as_rows(mean),
                    remaining=keep,
                )
            ]
        if not out:
            raise ValueError(
                f"Erase(layer={self.layer}) has nothing to act with: the classes' means are equal at every "
                "site named. Name another layer."
            )
        return out

    def _sites(self, model: TracedModel) -> list[Site]:
        here = self.eraser.sites
        injected = model.injected_layers() if self.layer == "all" else ()
        wanted = sites_of(self.layer, model.n_layers, "Erase", injected)
        missing = [site for site in wanted if site not in here and site.point != "resid_pre"]
        if missing:
            raise ValueError(
                f"there is no eraser at {missing[0]}: this one holds {', '.join(map(str, here))}. Fit it on rows "
                "captured there, or name the layers."
            )
        return [site for site in wanted if site in here]

    def describe(self) -> dict[str, Any]:
        return {
            "intervention": "erase",
            **layer_facts(self.layer),
            "to": "mean",
            "at": scope_name(self.at),
            "source": None,
        }
