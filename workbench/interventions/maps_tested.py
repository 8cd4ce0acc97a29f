"""How well a map predicts rows that it was not fitted on: in total, along one axis, and how far v's own part goes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from stores.printed import Printed
from workbench.interventions.linear_maps import Reduced, SiteMap
from workbench.interventions.maps_folds import Cut, Fold, folds_of
from workbench.statistics import Interval
from workbench.statistics.skill import skill_interval


@dataclass(frozen=True, eq=False)
class Pair(Printed):
    """Paired rows of one site: reduced for fitting, and as they are for the test on prompts held out.

    `held_prompts` numbers the prompt of each held-out row. `cuts` split the training rows by prompt. `baseline` is the
    target mean that R² compares with: None for the training mean.
    """

    source: Reduced
    target: Reduced
    held_source: Float[np.ndarray, "held d_source"]
    held_target: Float[np.ndarray, "held d_target"]
    held_prompts: Int[np.ndarray, " held"]
    cuts: tuple[Cut, ...] = ()
    baseline: Float[np.ndarray, " d_target"] | None = None

    @cached_property
    def folds(self) -> list[Fold]:
        """The folds of the training rows: the same for every method and shuffle, so decomposed once."""
        return folds_of(self.source, self.cuts)

    @property
    def actual(self) -> Float[np.ndarray, "held d_target"]:
        """Held-out target rows from the mean that R² compares with."""
        return self.held_target - (self.target.mean if self.baseline is None else self.baseline)


@dataclass(frozen=True, eq=False)
class Explained(Printed):
    """Squared errors of held-out rows beside what they are compared with, summed by prompt."""

    error: Float[np.ndarray, " prompt"]
    total: Float[np.ndarray, " prompt"]

    @classmethod
    def of(cls, error: Float[np.ndarray, "held ..."], total: Float[np.ndarray, "held ..."], pair: Pair) -> Explained:
        """Rows of errors and of what they are compared with, squared and summed over axes and over a prompt's rows."""
        prompts = np.unique(pair.held_prompts, return_inverse=True)[1]
        by_prompt = (np.bincount(prompts, (each**2).reshape(len(each), -1).sum(axis=1)) for each in (error, total))
        return cls(*by_prompt)

    @property
    def r2(self) -> float:
        """1 - Σ error / Σ total; 0 where there is nothing to explain."""
        total = float(self.total.sum())
        return 1.0 - float(self.error.sum()) / total if total > 0 else 0.0

    def interval(self, level: float = 0.95) -> Interval | None:
        """Of R² over other prompts, this map given: jackknife over held-out prompts. None for fewer than 5 prompts, or
        where one prompt holds all there is to explain."""
        rest = self.total.sum() - self.total
        if len(rest) < 5 or not (rest > 0).all():
            return None
        return skill_interval(self.r2, 1 - (self.error.sum() - self.error) / rest, level)


def explained(fit: SiteMap, pair: Pair, along: Float[np.ndarray, " d_target"] | None = None) -> Explained:
    """Errors on held-out rows, in all directions of the target or along one of them."""
    error, actual = pair.held_target - fit.point(pair.held_source), pair.actual
    return Explained.of(error, actual, pair) if along is None else Explained.of(error @ along, actual @ along, pair)


def explained_by(
    fit: SiteMap, pair: Pair, v: Float[np.ndarray, " d_source"], image: Float[np.ndarray, " d_target"]
) -> Explained:
    """What the source's coordinate along the unit vector `v` explains of the target's along its unit `image`.

    Errors are compared with those of the mean, or with those of the same map from rows whose v is taken out (set to the
    training mean) where those are smaller. A rotation keeps other axes off v's image, and the mean it is; a map that
    lost v may send the little that is left along an axis that it predicts well from others: that is no merit of v.
    """
    taken_out = np.outer((pair.held_source - pair.source.mean) @ v, v)
    error = (pair.held_target - fit.point(pair.held_source)) @ image
    without = (pair.held_target - fit.point(pair.held_source - taken_out)) @ image
    actual = pair.actual @ image
    return Explained.of(error, without if (without**2).sum() < (actual**2).sum() else actual, pair)


def gain(fit: SiteMap, pair: Pair, v: Float[np.ndarray, " d_source"]) -> float:
    """How much longer the map makes the unit vector `v` than it makes the training rows (root mean square)."""
    length = np.linalg.norm(pair.source.scales)
    rows = np.linalg.norm(pair.source.scales[:, None] * fit.write(pair.source.right)) / length if length > 0 else 0.0
    return float(np.linalg.norm(fit.write(v)) / rows) if rows > 0 else 0.0
