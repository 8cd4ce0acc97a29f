"""Rows that belong together: cluster means, their interval, and the intraclass correlation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from workbench.statistics.intervals import Interval, t_interval, without_spread
from workbench.statistics.values import Bounds, alike, coverage, finite

FEW_CLUSTERS = (
    30  # below this a percentile bootstrap is too narrow: measured 95 % covers .84 to .91 with 5 to 11 clusters
)

Clusters = Sequence[Any] | np.ndarray
"""One hashable name a row: the prompt, the image, the domain."""


def cluster_interval(
    values: ArrayLike,
    clusters: Clusters,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    bounds: Bounds | None = None,
) -> Interval:
    """Interval of the mean of cluster means: every cluster (a prompt, an image) weighs the same, whatever its size.

    Fewer than 30 clusters: t over the cluster means; otherwise the percentile bootstrap over clusters. Values that
    are all 0 or all 1 have no spread to resample, so they get the Wilson interval with n = number of clusters; other
    equal values get one within `bounds`, the ends of the scale, or an infinite one without. For rates use
    `clustered_wilson`: near 0 and 1 a t over means covers far less than it says.
    Raises ValueError when there are fewer than 2 clusters or the lengths differ.
    """
    means = cluster_means(values, clusters)
    n = len(means)
    if n < 2:
        raise ValueError(f"cluster_interval needs at least 2 clusters: {n} came. One cluster says nothing of spread.")
    if alike(means):
        rate = bounds is None and (np.all(means == 0) or np.all(means == 1))
        return without_spread(float(means[0]), n, level=level, bounds=(0.0, 1.0) if rate else bounds)
    if n < FEW_CLUSTERS:
        plain = t_interval(means, level)
        return Interval(plain.low, plain.high, f"t {level:.0%} over {n} cluster means")
    draws = means[np.random.default_rng(seed).integers(n, size=(resamples, n))].mean(axis=1)
    low, high = np.quantile(draws, [(1 - coverage(level)) / 2, (1 + level) / 2])
    return Interval(
        float(low), float(high), f"percentile bootstrap {level:.0%} over {n} clusters, {resamples} resamples"
    )


def cluster_means(values: ArrayLike, clusters: Clusters) -> Float[np.ndarray, " cluster"]:
    """The mean of each cluster, in order of first appearance."""
    values = finite(values, "values")
    index = cluster_index(clusters, len(values))
    return np.bincount(index, weights=values) / np.bincount(index)


def cluster_index(clusters: Clusters, rows: int) -> Int[np.ndarray, " n"]:
    """The number of each row's cluster, counted from 0 in order of first appearance."""
    if rows != len(clusters):
        raise ValueError(f"expected one cluster name a value: {rows} values and {len(clusters)} names came.")
    order = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    return np.array([order[name] for name in clusters], dtype=np.intp)


def intraclass_correlation(values: ArrayLike, clusters: Clusters) -> float:
    """Share of the variance that lies between clusters: 0 is none, 1 is all; below 0 when rows of a cluster repel.

    One-way analysis of variance, clusters of any size. Raises ValueError without two clusters, without a cluster of
    two rows, or without any spread. Source: Donner 1986, doi:10.2307/1403259.
    """
    values = finite(values, "values")
    index = cluster_index(clusters, len(values))
    sizes = np.bincount(index)
    n, k = len(values), len(sizes)
    if k < 2 or n == k:
        raise ValueError(f"an intraclass correlation needs 2 clusters, one of 2 rows: {k} clusters, {n} rows came.")
    means = np.bincount(index, weights=values) / sizes
    between = (sizes * (means - values.mean()) ** 2).sum() / (k - 1)
    within = ((values - means[index]) ** 2).sum() / (n - k)
    size = (n - (sizes**2).sum() / n) / (k - 1)
    if between + within == 0:
        raise ValueError(
            f"all {n} values are equal: no variance can be shared out. Leave the clusters out, "
            "or find values that vary."
        )
    return float((between - within) / (between + (size - 1) * within))
