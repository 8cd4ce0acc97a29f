"""forecast_domains: a domain's misalignment before anything is fine-tuned on it, with an interval that says what few
domains can promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stores.printed import Printed
from workbench.behaviour.fitted_predictors import PENALTIES, chosen_names
from workbench.behaviour.predictor_table import PredictorTable
from workbench.statistics import wilson
from workbench.statistics.conformal import Method, jackknife_interval
from workbench.statistics.fitted_tests import AgainstShuffles, against_shuffles, left_out_skills
from workbench.statistics.intervals import Interval
from workbench.statistics.left_out import Candidate, LeftOut, candidates_of, left_out, one_left_out, pairs_left_out
from workbench.statistics.reach import Reach, reach
from workbench.statistics.shuffles import shuffled_columns
from workbench.statistics.skill import left_out_skill
from workbench.statistics.values import Bounds

MEAN_ALONE = (Candidate((), 1.0),)


@dataclass(frozen=True)
class DomainForecast:
    """One domain, foretold from the others. `measured` is None for a new one; `of_mean`: what the mean of the others
    foretells, with its own interval, the forecast to beat."""

    domain: str
    predicted: float
    interval: Interval
    of_mean: float
    mean_interval: Interval
    measured: float | None = None

    @property
    def covered(self) -> bool | None:
        return None if self.measured is None else self.measured in self.interval


@dataclass(frozen=True)
class DomainForecasts(Printed):
    """Every domain foretold from the others. `skill` against the mean of the others, with the interval `skill_within`
    and its own shuffles (both None where all domains measure the same); `chosen`: features -> folds; `level`: what the
    intervals are for; `new`: forecasts of domains that were not measured."""

    _items = "domains"

    domains: tuple[DomainForecast, ...]
    features: tuple[str, ...]
    level: float
    method: Method
    skill: AgainstShuffles | None
    skill_within: Interval | None
    chosen: Mapping[str, int]
    reach: Reach
    new: tuple[DomainForecast, ...] = ()

    @property
    def covered(self) -> int:
        return sum(bool(each.covered) for each in self.domains)

    @property
    def coverage_interval(self) -> Interval:
        """Of the share covered; the domains share their data, so it is only roughly right."""
        found = wilson(self.covered, len(self.domains))
        return Interval(found.low, found.high, f"{found.method} over {len(self.domains)} domains, as if independent")

    @property
    def width(self) -> float:
        """Mean width of the intervals; `mean_width` is that of the mean's."""
        return float(np.mean([each.interval.high - each.interval.low for each in self.domains]))

    @property
    def mean_width(self) -> float:
        return float(np.mean([each.mean_interval.high - each.mean_interval.low for each in self.domains]))

    def __str__(self) -> str:
        return forecast_sentence(self)


def forecast_domains(
    table: PredictorTable,
    *,
    new: Mapping[str, Mapping[str, float | int]] | None = None,
    level: float = 0.8,
    method: Method = "jackknife+",
    most: int = 1,
    penalties: Sequence[float | int] = PENALTIES,
    bounds: Bounds | None = (0.0, 1.0),
    draws: int = 999,
    seed: int = 0,
) -> DomainForecasts:
    """Foretells every domain from the others, and `new` ones (domain -> feature -> value) from all, by ridge regression
    on features known before the fine-tuning, chosen in each fold as in `fitted_predictor`.

    Intervals are jackknife+ (or minmax) over the domains that the forecast was made from: with 11 domains the 10 others
    bound at most 10 / 11 = 90.9 %, and higher levels give infinite intervals. Forecasts and intervals are cut at
    `bounds`, the ends of the measure's scale (None: none); the skill is of forecasts that were not cut. Raises
    ValueError for features that need a fine-tuned model (their names must begin with "before:", or be of the data
    alone), and for fewer than 6 domains.
    """
    if late := [each.name for each in table.features if not each.before]:
        raise ValueError(
            f"feature {late[0]!r} may have been measured on a fine-tuned model, which a forecast cannot know: "
            f"measure it before the fine-tuning and name it 'before:{late[0]}'."
        )
    if table.n < 6:
        raise ValueError(f"forecast_domains needs at least 6 domains to fit without two of them: {table.n} came.")
    candidates = candidates_of(table.values.shape[1], most=most, penalties=penalties)
    asked = None if not new else np.array([[_value(new, name, each.name) for each in table.features] for name in new])
    own, of_mean = (_Fits.made(table, each, asked) for each in (candidates, MEAN_ALONE))
    made = []
    for place, domain in enumerate([*table.domains, *map(str, new or {})]):
        known = place < table.n
        (value, interval), (plain, wide) = (each.forecast(place, level, method, bounds) for each in (own, of_mean))
        made.append(
            DomainForecast(domain, value, interval, plain, wide, float(table.measured[place]) if known else None)
        )
    skill = within = None
    if table.spread:
        columns, exact = shuffled_columns(table.measured, draws=draws, seed=seed)
        skill = against_shuffles(left_out_skills(table.values, columns, candidates), exact=exact)
        within = left_out_skill(table.values, table.measured, candidates).interval()
    names = tuple(each.name for each in table.features)
    chosen = chosen_names(table, candidates, own.once.chosen[:, 0])
    able = reach(table.n, max(1, len(names)))
    return DomainForecasts(
        tuple(made[: table.n]), names, level, method, skill, within, chosen, able, tuple(made[table.n :])
    )


