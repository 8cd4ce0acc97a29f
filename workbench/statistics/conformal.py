"""Intervals for one new outcome, from the errors that a predictor made on units left out: jackknife+ and its kin."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Float

from workbench.statistics.intervals import Interval
from workbench.statistics.values import coverage, finite

Method = Literal["jackknife+", "minmax"]
METHODS = ("jackknife+", "minmax")


def jackknife_interval(
    predicted: Float[np.ndarray, " n"],
    errors: Float[np.ndarray, " m"],
    level: float = 0.8,
    method: Method = "jackknife+",
) -> Interval:
    """Where the outcome of a new unit lies. `predicted[i]`: what a fit without unit i says of the new unit;
    `errors[i]`: how far off that fit was on unit i.

    Coverage over exchangeable units, of any distribution and any predictor: "jackknife+" at least 2 · level - 1, and
    about `level` as a rule; "minmax" at least `level`, wider. With fewer than `least_units(level)` units the interval
    is infinite, since n errors cannot bound that share of new ones. Source: Barber et al. 2021, arXiv:1905.02928.
    """
    middle, off = finite(predicted, "predicted"), np.abs(finite(errors, "errors"))
    n = len(middle)
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown: expected {' or '.join(map(repr, METHODS))}.")
    if len(off) != n or not n:
        raise ValueError(f"jackknife_interval needs one error a prediction: {n} and {len(off)} came.")
    rank = math.ceil(coverage(level) * (n + 1) - 1e-9)
    said = f"{method} {level:.0%}, n = {n}"
    if rank > n:
        return Interval(-math.inf, math.inf, f"none: {said}; {level:.0%} needs at least {least_units(level)} units")
    if method == "minmax":
        reach = float(np.sort(off)[rank - 1])
        return Interval(float(middle.min() - reach), float(middle.max() + reach), said)
    low, high = np.sort(middle - off)[n - rank], np.sort(middle + off)[rank - 1]
    return Interval(float(low), float(high), said)


def least_units(level: float) -> int:
    """The fewest units whose errors can bound a new one at this level: 4, 9, 19 for 80, 90, 95 %."""
    return math.ceil(coverage(level) / (1 - level) - 1e-9)


def highest_level(n: int) -> float:
    """The highest coverage that n units can bound: n / (n + 1), 10 of 11 for the 10 others of 11 domains."""
    if n < 1:
        raise ValueError(f"highest_level needs n >= 1 units: {n} came.")
    return n / (n + 1)
