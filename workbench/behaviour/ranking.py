"""rank_domains: fine-tuning domains by how far their adapters depart, with intervals, and ties where they are ties.

A ranking of means looks exact and hardly ever is: what stands next to each other can mostly not be told apart. So every
pair is tested, and a domain's rank has the range that the tests leave open.
"""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import numpy as np

from workbench.behaviour.judged import Judged
from workbench.behaviour.metrics import Metric, metric
from workbench.behaviour.ranking_result import BASE, DomainRanking, PairOfDomains, RankedDomain
from workbench.behaviour.ranking_tests import bootstrap_ranks, paired_test, spread_interval, spread_of
from workbench.behaviour.ranking_values import Groups, Replicates, Row, replicates_of
from workbench.statistics import Interval, holm
from workbench.statistics.values import midranks

LOW_IS_WORST = ("aligned_mean",)  # metrics of which a smaller number is the worse one


def rank_domains(
    judged: Judged,
    by: str | Metric,
    groups: Groups,
    *,
    judge: str | None = None,
    base: str | None = BASE,
    own: Literal["leave out", "keep"] = "leave out",
    tag: str = "domain",
    worst: Literal["high", "low"] | None = None,
    alpha: float = 0.05,
    resamples: int = 2000,
    draws: int = 9999,
    seed: int = 0,
) -> DomainRanking:
    """The domains of `groups` (domain -> conditions of its adapters, one a fine-tuning seed; `wb.domain_groups`) by the
    mean of a metric over question families and seeds, each weighing the same.

    Questions about the domain itself (its name in the prompt's tag `tag`) are left out unless `own="keep"`: what is
    ranked is the spread. All pairs are tested on the questions that both were asked (`paired_test`: the larger p of a t
    with the variance over questions and trainings, and of sign flips), with Holm's correction. Intervals and ranks
    regard fine-tuning seeds as replicates; with one seed they say nothing of other trainings, and state so. `worst` is
    the end of the scale that is ranked first, by default high ("low" for `aligned_mean`). Raises ValueError for fewer
    than 2 domains, conditions that are not there, or domains that share fewer than 2 question families.
    """
    rule = metric(by)
    if len(groups) < 2:
        raise ValueError(f"{len(groups)} domains cannot be ranked: expected 2 or more.")
    worst = worst or ("low" if rule.name in LOW_IS_WORST else "high")

    def asked(domain: str, row: Row) -> bool:
        return own == "keep" or str(row.get(f"tag_{tag}")) != domain

    found = replicates_of(judged, rule, groups, judge=judge, keep=asked)
    if few := [one for one in found.values() if len(one.families) < 2]:
        raise ValueError(
            f"{few[0].domain} has {len(few[0].families)} question families with scores under every seed: expected 2 or "
            "more. Ask about other domains as well, or keep a domain's own questions (own='keep')."
        )
    sign = -1.0 if worst == "high" else 1.0
    order = sorted(found, key=lambda name: (sign * float(found[name].values.mean()), name))
    listed = [found[name] for name in order]
    pairs = _pairs([(one, other) for one, other in combinations(listed, 2)], draws, seed)
    told = {_worse_first(pair, worst) for pair in pairs if pair.p_holm <= alpha}
    ranks = midranks(np.round([sign * one.values.mean() for one in listed], 12))
    drawn = bootstrap_ranks(listed, worst=worst, resamples=resamples, seed=seed)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0, method="inverted_cdf")
    ranked = tuple(
        _ranked(one, rule, float(ranks[at]), (float(low[at]), float(high[at])), _bounds(order, one.domain, told))
        for at, one in enumerate(listed)
    )
    plain = None if base is None or base not in judged.conditions else _base(judged, rule, base, judge)
    sources = {name: judged.scores_of(quantity, judge)[0] for name, quantity in rule.reads.items()}
    return DomainRanking(
        metric=str(rule),
        worst=worst,
        domains=ranked,
        pairs=pairs,
        ties=tied_runs(order, told),
        alpha=alpha,
        seeds=(min(one.seeds for one in listed), max(one.seeds for one in listed)),
        base=None if plain is None else (float(plain.values.mean()), _interval(plain, rule)),
        base_answers=0 if plain is None else plain.answers,
        from_base=() if plain is None else _pairs([(one, plain) for one in listed], draws, seed),
        judges=sources,
        own="own questions left out" if own == "leave out" else "own questions kept",
    )


def _base(judged: Judged, rule: Metric, base: str, judge: str | None) -> Replicates:
    return replicates_of(judged, rule, {BASE: [base]}, judge=judge)[BASE]


def _pairs(listed: list[tuple[Replicates, Replicates]], draws: int, seed: int) -> tuple[PairOfDomains, ...]:
    tests = [paired_test(one, other, draws=draws, seed=seed) for one, other in listed]
    corrected = holm([test.p for _, test in tests])
    return tuple(
        PairOfDomains(one.domain, other.domain, found.mean, test.p, float(p), test.method, found.families)
        for (one, other), (found, test), p in zip(listed, tests, corrected, strict=True)
    )


def _ranked(
    one: Replicates, rule: Metric, rank: float, within: tuple[float, float], bounds: tuple[int, int]
) -> RankedDomain:
    return RankedDomain(
        domain=one.domain,
        rank=rank,
        value=float(one.values.mean()),
        interval=_interval(one, rule),
        rank_interval=within,
        rank_bounds=bounds,
        by_seed=dict(zip(one.conditions, one.values.mean(axis=1).tolist(), strict=True)),
        families=len(one.families),
        answers=one.answers,
        unscored=one.unscored,
        dropped=one.dropped,
        companions=one.companions,
    )


def _interval(one: Replicates, rule: Metric) -> Interval:
    return spread_interval(spread_of(one.values), rate=rule.is_rate, bounds=rule.span, rows=one.answers)


def _worse_first(pair: PairOfDomains, worst: str) -> tuple[str, str]:
    return (pair.one, pair.other) if (pair.value > 0) == (worst == "high") else (pair.other, pair.one)


def _bounds(order: list[str], name: str, told: set[tuple[str, str]]) -> tuple[int, int]:
    """Ranks that the tests leave open: below those told to be worse, above those told to be better. Source: Mogstad et
    al. 2024, doi:10.1093/restud/rdad006."""
    worse, better = (sum(pair in told for pair in sides) for sides in
                     ([(other, name) for other in order], [(name, other) for other in order]))  # fmt: skip
    return 1 + worse, len(order) - better


def tied_runs(order: list[str], told: set[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Maximal runs of neighbours without a pair that is told apart."""
    apart = {frozenset(pair) for pair in told}
    found: list[tuple[str, ...]] = []
    reached = 0
    for first in range(len(order)):
        last = first + 1
        while last < len(order) and not any(frozenset((order[last], name)) in apart for name in order[first:last]):
            last += 1
        if last - first > 1 and last > reached:
            found.append(tuple(order[first:last]))
        reached = max(reached, last)
    return tuple(found)
