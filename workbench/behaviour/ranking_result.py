"""What a ranking of domains says: every domain's number and rank, every pair's test, and the ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stores.printed import Printed
from workbench.behaviour.table_summary import plain_entry
from workbench.statistics import Interval

BASE = "base"
FIRST_AND_LAST = "the first and the last of the ranking"  # what an entry of that pair says (`detail`)


@dataclass(frozen=True)
class RankedDomain(Printed):
    """One domain. `rank` is 1 for the worst; equal values share the mean of their ranks. `rank_interval` is the 95 %
    range over resampled questions and trainings, `rank_bounds` what the tests leave open: no domain told to be worse
    can stand below it. `by_seed`: the value of each adapter. `families`, `answers`, `unscored`, `dropped`,
    `companions`: see `Replicates`."""

    domain: str
    rank: float
    value: float
    interval: Interval
    rank_interval: tuple[float, float]
    rank_bounds: tuple[int, int]
    by_seed: Mapping[str, float]
    families: int
    answers: int
    unscored: int
    dropped: int
    companions: Mapping[str, float | None]

    def __str__(self) -> str:
        low, high = self.rank_bounds
        return f"{self.rank:g} ({low} to {high})  {self.domain}: {self.value:.3g} {self.interval}"


@dataclass(frozen=True)
class PairOfDomains:
    """`value` is one minus other, on the question families that both have. `p_holm` pays for all pairs."""

    one: str
    other: str
    value: float
    p: float
    p_holm: float
    method: str
    families: int


@dataclass(frozen=True)
class DomainRanking(Printed):
    """`domains` from the worst on. `ties` are runs of neighbours of which no two can be told apart at `alpha`, as long
    as they go; runs may overlap. `base` is the base model on the questions of all domains, with `from_base` the test of
    each domain against it (Holm over these); None and empty without it. `own` says whether a domain's own questions
    were left out."""

    _items = "domains"

    metric: str
    worst: str
    domains: tuple[RankedDomain, ...]
    pairs: tuple[PairOfDomains, ...]
    ties: tuple[tuple[str, ...], ...]
    alpha: float
    seeds: tuple[int, int]
    base: tuple[float, Interval] | None
    base_answers: int
    from_base: tuple[PairOfDomains, ...]
    judges: Mapping[str, str]
    own: str

    @property
    def values(self) -> dict[str, float]:
        return {one.domain: one.value for one in self.domains}

    def told_apart(self, one: str, other: str) -> bool:
        return any({pair.one, pair.other} == {one, other} and pair.p_holm <= self.alpha for pair in self.pairs)

    def __str__(self) -> str:
        told = sum(pair.p_holm <= self.alpha for pair in self.pairs)
        head = f"{self.metric}, worst first; {told} of {len(self.pairs)} pairs told apart (Holm, {self.alpha:g}); "
        lines = [head + self.own, *map(str, self.domains)]
        lines += [f"not told apart: {', '.join(run)}" for run in self.ties]
        lines += [] if self.base is None else [f"base: {self.base[0]:.3g} {self.base[1]}"]
        return "\n".join(lines)

    def entries(self, **facts: Any) -> list[dict[str, Any]]:
        """For `study.add`: value and rank of every domain, every pair with Holm's p, and the base."""
        return ranking_entries(self, **facts)


def ranking_entries(found: DomainRanking, **facts: Any) -> list[dict[str, Any]]:
    """See `DomainRanking.entries`."""
    place = {"split": "ranking", "modality": "all", "layer": None, "judges": dict(found.judges)}
    tied = {name: [run for run in found.ties if name in run] for name in found.values}
    out = []
    for one in found.domains:
        others = [name for name in _joined(tied[one.domain]) if name != one.domain]
        said = f"not told apart from {', '.join(others)}" if others else "told apart from its neighbours"
        same = {**place, "condition": one.domain, "clusters": one.families, "dropped": one.dropped}
        value = {**interval_facts(one.interval), "unscored": one.unscored, "companions": dict(one.companions)}
        value |= {"floor": None if found.base is None else found.base[0], "detail": f"{found.own}; {said}"}
        value |= {"series": {"by_seed": list(one.by_seed.values())}}
        out.append(plain_entry(found.metric, one.value, one.answers, {**same, **value, **facts}))
        method = "95 % over resampled question families and fine-tuning seeds"
        rank = {"interval": list(one.rank_interval), "interval_method": method}
        rank |= {"bounds": [float(end) for end in one.rank_bounds], "target": found.metric}
        detail = f"1 is worst; bounds: what the tests leave open (Holm, {found.alpha:g}); {said}"
        out.append(plain_entry("rank", one.rank, one.families, {**same, **rank, "detail": detail, **facts}))
    ends = {found.domains[0].domain, found.domains[-1].domain}
    for pair in (*found.pairs, *found.from_base):
        against = {"condition": f"{pair.one} - {pair.other}", "clusters": pair.families}
        against |= {"detail": FIRST_AND_LAST} if {pair.one, pair.other} == ends else {}
        against |= {"test": {"p": pair.p_holm, "method": f"Holm of the {pair.method}"}}
        out.append(plain_entry(found.metric, pair.value, pair.families, {**place, **against, **facts}))
    if found.base is not None:
        value, interval = found.base
        same = {**place, "condition": BASE, **interval_facts(interval), "detail": "no fine-tune, all questions"}
        out.append(plain_entry(found.metric, value, found.base_answers, {**same, **facts}))
    return out


def _joined(runs: Sequence[tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run))


def interval_facts(interval: Interval | None) -> dict[str, Any]:
    """As an entry states an interval; nothing of one that is infinite, or not there."""
    if interval is None or not np.isfinite([interval.low, interval.high]).all():
        return {}
    return {"interval": [interval.low, interval.high], "interval_method": interval.method}
