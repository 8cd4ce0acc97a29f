"""Directions, subspaces and maps between models as entries of `summary.json`, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hooks.site import Site
from workbench.behaviour.table_summary import plain_entry
from workbench.interventions.maps import TransferMap
from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions


def direction_entries(v: Directions, *, condition: str, **facts: Any) -> list[dict[str, Any]]:
    """Norm and split-half reliability of a direction, layer by layer."""
    out = []
    for i, site in enumerate(v.sites):
        same = _at(site, condition, facts)
        out.append(plain_entry("norm", float(v.norm[i]), v.n_positive, same))
        if v.reliability is not None:
            out.append(plain_entry("reliability", float(v.reliability[i]), v.n_positive, same))
    return out


def spectrum_entries(subspace: Subspace, *, condition: str, **facts: Any) -> list[dict[str, Any]]:
    """Share of variance of every kept component (numbered from 1 by `coefficient`), its null band under condition
    `CONDITION_null`, and the effective rank, layer by layer."""
    out = []
    for i, site in enumerate(subspace.sites):
        same = _at(site, condition, facts)
        for j in range(subspace.k):
            out.append(
                plain_entry(
                    "explained_variance", float(subspace.explained[i, j]), subspace.n, {**same, "coefficient": j + 1}
                )
            )
            if subspace.null is not None:
                low, high = (float(end) for end in subspace.null[i, j])
                null = {**same, "condition": f"{condition}_null", "coefficient": j + 1, "interval": [low, high]}
                method = f"5 % to 95 % of {subspace.draws} draws, {subspace.null_kind}"
                out.append(
                    {**plain_entry("explained_variance", (low + high) / 2, subspace.n, null), "interval_method": method}
                )
        out.append(plain_entry("effective_rank", float(subspace.effective_rank[i]), subspace.n, same))
    return out


def map_entries(
    found: TransferMap, *, condition: str, along: Directions | None = None, **facts: Any
) -> list[dict[str, Any]]:
    """Held-out R² of a map between models, layer by layer of the target, and R² along the image of a direction."""
    measured = {"r2": found.r2, "r2_along": {} if along is None else found.r2_along(along)}
    return [
        plain_entry(metric, float(value), found.n_held_out, _at(site, condition, facts))
        for metric, values in measured.items()
        for site, value in values.items()
    ]


def _at(site: Site, condition: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What every entry of one site states: it was measured on the prompts that directions are fitted on."""
    place = {"split": "fit", "modality": "all", "layer": site.layer, "detail": str(site)}
    return {"condition": condition, **place, **facts}
