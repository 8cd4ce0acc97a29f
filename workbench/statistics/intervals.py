"""Intervals of independent values; each names its method, and none is of zero width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from workbench.statistics.values import Bounds, alike, coverage, finite


@dataclass(frozen=True)
class Interval:
    """A confidence interval in the units of the estimate, with the name of the method that gave it."""

    low: float
    high: float
    method: str

    def __contains__(self, value: float) -> bool:
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"[{self.low:.3g}, {self.high:.3g}] ({self.method})"


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a rate of `successes` in `n` trials, within [0, 1]; 0 of n has an upper end above 0.

    The trials must be independent: several samples of one prompt are not (use `clustered_wilson`).
    Raises ValueError for n < 1 or successes outside 0..n. Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson({successes}, {n}): expected 0 <= successes <= n and n >= 1.")
    low, high = score_ends(successes / n, float(n), float(special.ndtri(0.5 + coverage(level) / 2)))
    return Interval(low, high, f"Wilson {level:.0%}")


def score_ends(rate: float, n: float, quantile: float) -> tuple[float, float]:
    """Both rates that lie `quantile` standard errors *of themselves* from `rate`; `n` may be an effective number."""
    weight = quantile * quantile / n
    centre = (rate + weight / 2) / (1 + weight)
    half = quantile * np.sqrt(rate * (1 - rate) / n + weight / (4 * n)) / (1 + weight)
    return (0.0 if rate == 0 else float(centre - half)), (1.0 if rate == 1 else float(centre + half))


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student-t interval of the mean of independent `values`; raises ValueError for fewer than 2 values.

    Equal values show no spread: the interval is infinite, and its method says so.
    """
    values = finite(values, "values")
    if len(values) < 2:
        raise ValueError(f"t_interval needs at least 2 values to see any spread: {len(values)} came.")
    if alike(values):
        return without_spread(float(values[0]), len(values), level=level)
    half = t_quantile(len(values) - 1, level) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(values.mean() - half), float(values.mean() + half), f"t {level:.0%}, n = {len(values)}")


def t_quantile(freedom: float | int, level: float) -> float:
    """How many standard errors a two-sided interval of this level reaches from its middle."""
    return float(special.stdtrit(freedom, 0.5 + coverage(level) / 2))


def without_spread(value: float, n: int, *, level: float, bounds: Bounds | None = None) -> Interval:
    """The interval of a mean when all `n` independent units gave the same value.

    Other units may differ all the same: their share is at most Wilson's upper end of 0 in n, and they can lie anywhere
    within `bounds`, the ends of the scale. Without bounds nothing limits the mean, so both ends are infinite.
    """
    if bounds is None:
        method = f"none: all {n} gave {value:.3g}, so no spread is seen, and no bounds are known"
        return Interval(-np.inf, np.inf, method)
    low, high = bounds
    if not low <= value <= high:
        raise ValueError(
            f"bounds={bounds} are the ends of the scale, but a mean of {value:.6g} came: expected one between."
        )
    other = wilson(0, n, level).high
    ends = value - other * (value - low), value + other * (high - value)
    return Interval(*ends, f"Wilson {level:.0%} over {n} clusters (all alike)")
