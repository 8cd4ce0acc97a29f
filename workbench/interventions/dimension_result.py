"""The causal curve as a result: behaviour over k dimensions, its controls, and how many dimensions hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stores.printed import Printed
from workbench.statistics import Interval


@dataclass(frozen=True)
class ControlBand(Printed):
    """The twins of one point: mean, the middle 95 % of their values, whether the point lies `beyond` these in the
    direction of an effect, and from 99 draws on its one-sided p, alone and corrected for looking at every k (`p_max`,
    maximum statistic over runs)."""

    mean: float
    low: float
    high: float
    draws: tuple[float, ...]
    beyond: bool
    p: float | None
    p_max: float | None = None


@dataclass(frozen=True)
class CurvePoint(Printed):
    """Behaviour at k dimensions. `change` is value - unedited value over the same prompts, None at the unedited model;
    `effect` what share of the behaviour (unedited - base) is gone, or under keeping modes there, with its interval;
    None where unedited and base are the same."""

    k: int
    value: float
    interval: Interval
    n: int
    clusters: int
    change: float | None = None
    change_interval: Interval | None = None
    effect: float | None = None
    effect_interval: tuple[float, float] | None = None
    controls: Mapping[str, ControlBand] | None = None

    @property
    def specific(self) -> bool | None:
        """Whether the point lies beyond the middle 95 % of every kind of control; None without controls."""
        if not self.controls:
            return None
        return all(band.beyond for band in self.controls.values())


@dataclass(frozen=True)
class DimensionsNeeded:
    """The least k from which on the effect is at least `share`; None where no k of the sweep is enough. `low` and
    `high` are the same read at the far and the near end of the effects' intervals. `specific` as of that point."""

    share: float | int
    k: int | None
    low: int | None
    high: int | None
    specific: bool | None

    def __str__(self) -> str:
        beyond = {True: ", beyond its controls", False: ", within its controls", None: ""}[self.specific]
        return f"k = {self.k} [{self.low}, {self.high}] for {self.share:.0%}{beyond}"


@dataclass(frozen=True)
class DimensionCurve(Printed):
    """One mode of `top_k` over k: `points` in order of k, `unedited` and `base` the values at both ends. `group` names
    the prompts that it is of, where there are curves of several."""

    mode: str
    metric: str
    unedited: float
    base: float
    points: tuple[CurvePoint, ...]
    group: str | None = None

    @property
    def behaves(self) -> bool:
        """Whether there is a behaviour to lose: the unedited model differs from the base."""
        return self.unedited != self.base

    def needed(self, share: float | int = 0.9) -> DimensionsNeeded:
        """How many dimensions hold the behaviour: the least k from which on `share` of it is gone (`ablate_top_k`), or
        there (modes that keep). "From which on": one k that passes between two that fail is no answer."""
        if not 0 < share <= 1:
            raise ValueError(f"needed({share}): expected a share between 0 and 1, such as 0.9.")
        points = [point for point in self.points if point.effect is not None]
        effects = [(point.effect or 0.0, *(point.effect_interval or (-np.inf, np.inf))) for point in points]
        ks = [point.k for point in points]
        found = [from_which_on([each[i] for each in effects], ks, share) for i in (0, 2, 1)]
        at = next((point.specific for point in points if point.k == found[0]), None)
        return DimensionsNeeded(share, found[0], found[1], found[2], at)

    def rows(self) -> list[dict[str, Any]]:
        """One dict a point, for a table or a figure."""
        out = []
        for point in self.points:
            row = {"mode": self.mode, "metric": self.metric, "k": point.k, "value": point.value, "n": point.n}
            row |= {"clusters": point.clusters, "low": point.interval.low, "high": point.interval.high}
            row |= {"interval_method": point.interval.method, "change": point.change, "effect": point.effect}
            for kind, band in (point.controls or {}).items():
                row |= {f"{kind}_{name}": getattr(band, name) for name in ("mean", "low", "high", "p", "p_max")}
                row |= {f"{kind}_draws": len(band.draws)}
            out.append(row)
        return out


def from_which_on(effects: Sequence[float], ks: Sequence[int], share: float | int) -> int | None:
    """The least of `ks` (rising) from which on every effect is at least `share`; None where the last is less."""
    found = None
    for effect, k in reversed(list(zip(effects, ks, strict=True))):
        if effect < share - 1e-12:
            break
        found = k
    return found
