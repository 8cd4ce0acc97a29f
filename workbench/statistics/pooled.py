"""The mean of all rows where rows share clusters: every row weighs the same, and the clusters say how sure it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from workbench.statistics.clusters import Clusters, cluster_index
from workbench.statistics.intervals import Interval, t_quantile, without_spread
from workbench.statistics.values import Bounds, alike, finite


def pooled_interval(
    values: ArrayLike, clusters: Clusters, *, level: float = 0.95, bounds: Bounds | None = None
) -> Interval:
    """t interval of the mean over rows, its error that of a ratio of cluster totals (linearised); with clusters of one
    size that of the cluster means. `bounds` are the ends of the scale, which cut it. Raises ValueError for fewer than 2
    clusters. Source: Cochran 1977, Sampling Techniques, section 9A (a ratio estimate over clusters).
    """
    values = finite(values, "values")
    index = cluster_index(clusters, len(values))
    k = int(index.max(initial=-1)) + 1
    if k < 2:
        raise ValueError(f"pooled_interval needs at least 2 clusters: {k} came. One cluster says nothing of spread.")
    mean = float(values.mean())
    if alike(values):
        return without_spread(mean, k, level=level, bounds=bounds)
    off = np.bincount(index, weights=values - mean)
    half = t_quantile(k - 1, level) * float(np.sqrt((off**2).sum() * k / (k - 1))) / len(values)
    low, high = (
        (mean - half, mean + half) if bounds is None else (max(mean - half, bounds[0]), min(mean + half, bounds[1]))
    )
    return Interval(low, high, f"t {level:.0%} of the mean over rows, {k} clusters")
