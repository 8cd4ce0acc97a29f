"""Which source layer feeds which target layer: by relative depth, by CKA, by R² over folds of the training prompts, or
as told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from hooks.site import Site
from workbench.subspace.rows import RowSource, chosen_sites, site_among

Layers = Literal["depth", "cka", "r2"] | Mapping[Any, Any]
Scores = Mapping[Site, Mapping[Site, float]]  # target site -> source site -> how well they fit
RULES = ("depth", "cka", "r2")


def told_layers(source: RowSource, target: RowSource, layers: Mapping[Any, Any]) -> dict[Site, Site]:
    """{target layer: source layer} as sites. Raises ValueError for an empty one, or sites that are not there."""
    if not layers:
        raise ValueError("layers={} maps nothing: expected {target layer: source layer}, such as {5: 4}.")
    here, there = chosen_sites(source, None), chosen_sites(target, None)
    return {site_among(there, t): site_among(here, s) for t, s in layers.items()}


def by_depth(source: RowSource, target: RowSource) -> dict[Site, list[Site]]:
    """Every target site with the source sites of its stream, the nearest in relative depth first."""
    here, there = chosen_sites(source, None), chosen_sites(target, None)
    found: dict[Site, list[Site]] = {}
    for site in there:
        candidates = [one for one in here if one.stream == site.stream]
        if candidates:
            depth = site.layer / max(_n_layers(target, site, there) - 1, 1)
            last = max(_n_layers(source, site, here) - 1, 1)
            found[site] = sorted(candidates, key=lambda one: (abs(one.layer / last - depth), one.layer))
    if not found:
        raise ValueError(
            f"no stream in common: {', '.join(source.sites)} against {', '.join(target.sites)}. Use layers={{...}}."
        )
    return found


def scored_layers(
    candidates: Mapping[Site, Sequence[Site]], score: Callable[[Site, Site], float]
) -> tuple[dict[Site, Site], Scores]:
    """The best scoring source site of each target site, the nearest in depth among equals; `score(target, source)` is
    NaN where it is undefined, and with nothing defined depth decides."""
    scores = {site: {one: score(site, one) for one in sources} for site, sources in candidates.items()}
    best = {
        site: max(row, key=lambda one: -np.inf if np.isnan(row[one]) else row[one])  # the first of equals
        for site, row in scores.items()
    }
    return best, scores


def _n_layers(rows: RowSource, site: Site, captured: Sequence[Site]) -> int:
    stated = rows.info.get("n_layers") if site.tower == "language" else None
    return int(stated) if stated else 1 + max(one.layer for one in captured if one.stream == site.stream)
