"""Trend: what a test over doses found, and the steps from each dose to the next with simultaneous intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float

from stores.printed import Printed
from workbench.statistics.clusters import cluster_interval
from workbench.statistics.intervals import Interval, t_quantile, without_spread
from workbench.statistics.permutation import Significance
from workbench.statistics.values import Bounds, Tail, alike, coverage

Verdict = Literal["increasing", "decreasing", "no trend shown"]


@dataclass(frozen=True)
class Step:
    """From one dose to the next: the change of the mean. The intervals of all steps hold together, with 1 - alpha."""

    low_dose: float
    high_dose: float
    change: float
    interval: Interval


@dataclass(frozen=True)
class Trend(Printed):
    """`strength` is 1 where every pair of doses goes up in every unit, -1 where all go down, 0 as by chance. `least_p`
    is the least p that this design could have given: at or above `alpha`, no data would have shown a trend."""

    doses: tuple[float, ...]
    means: tuple[float, ...]
    strength: float
    test: Significance
    least_p: float
    steps: tuple[Step, ...]
    units: int
    alpha: float
    tail: Tail

    @property
    def verdict(self) -> Verdict:
        """What is shown at `alpha`. "increasing" is on the whole: `monotone` asks for every step."""
        if self.test.p > self.alpha or not self.strength:
            return "no trend shown"
        return "increasing" if self.strength > 0 else "decreasing"

    @property
    def violations(self) -> int:
        """Steps whose mean goes against the trend (against the observed direction, where none is shown)."""
        return sum(self._along(step.change) < 0 for step in self.steps)

    @property
    def violations_interval(self) -> Interval:
        """How many steps truly go against the trend: at least those whose whole interval does, at most those whose
        interval reaches there at all. Holds with 1 - alpha, since the intervals of the steps hold together."""
        ends = [sorted((self._along(step.interval.low), self._along(step.interval.high))) for step in self.steps]
        low, high = sum(high < 0 for _, high in ends), sum(low < 0 for low, _ in ends)
        method = f"simultaneous {1 - self.alpha:.0%} intervals of {len(self.steps)} steps"
        return Interval(float(low), float(high), method)

    @property
    def monotone(self) -> bool:
        """A trend is shown, and at no step can the data be reconciled with a change against it."""
        return self.verdict != "no trend shown" and self.violations_interval.high == 0

    def _along(self, change: float) -> float:
        return change if self.strength >= 0 else -change

    def __str__(self) -> str:
        against = self.violations_interval
        powerless = f", which this design could not show (least p {self.least_p:.2g})"
        seen = self.verdict + (powerless if self.least_p > self.alpha else "")
        return (
            f"{seen}: strength {self.strength:.2g}, {self.test}; {self.violations} of {len(self.steps)} steps go "
            f"against it, in truth {against.low:.0f} to {against.high:.0f} ({against.method})"
        )


def paired_steps(
    values: Float[np.ndarray, "unit dose"],
    doses: Sequence[float],
    *,
    alpha: float,
    bounds: Bounds | None,
    seed: int,
) -> tuple[Step, ...]:
    """Changes within units: t below 30 units, bootstrap above; Bonferroni over the steps."""
    level = coverage(1 - alpha / (len(doses) - 1))
    span = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    out = []
    for at, change in enumerate(np.diff(values, axis=1).T):
        if len(change) < 2:
            interval = _none("one unit shows no spread")
        elif alike(change):
            interval = without_spread(float(change[0]), len(change), level=level, bounds=span)
        else:
            interval = cluster_interval(change, range(len(change)), level=level, seed=seed)
        out.append(Step(doses[at], doses[at + 1], float(change.mean()), interval))
    return tuple(out)


def independent_steps(
    groups: Sequence[Float[np.ndarray, " _"]], doses: Sequence[float], *, alpha: float
) -> tuple[Step, ...]:
    """Changes between groups by Welch's t, Bonferroni over the steps."""
    level = coverage(1 - alpha / (len(doses) - 1))
    out = []
    for at, (low, high) in enumerate(pairwise(groups)):
        change = float(high.mean() - low.mean())
        if min(len(low), len(high)) < 2:
            interval = _none("a dose with one unit shows no spread")
        else:
            parts = np.array([0.0 if alike(each) else each.var(ddof=1) / len(each) for each in (low, high)])
            if not parts.any():
                interval = _none("no dose shows any spread")
            else:
                freedom = float(parts.sum() ** 2 / (parts**2 / [len(low) - 1, len(high) - 1]).sum())
                half = t_quantile(freedom, level) * float(np.sqrt(parts.sum()))
                interval = Interval(change - half, change + half, f"Welch {level:.4g}, {len(low)} + {len(high)} units")
        out.append(Step(doses[at], doses[at + 1], change, interval))
    return tuple(out)


def unknown_steps(values: Float[np.ndarray, " dose"], doses: Sequence[float]) -> tuple[Step, ...]:
    """Changes of single values, whose error nobody knows."""
    interval = _none("one value a dose")
    return tuple(Step(doses[at], doses[at + 1], float(change), interval) for at, change in enumerate(np.diff(values)))


def _none(why: str) -> Interval:
    return Interval(-np.inf, np.inf, f"none: {why}")