def forecast_sentence(found: DomainForecasts) -> str:
    """What was found, and what this number of domains can show, in words."""
    n = len(found.domains)
    if found.skill is None or found.skill_within is None:
        judged = "all domains measure the same, so nothing could be foretold"
    else:
        low, high = found.skill_within.low, found.skill_within.high
        size = f"skill {found.skill.value:.2f} [{low:.2f}, {high:.2f}] against the mean of the other domains"
        verdict = "better than the mean" if low > 0 else "worse than the mean" if high < 0 else "not told from the mean"
        shuffled = f"its shuffles have {found.skill.null_mean:.2f} on average, p {found.skill.p:.3g}"
        judged = f"{verdict}: {size}; {shuffled}"
    wide = f"intervals for {found.level:.0%} held {found.covered} of {n} domains, mean width {found.width:.2f} against "
    return f"Forecast before fine-tuning, {judged}; {wide}{found.mean_width:.2f} of the mean's. {found.reach}"


@dataclass(frozen=True)
class _Fits:
    """All fits without one and without two domains; rows of new domains are asked in each."""

    once: LeftOut
    twice: LeftOut
    all_in: LeftOut | None
    measured: np.ndarray

    @classmethod
    def made(cls, table: PredictorTable, candidates: Sequence[Candidate], new: np.ndarray | None) -> _Fits:
        x, y, n = table.values, table.measured[:, None], table.n
        all_in = None if new is None else left_out(x, y, [()], candidates, new)
        once = left_out(x, y, one_left_out(n), candidates, new)
        return cls(once, left_out(x, y, pairs_left_out(n), candidates), all_in, table.measured)

    @property
    def errors(self) -> np.ndarray:
        return self.measured - self.once.predicted[:, 0, 0]

    def forecast(self, place: int, level: float, method: Method, bounds: Bounds | None) -> tuple[float, Interval]:
        n = len(self.measured)
        if place >= n:
            assert self.all_in is not None
            value = self.all_in.predicted[0, place - n, 0]
            found = jackknife_interval(self.once.predicted[:, 1 + place - n, 0], self.errors, level, method)
        else:
            value, said, off = self.once.predicted[place, 0, 0], [], []
            for pair, made in zip(pairs_left_out(n), self.twice.predicted[:, :, 0], strict=True):
                if place in pair:
                    here = pair.index(place)
                    said.append(made[here])
                    off.append(self.measured[pair[1 - here]] - made[1 - here])
            found = jackknife_interval(np.array(said), np.array(off), level, method)
        if bounds is None:
            return float(value), found
        low, high = (float(np.clip(end, *bounds)) for end in (found.low, found.high))
        return float(np.clip(value, *bounds)), Interval(low, high, found.method)


def _value(new: Mapping[str, Mapping[str, float | int]], domain: str, feature: str) -> float:
    if feature not in new[domain]:
        raise ValueError(
            f"forecast_domains: the new domain {domain!r} lacks the feature {feature!r}: expected what "
            "the others were fitted on."
        )
    return float(new[domain][feature])
