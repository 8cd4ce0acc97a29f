"""A rate under the beta-binomial model: every cluster has its own rate, drawn from a beta distribution."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from workbench.statistics.clusters import Clusters
from workbench.statistics.intervals import Interval
from workbench.statistics.rates import clustered_counts
from workbench.statistics.values import coverage

POINTS = (64, 32)  # of the grid over (angle of the rate, intraclass correlation); 4 times as many move ends by < 1 %
SMALLEST = 1e-7  # posterior beside its peak that the grid still covers


def beta_binomial_interval(values: ArrayLike, clusters: Clusters, *, level: float = 0.95) -> Interval:
    """Equal-tailed posterior interval of the mean of the clusters' rates, for few events or few clusters.

    `values` are 0 or 1, one a row. Priors: Jeffreys' for the rate, uniform on (0, 1) for the intraclass correlation,
    which is integrated out rather than estimated. So it knows that three successes in one prompt may be one event. It
    leans on the beta distribution: where half of the prompts never show the behaviour and the others often do, it is
    far too narrow (docs/statistics.md), and `clustered_wilson` is not. An end is 0 (or 1) when no success (or no
    failure) was seen. Cost: time in the largest cluster, about 2 ms for 25 rows. Raises ValueError as
    `clustered_wilson` does. Source: the model of Skellam 1948; priors as stated.
    """
    successes, sizes = clustered_counts(values, clusters)
    tail = (1 - coverage(level)) / 2
    # The rate is sin² of an angle: Jeffreys' prior is uniform in it.
    box = (0.0, np.pi / 2, 0.0, 1.0)
    for _ in range(8):
        angle, icc = _middles(box[0], box[1], POINTS[0]), _middles(box[2], box[3], POINTS[1])
        log = _log_likelihood(successes, sizes, np.sin(angle) ** 2, icc)
        weight = np.exp(log - log.max())
        smaller = _box(angle, icc, weight, box)
        halved = (smaller[1] - smaller[0]) * (smaller[3] - smaller[2]) < 0.5 * (box[1] - box[0]) * (box[3] - box[2])
        if not halved:
            break
        box = smaller
    below = np.concatenate([[0.0], np.cumsum(weight.sum(axis=1)) / weight.sum()])
    low, high = np.sin(np.interp([tail, 1 - tail], below, np.linspace(box[0], box[1], len(angle) + 1))) ** 2
    low = 0.0 if not successes.any() else float(low)
    high = 1.0 if (successes == sizes).all() else float(high)
    method = f"beta-binomial posterior {level:.0%}, {len(sizes)} clusters of {sizes.sum()} rows"
    return Interval(low, high, method)


def _middles(low: float, high: float, n: int) -> Float[np.ndarray, " n"]:
    return low + (high - low) * (np.arange(n) + 0.5) / n


def _log_likelihood(
    successes: Int[np.ndarray, " cluster"],
    sizes: Int[np.ndarray, " cluster"],
    rate: Float[np.ndarray, " rate"],
    icc: Float[np.ndarray, " icc"],
) -> Float[np.ndarray, "rate icc"]:
    """Without the binomial coefficients. The product over rows of a cluster, Polya's urn, is stable down to icc 0."""
    hit, miss = rate[:, None] * (1 - icc), (1 - rate)[:, None] * (1 - icc)
    log = np.zeros_like(hit)
    for seen in range(int(sizes.max())):
        log += np.count_nonzero(successes > seen) * np.log(hit + seen * icc)
        log += np.count_nonzero(sizes - successes > seen) * np.log(miss + seen * icc)
        log -= np.count_nonzero(sizes > seen) * np.log(1 - icc + seen * icc)
    return log


def _box(
    angle: Float[np.ndarray, " rate"],
    icc: Float[np.ndarray, " icc"],
    weight: Float[np.ndarray, "rate icc"],
    box: tuple[float, float, float, float],
) -> tuple[float, float, float, float]:
    """The part of the grid that holds posterior, and one step around it."""
    rows, columns = np.flatnonzero((weight > SMALLEST).any(axis=1)), np.flatnonzero((weight > SMALLEST).any(axis=0))
    step, stride = angle[1] - angle[0], icc[1] - icc[0]
    return (
        max(box[0], float(angle[rows[0]] - step)),
        min(box[1], float(angle[rows[-1]] + step)),
        max(box[2], float(icc[columns[0]] - stride)),
        min(box[3], float(icc[columns[-1]] + stride)),
    )
