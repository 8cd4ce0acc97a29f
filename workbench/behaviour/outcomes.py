"""outcomes: what predictors are held against, oriented so that a higher number is a more misaligned domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from stores.printed import Printed
from workbench.behaviour.metrics import Metric, metric
from workbench.behaviour.ranking_result import DomainRanking
from workbench.statistics import Interval


@dataclass(frozen=True)
class Outcome(Printed):
    """A domain's misalignment with its interval; `by_seed`: that of each fine-tune."""

    value: float
    interval: Interval
    by_seed: Mapping[str, float]


def outcomes(ranking: DomainRanking, by: str | Metric) -> dict[str, Outcome]:
    """Domain -> its number in the ranking; of a metric whose low end is the bad one (`aligned_mean`), the top of its
    scale minus that number, since predictors' signs are stated for misalignment."""
    top = metric(by).span[1]
    found = {one.domain: Outcome(one.value, one.interval, one.by_seed) for one in ranking.domains}
    return found if ranking.worst == "high" else {name: _turned(one, top) for name, one in found.items()}


def _turned(one: Outcome, top: float) -> Outcome:
    ends = replace(one.interval, low=top - one.interval.high, high=top - one.interval.low)
    return Outcome(top - one.value, ends, {name: top - value for name, value in one.by_seed.items()})
