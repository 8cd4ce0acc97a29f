"""How large a difference is, in standard deviations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from workbench.statistics.intervals import Interval
from workbench.statistics.values import coverage, finite


def cohen_d(a: ArrayLike, b: ArrayLike) -> float:
    """Cohen's d of two independent groups: (mean(a) - mean(b)) / pooled standard deviation.

    Two groups without any spread give 0 (equal means) or an infinity. Source: Cohen 1988.
    """
    a, b = finite(a, "a"), finite(b, "b")
    freedom = len(a) + len(b) - 2
    if min(len(a), len(b)) < 1 or freedom < 1:
        raise ValueError(f"an effect size needs both groups and 3 values in all: {len(a)} and {len(b)} came.")
    difference = float(a.mean() - b.mean())
    pooled = float(np.sqrt((a.var() * len(a) + b.var() * len(b)) / freedom))
    if pooled == 0:
        return 0.0 if difference == 0 else float(np.copysign(np.inf, difference))
    return difference / pooled


def effect_size(a: ArrayLike, b: ArrayLike) -> float:
    """Hedges' g of two independent groups: mean difference in pooled standard deviations, corrected for small n.

    Two groups without any spread give 0 (equal means) or an infinity. Source: Hedges 1981, doi:10.2307/1164588.
    """
    return cohen_d(a, b) * _small_sample(np.size(a) + np.size(b) - 2)


def effect_interval(a: ArrayLike, b: ArrayLike, *, corrected: bool = True, level: float = 0.95) -> Interval:
    """Interval of Hedges' g (`corrected=False`: of Cohen's d), exact for independent values of two normal groups.

    Ends are the effects under which the observed t is at the edge (noncentral t). For clustered rows give the cluster
    means: the effect is then in standard deviations *between clusters*, another number than over rows, and a larger
    one. Raises ValueError when a pooled standard deviation of 0 leaves d undefined or infinite.
    Source: Steiger & Fouladi 1997.
    """
    tail, d = (1 - coverage(level)) / 2, cohen_d(a, b)
    n, m = np.size(a), np.size(b)
    if not np.isfinite(d) or (d == 0 and np.ptp(np.asarray(a)) == 0 == np.ptp(np.asarray(b))):
        raise ValueError(
            "both groups are without spread, so no effect in standard deviations exists: expected values "
            "that vary; compare the means themselves."
        )
    freedom, root = n + m - 2, float(np.sqrt(n * m / (n + m)))
    t = d * root
    # P(T <= t) falls as the noncentrality grows: 1 - tail at the lower end, tail at the upper one.
    low = _crossing(lambda shift: float(special.nctdtr(freedom, shift, t)), 1 - tail, t)
    high = _crossing(lambda shift: float(special.nctdtr(freedom, shift, t)), tail, t)
    factor = _small_sample(freedom) if corrected else 1.0
    name = "Hedges' g" if corrected else "Cohen's d"
    return Interval(low / root * factor, high / root * factor, f"{name}, noncentral t {level:.0%}, n = {n} + {m}")


def _small_sample(freedom: int) -> float:
    return 1 - 3 / (4 * freedom - 1)


def _crossing(falling: Callable[[float], float], height: float, start: float) -> float:
    """Where a falling function passes `height`, by bisection out from `start`."""
    reach = 1.0 + abs(start)
    low, high = start - reach, start + reach
    while falling(low) < height:
        low -= reach
    while falling(high) > height:
        high += reach
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > height else (low, middle)
    return (low + high) / 2
