"""Skill: how much smaller a predictor's squared errors are than those of the mean of the other units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from workbench.statistics.intervals import Interval, t_quantile
from workbench.statistics.left_out import Candidate, left_out, one_left_out, pairs_left_out
from workbench.statistics.values import coverage, finite


@dataclass(frozen=True)
class Skill:
    """1 - Σ squared errors / Σ squared errors of the mean of the other units, each unit left out once: 1 is perfect, 0
    as good as the mean, below 0 worse. `without`: the same of all units but one, the procedure run anew."""

    value: float
    without: Float[np.ndarray, " n"]

    def interval(self, level: float = 0.95) -> Interval:
        return skill_interval(self.value, self.without, level)


def left_out_skill(x: Float[np.ndarray, "n k"], y: Float[np.ndarray, " n"], candidates: Sequence[Candidate]) -> Skill:
    """The skill of ridge predictions (`left_out`) for 5 units or more. Raises ValueError for equal outcomes."""
    n, column = len(y), y[:, None]
    off = y - left_out(x, column, one_left_out(n), candidates).predicted[:, 0, 0]
    pairs = pairs_left_out(n)
    first, second = np.array(pairs).T
    twice = left_out(x, column, pairs, candidates).predicted[:, :, 0]
    mean = (y.sum() - y[first] - y[second]) / (n - 2)
    own, other = np.zeros((n, n)), np.zeros((n, n))  # [the unit that is gone, the unit that is predicted]
    own[second, first], own[first, second] = y[first] - twice[:, 0], y[second] - twice[:, 1]
    other[second, first], other[first, second] = y[first] - mean, y[second] - mean
    off_mean = (y - y.mean()) * n / (n - 1)
    whole = _ratio(off[None], off_mean[None])[0]
    return Skill(float(1 - whole), 1 - _ratio(own, other))


def skill_interval(value: float, without: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of a skill by the jackknife over units: t on log(1 - skill), its error from the skills `without` each.

    The predictions share most of their data, so errors of single predictions know too little of how the whole fit
    varies: an interval from them held the skill in 67 to 96 % of simulated populations of 11 units, this one in 87 to
    100 (95 % stated, 150 populations a case, 1 to 3 features). Source: Efron & Stein 1981, doi:10.1214/aos/1176345462.
    """
    others = finite(without, "without")
    n = len(others)
    if n < 5:
        raise ValueError(f"skill_interval needs at least 5 units: {n} came.")
    method = f"jackknife {coverage(level):.0%} over {n} units, log scale"
    if value >= 1 - 1e-12 or (others >= 1 - 1e-12).any():
        return Interval(-np.inf, 1.0, f"none: {method}; no error at all, so no spread is seen")
    logs = np.log1p(-others)
    error = np.sqrt((n - 1) / n * np.square(logs - logs.mean()).sum())
    far = np.exp(t_quantile(n - 1, level) * error)
    return Interval(float(1 - (1 - value) * far), float(1 - (1 - value) / far), method)


def _ratio(own: Float[np.ndarray, "m n"], other: Float[np.ndarray, "m n"]) -> Float[np.ndarray, " m"]:
    total = np.square(other).sum(axis=1)
    if not (total > 0).all():
        raise ValueError("the mean of the others is never off: outcomes are equal, and there is nothing to predict.")
    return np.square(own).sum(axis=1) / total
