"""The AUROC's interval by resampling clusters: prompts, images or domains that give several scores."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy import special

from workbench.statistics.clusters import FEW_CLUSTERS, Clusters, cluster_index
from workbench.statistics.intervals import Interval
from workbench.statistics.separation import auroc, auroc_interval, both_classes
from workbench.statistics.values import coverage


def auroc_bootstrap(
    positive: ArrayLike,
    negative: ArrayLike,
    clusters_positive: Clusters | None = None,
    clusters_negative: Clusters | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Interval of the AUROC over resampled clusters (rows, when none are given), percentile from 30 clusters on.

    Where every cluster holds one class, clusters are drawn within each class; otherwise all together. Below 30 (of
    the smaller class) the bootstrap-t on the logit scale, with the linearised variance of each resample. Where
    resamples without spread leave its quantiles infinite, and at perfect separation, `auroc_interval` answers, and its
    method says so. Cost: memory for clusters x clusters. Raises ValueError as that does.
    """
    positive, negative = both_classes(positive, negative)
    plain = auroc_interval(positive, negative, clusters_positive, clusters_negative, level=level)
    names_p = [("p", i) for i in range(len(positive))] if clusters_positive is None else list(clusters_positive)
    names_n = [("n", i) for i in range(len(negative))] if clusters_negative is None else list(clusters_negative)
    index = cluster_index(names_p + names_n, len(names_p) + len(names_n))
    at_p, at_n = index[: len(names_p)], index[len(names_p) :]
    k = int(index.max()) + 1
    wins = _wins(positive, negative, at_p, at_n, k)
    sizes_p, sizes_n = np.bincount(at_p, minlength=k), np.bincount(at_n, minlength=k)
    mixed = bool(np.any((sizes_p > 0) & (sizes_n > 0)))
    few = k if mixed else min(np.count_nonzero(sizes_p), np.count_nonzero(sizes_n))
    area = auroc(positive, negative)
    if area in (0.0, 1.0):
        return plain
    weights = _drawn(sizes_p > 0, mixed, resamples, np.random.default_rng(seed))
    weights = weights[(weights @ sizes_p > 0) & (weights @ sizes_n > 0)]
    areas, errors = _areas(weights, wins, sizes_p, sizes_n)
    tail = (1 - coverage(level)) / 2
    stated = f"{level:.0%} of AUROC over {k} clusters, {len(weights)} resamples"
    if few >= FEW_CLUSTERS:
        low, high = np.quantile(areas, [tail, 1 - tail])
        return Interval(float(low), float(high), f"percentile bootstrap {stated}")
    _, own = _areas(np.ones((1, k)), wins, sizes_p, sizes_n)
    middle, error = special.logit(area), float(own[0]) / (area * (1 - area))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (special.logit(areas) - middle) * areas * (1 - areas) / errors
    t = np.where(np.isnan(t), np.copysign(np.inf, areas - area), t)
    below, above = np.quantile(t, [tail, 1 - tail], method="inverted_cdf")
    if not np.isfinite([below, above]).all():
        return Interval(plain.low, plain.high, f"{plain.method} (too few clusters for a studentised bootstrap)")
    low, high = special.expit(middle - np.array([above, below]) * error)
    return Interval(float(low), float(high), f"studentised bootstrap {stated}")


def _wins(
    positive: Float[np.ndarray, " n"],
    negative: Float[np.ndarray, " m"],
    at_p: Int[np.ndarray, " n"],
    at_n: Int[np.ndarray, " m"],
    k: int,
) -> Float[np.ndarray, "k k"]:
    """[c, d]: pairs of a positive of cluster c above a negative of cluster d, ties half."""
    out = np.zeros((k, k))
    for cluster in np.unique(at_n):
        ordered = np.sort(negative[at_n == cluster])
        beaten = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
        out[:, cluster] = np.bincount(at_p, weights=beaten / 2, minlength=k)
    return out


def _drawn(
    holds_positive: np.ndarray, mixed: bool, resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "draw k"]:
    """How often each cluster is in each resample."""
    k = len(holds_positive)
    if mixed:
        return rng.multinomial(k, np.full(k, 1 / k), size=resamples).astype(float)
    out = np.zeros((resamples, k))
    for side in (holds_positive, ~holds_positive):
        count = int(side.sum())
        out[:, side] = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return out


def _areas(
    weights: Float[np.ndarray, "draw k"],
    wins: Float[np.ndarray, "k k"],
    sizes_p: Int[np.ndarray, " k"],
    sizes_n: Int[np.ndarray, " k"],
) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
    """AUROC of each resample and its standard error: the root of the summed squares of the clusters' influences."""
    n, m = weights @ sizes_p, weights @ sizes_n
    won, lost = weights @ wins.T, weights @ wins
    areas = (weights * won).sum(axis=1) / (n * m)
    influence = won / (n * m)[:, None] - (areas / n)[:, None] * sizes_p
    influence += lost / (n * m)[:, None] - (areas / m)[:, None] * sizes_n
    return areas, np.sqrt((weights * influence**2).sum(axis=1))
