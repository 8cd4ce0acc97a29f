"""Categories of domains, and an order that was planted, beside a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from stores.printed import Printed
from workbench.behaviour.ranking_result import DomainRanking
from workbench.behaviour.table_summary import plain_entry
from workbench.statistics import Significance, holm, permutation_test

PLANTED = "pairs in the planted order"


@dataclass(frozen=True)
class CategoryTable(Printed):
    """`values` of the domains of each category; `tests` of each pair of categories with two domains or more, by
    permutation of the domains, with Holm's p beside."""

    metric: str
    values: Mapping[str, Mapping[str, float]]
    tests: Mapping[tuple[str, str], tuple[Significance, float]]

    def __str__(self) -> str:
        lines = [f"{name}: mean {_mean(own):.3g} of {len(own)} domains" for name, own in self.values.items()]
        lines += [f"{one} - {other} = {test.statistic:.3g}, p {p:.2g} (Holm of {test.method})"
                  for (one, other), (test, p) in self.tests.items()]  # fmt: skip
        return "\n".join([f"{self.metric} by category", *lines])

    def entries(self, **facts: Any) -> list[dict[str, Any]]:
        """For `study.add`: the mean of each category with its domains' values, and each test."""
        place = {"split": "categories", "modality": "all", "layer": None}
        out = []
        for name, own in self.values.items():
            said = {"condition": name, "clusters": len(own), "detail": ", ".join(own)}
            series = {"series": {"domains": list(own.values())}}
            out.append(plain_entry(self.metric, _mean(own), len(own), {**place, **said, **series, **facts}))
        for (one, other), (test, p) in self.tests.items():
            n = len(self.values[one]) + len(self.values[other])
            said = {"condition": f"{one} - {other}", "clusters": n}
            said |= {"test": {"p": p, "method": f"Holm of {test.method}"}}
            out.append(plain_entry(self.metric, test.statistic, n, {**place, **said, **facts}))
        return out


def by_category(ranking: DomainRanking, categories: Mapping[str, str]) -> CategoryTable:
    """The ranking's values by category (domain -> category: `wb.read_domains(...).categories`). The n of each test is
    the number of domains. Raises ValueError for domains without a category."""
    if lacking := [name for name in ranking.values if name not in categories]:
        raise ValueError(f"domain {lacking[0]!r} has no category: expected one for each of the ranking's domains.")
    values: dict[str, dict[str, float]] = {}
    for name, value in ranking.values.items():
        values.setdefault(categories[name], {})[name] = value
    several = [name for name, own in values.items() if len(own) > 1]
    pairs = list(combinations(several, 2))
    tests = [permutation_test(list(values[a].values()), list(values[b].values())) for a, b in pairs]
    corrected = holm([test.p for test in tests]).tolist() if tests else []
    return CategoryTable(ranking.metric, values, dict(zip(pairs, zip(tests, corrected, strict=True), strict=True)))


@dataclass(frozen=True)
class PlantedOrder:
    """Of `pairs` of domains from different tiers, `right` stand in the planted order and `told` are told apart in it;
    `wrong` are told apart in the other. p: how often shuffled tiers do as well."""

    right: int
    told: int
    wrong: int
    pairs: int
    p: float

    def __str__(self) -> str:
        return (
            f"{self.right} of {self.pairs} cross-tier pairs in the planted order (p {self.p:.2g} by shuffled tiers); "
            f"{self.told} told apart so, {self.wrong} told apart in the other"
        )

    def entries(self, **facts: Any) -> list[dict[str, Any]]:
        """For `study.add`: the share of cross-tier pairs in the planted order; the counts of pairs in `series`."""
        counts = {"right": [self.right], "told apart": [self.told], "told apart wrongly": [self.wrong]}
        said = {"split": "ranking", "modality": "all", "condition": PLANTED, "detail": str(self), "series": counts}
        said |= {"test": {"p": self.p, "method": "shuffled tiers"}}
        return [plain_entry(PLANTED, self.right / self.pairs, self.pairs, {**said, **facts})]


def planted_order(
    ranking: DomainRanking, tiers: Mapping[str, str], order: Sequence[str], *, draws: int = 9999, seed: int = 0
) -> PlantedOrder:
    """How well a ranking recovers tiers that were planted (domain -> tier; `order` from the worst tier on)."""
    level = np.array([order.index(tiers[one.domain]) for one in ranking.domains])
    rank = np.array([one.rank for one in ranking.domains])
    names = [one.domain for one in ranking.domains]
    pairs = [(a, b) for a, b in combinations(range(len(names)), 2) if level[a] != level[b]]
    if not pairs:
        raise ValueError("all ranked domains are of one tier: expected two or more tiers.")
    ordered = [(a, b) if level[a] < level[b] else (b, a) for a, b in pairs]
    apart = [ranking.told_apart(names[a], names[b]) for a, b in ordered]
    good = [bool(rank[a] < rank[b]) for a, b in ordered]
    rng = np.random.default_rng(seed)
    shuffled = [_right(rank, rng.permutation(level)) for _ in range(draws)]
    p = float((1 + np.count_nonzero(np.array(shuffled) >= sum(good))) / (1 + draws))
    told = [sum(a and g == way for a, g in zip(apart, good, strict=True)) for way in (True, False)]
    return PlantedOrder(sum(good), told[0], told[1], len(pairs), p)


def _mean(own: Mapping[str, float]) -> float:
    return float(np.mean(list(own.values())))


def _right(rank: np.ndarray, level: np.ndarray) -> int:
    """Cross-tier pairs in the planted order."""
    return int(np.count_nonzero((rank[:, None] < rank[None, :]) & (level[:, None] < level[None, :])))
