"""specificity: what an edit takes off a fine-tune's effect, beside what it takes off unrelated capability.

A model that an edit broke has lost its misbehaviour as well, and random directions suppress it too: so a share of the
effect means nothing without the share of capability that went with it, and without the same two shares of directions
that have no meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy import special

from stores.printed import Printed
from workbench.statistics import DRAWS_FOR_P, Interval, p_value
from workbench.statistics.intervals import t_quantile, without_spread

FEWEST = 3  # families: below that no interval of a ratio says anything


class NotMeasurable(ValueError):
    """There is no effect of the fine-tune, or no capability, that a share could be taken of."""


@dataclass(frozen=True)
class Families:
    """Means by question family of one model, or of several (draws): `values` [..., family]."""

    names: tuple[str, ...]
    values: Float[np.ndarray, "*draw family"]


@dataclass(frozen=True)
class Share(Printed):
    """A share of a whole with its 95 % interval over question families; `parts` are what each family says of it, whose
    mean is the share (the linearised ratio)."""

    value: float
    interval: Interval
    families: tuple[str, ...]
    parts: Float[np.ndarray, " family"]


@dataclass(frozen=True)
class Specificity(Printed):
    """How much of the gap between base and fine-tune an edit closes (1: all of it, below 0: it widens), how much of
    unrelated capability it loses (0: none), and `index`, the one minus the other: 1 for an edit that undoes the
    fine-tune and nothing else, about 0 for one that breaks as much as it mends.

    `lost` and `index` are None where no capability was asked about. `unedited` and `edited` are the plain means behind
    them: of the base, the fine-tune and the edited model on the questions of the effect, then of the fine-tune and the
    edited model on those of capability. `draws` are the same number (`index`, or `closed` where that is None) of
    control directions, by kind.
    """

    closed: Share
    lost: Share | None
    index: float | None
    interval: Interval | None
    means: tuple[float, ...]
    draws: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The index, or the share closed where there is none."""
        return self.closed.value if self.index is None else self.index

    @property
    def bounds(self) -> Interval:
        """The interval of `value`."""
        return self.closed.interval if self.interval is None else self.interval

    def percentile(self, kind: str) -> float:
        """Share of the controls of this kind that stay below; ties count half."""
        drawn = np.array(self.draws[kind])
        return float(np.mean(drawn < self.value) + np.mean(drawn == self.value) / 2)

    def p(self, kind: str) -> float | None:
        """One-sided permutation p against the controls of this kind; None with fewer than 99."""
        drawn = self.draws[kind]
        return p_value(self.value, list(drawn), "greater") if len(drawn) >= DRAWS_FOR_P else None

    def __str__(self) -> str:
        lost = "capability not asked" if self.lost is None else f"lost {self.lost.value:.2f}"
        ranks = [f"above {self.percentile(kind):.0%} of {len(drawn)} {kind}" for kind, drawn in self.draws.items()]
        said = f"{self.value:+.2f} [{self.bounds.low:.2f}, {self.bounds.high:.2f}]"
        return ", ".join([f"{said} (closed {self.closed.value:.2f}, {lost})", *ranks])


def gap_of(base: Families, tuned: Families, least: float | int = 0.0) -> Share:
    """The gap between base and fine-tune, as a share of itself; raises NotMeasurable where `specificity` would."""
    gap = _paired(tuned, base)
    return _share(gap, gap, tuned.names, "the fine-tune's effect", 0.95, least)


def specificity(
    base: Families,
    tuned: Families,
    edited: Families,
    capability: tuple[Families, Families] | None = None,
    *,
    controls: Mapping[str, tuple[Families, Families | None]] | None = None,
    least: float | int = 0.0,
    level: float = 0.95,
) -> Specificity:
    """The specificity index of one edit of a fine-tune, from means by question family.

    `base`, `tuned` and `edited` are of the questions of the effect (any number that the fine-tune moves: P(contrary),
    a judge's score), `capability` of the unedited and the edited fine-tune on questions that should stay answered
    (P(right)). closed = mean(tuned - edited) / mean(tuned - base), lost = mean(unedited - edited) / mean(unedited).
    Families are paired, and the two sets of questions are independent of each other: intervals are t of the linearised
    ratios, that of the index by Welch's degrees of freedom. `controls` are edits along other directions by kind, each
    with the values of every draw.

    Raises NotMeasurable where the gap is smaller than `least` or cannot be told from 0 on these families (a share of
    nothing), or the unedited fine-tune has no capability to lose; ValueError for families that do not pair.
    """
    gap = _paired(tuned, base)
    closed = _share(_paired(tuned, edited), gap, tuned.names, "the fine-tune's effect", level, least)
    lost = None
    means = [float(one.values.mean()) for one in (base, tuned, edited)]
    if capability is not None:
        before, after = capability
        lost = _share(_paired(before, after), before.values, before.names, "capability", level, 0.0)
        means += [float(before.values.mean()), float(after.values.mean())]
    index = None if lost is None else closed.value - lost.value
    drawn: dict[str, tuple[float, ...]] = {}
    for kind, (moved, kept) in (controls or {}).items():
        shares = _paired(tuned, moved).mean(axis=-1) / (tuned.values - base.values).mean()
        if capability is not None:
            if kept is None:
                raise ValueError(
                    f"the controls {kind!r} were not asked about capability, which the edit was: expected "
                    "the same questions of both."
                )
            shares = shares - _paired(capability[0], kept).mean(axis=-1) / capability[0].values.mean()
        drawn[kind] = tuple(float(one) for one in np.atleast_1d(shares))
    interval = None if lost is None or index is None else difference_interval(closed.parts, lost.parts, level)
    return Specificity(closed, lost, index, interval, tuple(means), drawn)


