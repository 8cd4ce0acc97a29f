"""Overlaps of the subspaces of many domains: a matrix at every site, beside random frames of as many dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from stores.printed import Printed
from workbench.statistics import p_value
from workbench.subspace.basis import Subspace
from workbench.subspace.grassmann import (
    EDGES,
    ISOTROPIC,
    MEASURES,
    STREAM,
    frame_measures,
    random_frames,
    stream_rows,
)
from workbench.subspace.rows import RowSource


@dataclass(frozen=True, eq=False)
class FrameMatrix(Printed):
    """One site. `overlap[i, j]`: mean cos² of the principal angles of two domains' frames of `k` dimensions, over pairs
    of their fine-tunings; on the diagonal between two fine-tunings of one domain (NaN with one). `measures`: the mean
    over pairs of domains of every measure of `frame_measures`. `null`: by kind, the 5 to 95 % of that mean overlap for
    as many random frames, `p` that of so large a one; `chance` is k / d_model."""

    overlap: Float[np.ndarray, "domain domain"]
    measures: Mapping[str, float]
    null: Mapping[str, tuple[float, float]]
    p: Mapping[str, float]
    k: int
    chance: float
    draws: int

    @property
    def mean(self) -> float:
        """Over pairs of different domains."""
        return float(self.overlap[np.triu_indices(len(self.overlap), 1)].mean())

    @property
    def within(self) -> float | None:
        """Over domains, between two fine-tunings of each: the ceiling."""
        own = np.diag(self.overlap)
        return None if np.isnan(own).all() else float(np.nanmean(own))


def frame_matrix(
    spaces: Mapping[str, Sequence[Subspace]],
    rows: RowSource | None = None,
    *,
    k: int | None = None,
    draws: int = 99,
    seed: int = 0,
) -> dict[Site, FrameMatrix]:
    """The overlaps of all domains' subspaces (the first k components; default: all) at every site that all have.

    `spaces`: domain -> one of each fine-tuning. Null of the mean over pairs: one random frame a domain, uniform on the
    Grassmannian, or spans of random combinations of `rows`. Raises ValueError for fewer than 2 domains, or no site that
    all of them have."""
    every = [one for own in spaces.values() for one in own]
    sites = [site for site in every[0].sites if all(site in one.sites for one in every)] if every else []
    if len(spaces) < 2 or not sites:
        raise ValueError(f"frame_matrix of {len(spaces)} domains with {len(sites)} sites in common: expected 2 and 1.")
    k = min(one.k for one in every) if k is None else k
    out = {}
    for site in sites:
        frames = [[one[site].basis[0][:k] for one in own] for own in spaces.values()]
        measured = {
            pair: _mean_measures(frames[pair[0]], frames[pair[1]]) for pair in combinations(range(len(frames)), 2)
        }
        overlap = np.full((len(frames), len(frames)), np.nan)
        for (i, j), found in measured.items():
            overlap[i, j] = overlap[j, i] = found["mean_cos2"]
        for i, own in enumerate(frames):
            twice = [frame_measures(a, b)["mean_cos2"] for a, b in combinations(own, 2)]
            overlap[i, i] = np.mean(twice) if twice else np.nan
        mean = float(np.mean([found["mean_cos2"] for found in measured.values()]))
        null = {ISOTROPIC: _null(len(frames), k, every[0].d_model, None, draws, seed)}
        if rows is not None:
            null[STREAM] = _null(len(frames), k, every[0].d_model, stream_rows(rows, site), draws, seed)
        out[site] = FrameMatrix(
            overlap,
            {name: float(np.mean([found[name] for found in measured.values()])) for name in MEASURES},
            {
                kind: (float(np.quantile(own, EDGES[0])), float(np.quantile(own, EDGES[1])))
                for kind, own in null.items()
            },
            {kind: p_value(mean, own) for kind, own in null.items()},
            k,
            k / every[0].d_model,
            draws,
        )
    return out


def _mean_measures(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> dict[str, float]:
    found = [frame_measures(*pair) for pair in product(a, b)]
    return {name: float(np.mean([one[name] for one in found])) for name in MEASURES}


def _null(
    n: int, k: int, d_model: int, rows: Float[np.ndarray, "row d_model"] | None, draws: int, seed: int
) -> Float[np.ndarray, " draw"]:
    """The mean overlap of all pairs of n random frames: ‖Q_i Q_jᵀ‖² / k, from one Gram matrix a draw."""
    drawn = random_frames(d_model, k, n * draws, seed=seed, rows=rows).reshape(draws, n * k, d_model)
    squares = (drawn @ drawn.transpose(0, 2, 1)) ** 2
    summed = squares.reshape(draws, n, k, n, k).sum(axis=(2, 4)) / k
    return summed[:, *np.triu_indices(n, 1)].mean(axis=1)
