"""Paired cluster bootstrap: the difference of two conditions that answered the same prompts, by whole clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from workbench.statistics.clusters import FEW_CLUSTERS, Clusters, cluster_index, cluster_means
from workbench.statistics.intervals import Interval, t_quantile, without_spread
from workbench.statistics.values import Bounds, alike, coverage, finite

AT_ONCE = 4_000_000  # resampled values held in memory at a time


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Clusters,
    clusters_b: Clusters | None = None,
    *,
    strata: Mapping[Any, Any] | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    bounds: Bounds | None = None,
    studentised: bool | None = None,
) -> Interval:
    """Interval of mean(a) - mean(b), each the mean of cluster means, over the clusters that both share.

    `clusters` names the cluster (prompt, image hash) of each value of `a`; `clusters_b` of `b`, when those stand in
    another order or number. Clusters must be the same on both sides, since a prompt with answers of one model only is
    no pair: ValueError. `strata` maps each cluster to its source: clusters are drawn within it, so its share stays
    fixed. `bounds` are the ends of the *difference*'s scale, (-1, 1) for rates: they cut the interval, and limit it
    where all clusters differ alike. Fewer than 30 clusters: studentised; else percentile (`bootstrap_interval`).
    """
    other = clusters if clusters_b is None else clusters_b
    first, second = _by_name(a, clusters, "a"), _by_name(b, other, "b")
    if first.keys() != second.keys():
        lone = len(first.keys() ^ second.keys())
        raise ValueError(
            f"paired_bootstrap: {lone} clusters have values on one side only, {len(first.keys() & second.keys())} on "
            "both. Drop what is unpaired first, and say how many."
        )
    if strata is not None and first.keys() - strata.keys():
        raise ValueError(
            f"paired_bootstrap: {len(first.keys() - strata.keys())} clusters have no entry in "
            "strata; expected one each."
        )
    differences = np.array([value - second[name] for name, value in first.items()])
    drawn_within = None if strata is None else [strata[name] for name in first]
    return bootstrap_interval(
        differences,
        drawn_within,
        level=level,
        resamples=resamples,
        seed=seed,
        bounds=bounds,
        studentised=studentised,
        units="paired clusters",
    )


def bootstrap_interval(
    values: ArrayLike,
    strata: Sequence[Any] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    bounds: Bounds | None = None,
    studentised: bool | None = None,
    units: str = "values",
) -> Interval:
    """Interval of the mean of independent `values` (one a cluster) by resampling them, within strata where given.

    Below 30 values, or with `studentised=True`, the bootstrap-t: quantiles are of (mean* - mean) / error*. Where too
    many resamples lack any spread for those quantiles to exist (few values, many of them equal), Student's t is used,
    and named. Equal values get `without_spread`: never an interval of zero width. Raises ValueError for fewer than 2
    values, or a stratum of one. Source: Efron & Tibshirani 1993, chapter 12.
    """
    values = finite(values, "values")
    n, tail = len(values), (1 - coverage(level)) / 2
    if n < 2:
        raise ValueError(f"a bootstrap needs at least 2 {units}: {n} came. One says nothing of spread.")
    if resamples < 200:
        raise ValueError(f"resamples={resamples}: expected at least 200, and 2,000 or more for a reported interval.")
    if alike(values):
        return without_spread(float(values[0]), n, level=level, bounds=bounds)
    index = np.zeros(n, np.intp) if strata is None else cluster_index(strata, n)
    groups = [values[index == stratum] for stratum in range(int(index.max()) + 1)]
    if min(len(group) for group in groups) < 2:
        raise ValueError("a stratum holds one cluster, which shows no spread: merge it with another source.")
    by_source = "" if strata is None else f", drawn within {len(groups)} strata"
    stated = f"{level:.0%} over {n} {units}, {resamples} resamples{by_source}"
    means, errors = _resampled(groups, n, resamples, np.random.default_rng(seed))
    low, high = (float(end) for end in np.quantile(means, [tail, 1 - tail]))
    method = f"percentile bootstrap {stated}"
    if n < FEW_CLUSTERS if studentised is None else studentised:
        middle, error = float(values.mean()), _error([group.var(ddof=1) for group in groups], groups, n)
        away = means - middle
        # Without spread a resample's t is infinite, and 0 where it did not move: such draws belong to the tails.
        moved = np.where(np.abs(away) > 1e-12 * np.abs(values).max(), np.copysign(np.inf, away), 0.0)
        spread = errors > 1e-9 * error
        t = np.divide(away, errors, out=moved, where=spread)
        below, above = np.quantile(t, [tail, 1 - tail], method="inverted_cdf")
        low, high, method = middle - above * error, middle - below * error, f"studentised bootstrap {stated}"
        if not np.isfinite([low, high]).all():
            half = t_quantile(n - len(groups), level) * error
            low, high = middle - half, middle + half
            method = f"t {level:.0%} over {n} {units} (too few distinct for a studentised bootstrap){by_source}"
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Interval(float(low), float(high), method)


def _resampled(
    groups: Sequence[np.ndarray], n: int, resamples: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
    """Mean and standard error of each resample; a few resamples at a time."""
    means, errors = [], []
    step = max(1, AT_ONCE // n)
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        drawn = [group[rng.integers(len(group), size=(some, len(group)))] for group in groups]
        means.append(sum(each.sum(axis=1) for each in drawn) / n)
        errors.append(_error([each.var(axis=1, ddof=1) for each in drawn], groups, n))
    return np.concatenate(means), np.concatenate(errors)


def _error(variances: Sequence[Any], groups: Sequence[np.ndarray], n: int) -> Any:
    """Standard error of the mean over strata of fixed share."""
    return np.sqrt(sum(len(group) * variance for group, variance in zip(groups, variances, strict=True))) / n


def _by_name(values: ArrayLike, clusters: Clusters, side: str) -> dict[Any, float]:
    return dict(zip(dict.fromkeys(clusters), cluster_means(finite(values, side), clusters).tolist(), strict=True))