def difference_interval(
    first: Float[np.ndarray, " n"], second: Float[np.ndarray, " k"], level: float = 0.95
) -> Interval:
    """Welch's interval of mean(first) - mean(second) of independent linearised shares. A side whose families are all
    alike adds Wilson's bound within a width of 1 instead: never of zero width."""
    sides = [_moments(np.asarray(each, np.float64), level) for each in (first, second)]
    middle, variance = sides[0][0] - sides[1][0], sides[0][1] + sides[1][1]
    half = sides[0][3] + sides[1][3]
    if variance > 0:
        freedom = variance**2 / sum(square**2 / free for _, square, free, _ in sides if square > 0)
        half += t_quantile(freedom, level) * np.sqrt(variance)
    how = "t" if variance > 0 else "Wilson"
    method = f"{how} {level:.0%} of linearised shares over {len(first)} and {len(second)} families"
    return Interval(float(middle - half), float(middle + half), method)


def difference_p(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " k"]) -> float:
    """Two-sided p of Welch's t for mean(first) = mean(second); 1 where neither varies."""
    sides = [_moments(np.asarray(each, np.float64), 0.95) for each in (first, second)]
    middle, variance = sides[0][0] - sides[1][0], sides[0][1] + sides[1][1]
    if variance == 0:
        return 1.0
    freedom = variance**2 / sum(square**2 / free for _, square, free, _ in sides if square > 0)
    return float(2 * special.stdtr(freedom, -abs(middle) / np.sqrt(variance)))


def share_interval(parts: Float[np.ndarray, " family"], level: float = 0.95) -> Interval:
    """t interval of a linearised share over families; families all alike have Wilson's bound within a width of 1."""
    middle, square, freedom, half = _moments(np.asarray(parts, np.float64), level)
    half += t_quantile(freedom, level) * np.sqrt(square) if square > 0 else 0.0
    method = f"t {level:.0%}, linearised share" if square > 0 else f"Wilson {level:.0%}, all alike"
    return Interval(float(middle - half), float(middle + half), f"{method}, over {len(parts)} families")


def _moments(parts: Float[np.ndarray, " n"], level: float) -> tuple[float, float, int, float]:
    """Mean, squared error of the mean (0: all alike), degrees of freedom, and the half width where all are alike."""
    n, middle = len(parts), float(parts.mean())
    spread = float(parts.var(ddof=1)) if n > 1 else 0.0
    if n > 1 and spread > 1e-18 * max(1.0, middle**2):
        return middle, spread / n, n - 1, 0.0
    other = without_spread(0.0, n, level=level, bounds=(-1.0, 1.0))
    return middle, 0.0, n - 1, (other.high - other.low) / 2


def _share(
    part: Float[np.ndarray, " family"],
    whole: Float[np.ndarray, " family"],
    names: Sequence[str],
    of: str,
    level: float,
    least: float | int,
) -> Share:
    n = len(whole)
    if n < FEWEST:
        raise NotMeasurable(f"{of} was asked about in {n} question families: expected {FEWEST} or more.")
    low = share_interval(whole, level)
    middle = float(np.mean(whole))
    if low.low <= 0 <= low.high or abs(middle) < least:
        why = "which cannot be told from 0" if low.low <= 0 <= low.high else f"less than the {least:g} that it takes"
        raise NotMeasurable(
            f"{of} is {middle:.3g} [{low.low:.3g}, {low.high:.3g}] over {n} question families, {why}: there is nothing "
            "to take a share of."
        )
    value = float(np.mean(part)) / middle
    parts = value + (part - value * whole) / middle
    return Share(value, share_interval(parts, level), tuple(names), parts)


def _paired(first: Families, second: Families) -> Float[np.ndarray, "*draw family"]:
    if first.names != second.names:
        raise ValueError(
            f"{len(first.names)} and {len(second.names)} question families do not pair: expected the same ones."
        )
    return first.values - second.values
