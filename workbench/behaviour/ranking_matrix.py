"""domain_matrix: every domain's adapters on every domain's questions, where a ranking has one number a domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from stores.printed import Printed
from workbench.behaviour.judged import Judged
from workbench.behaviour.metrics import Metric, metric
from workbench.behaviour.ranking_result import BASE, interval_facts
from workbench.behaviour.ranking_tests import spread_interval, spread_of
from workbench.behaviour.ranking_values import Groups, Keep, replicates_of
from workbench.behaviour.table_summary import plain_entry
from workbench.statistics import Interval, Significance, sign_flip_test


@dataclass(frozen=True)
class MatrixCell:
    """`value` of the adapters of `domain` on the questions about `asked`; None where no answer has a score, and the
    interval is None with fewer than two question families."""

    domain: str
    asked: str
    value: float | None
    interval: Interval | None
    answers: int
    unscored: int
    families: int
    seeds: int


@dataclass(frozen=True)
class DomainMatrix(Printed):
    """`cells` by (domain, domain of the questions); the base model is the domain "base" where it was asked. `own`
    compares, over the domains, an adapter's value on its own questions with its mean on the others' (None where no
    domain has questions of its own)."""

    _items = "cells"

    metric: str
    domains: tuple[str, ...]
    asked: tuple[str, ...]
    cells: Mapping[tuple[str, str], MatrixCell]
    own: Significance | None
    own_domains: int
    judges: Mapping[str, str]

    @property
    def values(self) -> Float[np.ndarray, "domain asked"]:
        """NaN where no answer has a score."""
        rows = [[self.cells[domain, asked].value for asked in self.asked] for domain in self.domains]
        return np.array(rows, dtype=np.float64)

    def __str__(self) -> str:
        said = "no domain has questions of its own"
        if self.own is not None:
            said = f"own questions minus the others': {self.own.statistic:+.3g}, {self.own}"
        return f"{self.metric}, {len(self.domains)} domains on the questions of {len(self.asked)}; {said}"

    def entries(self, **facts: Any) -> list[dict[str, Any]]:
        """For `study.add`: one number a cell (`target`: the domain of the questions), and the comparison of own
        questions with the others'."""
        place = {"split": "question domains", "modality": "all", "layer": None, "judges": dict(self.judges)}
        out = []
        for cell in self.cells.values():
            seeds = "no fine-tune" if cell.domain == BASE else f"{cell.seeds} fine-tuning seeds"
            same = {"condition": cell.domain, "target": cell.asked, "clusters": cell.families, "detail": seeds}
            same |= {"unscored": cell.unscored, **interval_facts(cell.interval)}
            out.append(plain_entry(self.metric, cell.value, cell.answers, {**place, **same, **facts}))
        if self.own is not None:
            test = {"test": {"p": self.own.p, "method": self.own.method}, "clusters": self.own_domains}
            said = {"condition": "own questions - others", **test}
            out.append(plain_entry(self.metric, self.own.statistic, self.own_domains, {**place, **said, **facts}))
        return out


def domain_matrix(
    judged: Judged,
    by: str | Metric,
    groups: Groups,
    *,
    judge: str | None = None,
    base: str | None = BASE,
    tag: str = "domain",
    asked: Sequence[str] | None = None,
    draws: int = 9999,
    seed: int = 0,
) -> DomainMatrix:
    """A metric of each domain's adapters (`groups` as in `rank_domains`) on the questions of each domain, which is the
    prompts' tag `tag`; `asked` chooses and orders these. Intervals regard question families and fine-tuning seeds.
    Raises ValueError where no prompt has the tag."""
    rule = metric(by)
    there = list(dict.fromkeys(str(row[f"tag_{tag}"]) for row in judged.rows if row.get(f"tag_{tag}") is not None))
    if not there:
        raise ValueError(f"no prompt has the tag {tag!r}: expected the domain that each question is about.")
    if strange := [name for name in asked or () if name not in there]:
        raise ValueError(f"no question is about {strange[0]!r}: expected some of {', '.join(there)}.")
    columns = tuple(asked or there)
    rows = dict(groups) | ({BASE: [base]} if base is not None and base in judged.conditions else {})
    cells = {}
    for question in columns:
        found = replicates_of(judged, rule, rows, judge=judge, keep=_about(question, tag))
        for domain, one in found.items():
            scored = len(one.families) > 0
            spread = spread_of(one.values) if len(one.families) > 1 else None
            interval = spread and spread_interval(spread, rate=rule.is_rate, bounds=rule.span, rows=one.answers)
            value = float(one.values.mean()) if scored else None
            counts = (one.answers, one.unscored, len(one.families), one.seeds)
            cells[domain, question] = MatrixCell(domain, question, value, interval, *counts)
    ordered = {(domain, question): cells[domain, question] for domain in rows for question in columns}
    gaps = _own_minus_others(ordered, list(groups), columns)
    return DomainMatrix(
        metric=str(rule),
        domains=tuple(groups),
        asked=columns,
        cells=ordered,
        own=sign_flip_test(gaps, draws=draws, seed=seed) if gaps else None,
        own_domains=len(gaps),
        judges={name: judged.scores_of(quantity, judge)[0] for name, quantity in rule.reads.items()},
    )


def _about(question: str, tag: str) -> Keep:
    return lambda _, row: str(row.get(f"tag_{tag}")) == question


def _own_minus_others(
    cells: Mapping[tuple[str, str], MatrixCell], domains: Sequence[str], asked: Sequence[str]
) -> list[float]:
    out = []
    for domain in (name for name in domains if name in asked):
        own = cells[domain, domain].value
        others = [value for name in asked if name != domain and (value := cells[domain, name].value) is not None]
        if own is not None and others:
            out.append(own - float(np.mean(others)))
    return out
