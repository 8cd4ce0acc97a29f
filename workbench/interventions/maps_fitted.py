"""One map a site, with its held-out R²; shuffled refits differ in the order of the target's training rows only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hooks.site import Site
from stores.printed import Printed
from workbench.interventions.linear_maps import IdentityMap, Method, SiteMap, fitted
from workbench.interventions.maps_folds import chosen_rank
from workbench.interventions.maps_tested import Pair, explained


@dataclass(frozen=True)
class Fits(Printed):
    """What fitting gave, by target site: the maps, their least-squares scales and their held-out R²."""

    maps: Mapping[Site, SiteMap]
    scale: Mapping[Site, float]
    r2: Mapping[Site, float]


def fit_sites(
    pairs: Mapping[Site, Pair],
    method: Method,
    *,
    ridge: float | int,
    scaled: bool,
    rank: int | None = None,
    order: np.ndarray | None = None,
) -> Fits:
    """One map a site; `order` shuffles the training rows of the target, the held-out pairs stay true. A low-rank map
    without a `rank` chooses it here, so that a shuffled refit chooses its own."""
    maps: dict[Site, SiteMap] = {}
    scale: dict[Site, float] = {}
    for site, pair in pairs.items():
        if method == "identity":
            maps[site], scale[site] = IdentityMap(len(pair.source.mean)), 1.0
            continue
        k = rank
        if method == "low_rank" and rank is None:
            k, _ = chosen_rank(pair.folds, pair.source, pair.target, ridge=ridge, order=order)
        same = {"ridge": ridge, "scaled": scaled, "rank": k, "order": order}
        maps[site], scale[site] = fitted(pair.source, pair.target, method, **same)
    return Fits(maps, scale, {site: explained(maps[site], pair).r2 for site, pair in pairs.items()})
