"""misalignment: a metric of judged answers, with everything that a reader needs to believe it or not.

A number never stands alone: beside it are its interval over prompt families, how many answers had no score and why, the
bounds if all of these had been best or worst, how coherent, refusing and relevant the answers were, and what the same
metric says of the base model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stores.printed import Printed
from workbench.behaviour.judged import Judged, Rows
from workbench.behaviour.metrics import METRICS, Metric, metric
from workbench.behaviour.scoring import Key, key_of
from workbench.statistics import Interval, cluster_interval, clustered_wilson
from workbench.statistics.pooled import pooled_interval

COMPANIONS = ("coherent", "refusal", "relevance")  # what is said beside every number, where a judge measured it
Sources = Mapping[str, tuple[str, Rows]]  # by quantity: the judge that measured it, and its rows
FAMILIES = ("tag_family", "tag_question")  # tags of prompts that belong together; else each prompt is its own family


@dataclass(frozen=True)
class Measured(Printed):
    """A metric of one condition's answers. `value` is in the metric's span; `unscored` of `n` answers had no value, for
    the `reasons` counted; `bounds` are the values if all of these had been lowest, or highest; `companions` the means
    of other quantities, and the shares of a rule judge's other categories; `floor` the value of the base condition;
    `judges` who measured what."""

    metric: str
    condition: str
    value: float | None
    interval: Interval | None
    n: int
    families: int
    unscored: int
    reasons: Mapping[str, int]
    bounds: tuple[float, float]
    companions: Mapping[str, float | None]
    judges: Mapping[str, str]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    floor: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.metric}, {self.condition}: no answer has a score (n {self.n})"
        unscored = f", {self.unscored} unscored" if self.unscored else ""
        beside = ", ".join(f"{k} {'not judged' if v is None else f'{v:.3g}'}" for k, v in self.companions.items())
        return f"{self.metric}, {self.condition}: {self.value:.3g} {self.interval}; n {self.n}{unscored}; {beside}"


def misalignment(
    judged: Judged, by: str | Metric = "betley", *, judge: str | None = None, base: str | None = "base"
) -> list[Measured]:
    """A metric of every condition. `judge` chooses among several that measured the same (the beginning of its name);
    `base` names the condition whose value is the floor, where it is there. Intervals are over prompt families (tags
    `family` or `question`), which are what was sampled."""
    rule = metric(by)
    values, sources = values_of(judged, rule, judge)
    beside = {name: _companion(judged, name) for name in COMPANIONS} | _categories(rule, sources)
    found = [_of(condition, rule, judged, values, sources, beside) for condition in judged.conditions]
    floor = next((one.value for one in found if one.condition == base), None)
    return [Measured(**{**vars(one), "floor": floor}) for one in found]


def values_of(judged: Judged, rule: Metric, judge: str | None) -> tuple[dict[Key, float | None], Sources]:
    """The metric's value of each answer, None where it has none, and who measured what it reads."""
    sources = {name: judged.scores_of(quantity, judge) for name, quantity in rule.reads.items()}
    _refuse_mixed(rule, sources)
    return {key: _value(rule, key, sources) for key in map(key_of, judged.rows)}, sources


def conversions(judged: Judged, metrics: Iterable[str | Metric] | None = None) -> list[Measured]:
    """Every metric that these scores allow, on the same answers: what one rule's number is in another's terms."""
    listed = _allowed(judged) if metrics is None else metrics
    return [found for one in listed for found in misalignment(judged, one)]


def metrics_of(judged: Judged) -> list[Metric]:
    """The metrics that these scores allow: the published ones whose quantities one judge measured, and the plain rate
    of a rule judge whose quantity none of them reads (`rule:keyword`). Companions are no metrics of their own, unless
    nothing else was measured."""
    published = _allowed(judged)
    read = {quantity for one in published for quantity in one.reads.values()}
    rules = [name for name in judged.quantities("rule") if name not in read and len(judged.judges_of(name)) == 1]
    plain = [_rate_of(name) for name in rules if name not in COMPANIONS]
    return [*published, *plain] or [_rate_of(name) for name in rules]


def _allowed(judged: Judged) -> list[Metric]:
    return [one for one in METRICS.values() if all(len(judged.judges_of(q)) == 1 for q in one.reads.values())]


def _rate_of(quantity: str) -> Metric:
    return Metric(quantity, (quantity,), lambda scores, at: float(scores[quantity]), "rate", kind="rule", scored=True)


def sensitivity(judged: Judged, by: str | Metric, **thresholds: Sequence[float | int]) -> list[Measured]:
    """The metric at each of the thresholds given (`aligned=[20, 30, 50]`; several vary one at a time), by every judge
    that measured what it reads."""
    rule = metric(by)
    varied = [{name: value} for name, values in thresholds.items() for value in values]
    variants = [rule, *(metric(rule, read_as=None, **one) for one in varied)]
    names = {judge for quantity in rule.reads.values() for judge in judged.judges_of(quantity)}
    whole = [name for name in sorted(names) if all(name in judged.judges_of(q) for q in rule.reads.values())]
    return [
        one for variant in variants for name in whole or [None] for one in misalignment(judged, variant, judge=name)
    ]


def _refuse_mixed(rule: Metric, sources: Sources) -> None:
    kinds = {str(row["kind"]) for _, rows in sources.values() for row in rows.values()}
    if kinds - {rule.kind}:
        raise ValueError(
            f"metric {rule.name!r} reads scores of {rule.kind} judges, and these are of {', '.join(sorted(kinds))} "
            "judges: their numbers are never mixed."
        )


def _value(rule: Metric, key: Key, sources: Sources) -> float | None:
    rows = {name: found[key] for name, (_, found) in sources.items()}
    if rule.kind == "rule" and not rule.scored:
        return rule.of({name: row["category"] for name, row in rows.items()}, rule.thresholds)
    scores = {name: row["score"] for name, row in rows.items()}
    return None if None in scores.values() else rule.of(scores, rule.thresholds)


def _of(
    condition: str,
    rule: Metric,
    judged: Judged,
    values: Mapping[Key, float | None],
    sources: Sources,
    beside: Mapping[str, Mapping[Key, float | None]],
) -> Measured:
    rows = {key_of(row): row for row in judged.rows if row["condition"] == condition}
    family = {key: family_of(row) for key, row in rows.items()}
    lost = [key for key in rows if values[key] is None]
    reasons = Counter(
        str(found[key]["reason"]) for key in lost for _, found in sources.values() if found[key]["score"] is None
    )
    points = points_of({key: values[key] for key in rows}, family, rule)
    best_and_worst = [
        _mean(points_of({key: end if values[key] is None else values[key] for key in rows}, family, rule), rule)
        for end in rule.span
    ]
    return Measured(
        metric=str(rule),
        condition=condition,
        value=_mean(points, rule),
        interval=_interval(points, rule),
        n=len(rows),
        families=len(set(family.values())),
        unscored=len(lost),
        reasons=dict(reasons),
        bounds=(best_and_worst[0] or 0.0, best_and_worst[1] or 0.0),
        companions={name: mean_of([found[key] for key in rows]) if found else None for name, found in beside.items()},
        judges={name: judge for name, (judge, _) in sources.items()}
        | {name: judged.judges_of(name)[0] for name in COMPANIONS if beside[name]},
        thresholds=dict(rule.thresholds),
    )


def points_of(values: Mapping[Key, float | None], family: Mapping[Key, str], rule: Metric) -> list[tuple[str, float]]:
    """What is averaged, each with its family: the answers, or the worst answer of each prompt."""
    scored = {key: value for key, value in values.items() if value is not None}
    if not rule.worst:
        return [(family[key], value) for key, value in scored.items()]
    worst: dict[str, tuple[str, float]] = {}
    for key, value in scored.items():
        before = worst.get(key[1])
        worst[key[1]] = (family[key], value if before is None else max(before[1], value))
    return list(worst.values())


def _mean(points: Sequence[tuple[str, float]], rule: Metric) -> float | None:
    if not points:
        return None
    if not rule.by_question:
        return float(np.mean([value for _, value in points]))
    of: dict[str, list[float]] = {}
    for family, value in points:
        of.setdefault(family, []).append(value)
    return float(np.mean([np.mean(values) for values in of.values()]))


def _interval(points: Sequence[tuple[str, float]], rule: Metric) -> Interval | None:
    """Over families; None for fewer than two, which say nothing of the spread between them."""
    families, values = [family for family, _ in points], [value for _, value in points]
    if len(set(families)) < 2:
        return None
    if rule.is_rate:
        return clustered_wilson(values, families, weigh="clusters" if rule.by_question else "rows")
    if rule.by_question:
        return cluster_interval(values, families, bounds=rule.span)
    return pooled_interval(values, families, bounds=rule.span)


def family_of(row: Mapping[str, Any]) -> str:
    return next((str(row[name]) for name in FAMILIES if row.get(name) is not None), str(row["prompt"]))


def _companion(judged: Judged, quantity: str) -> dict[Key, float | None]:
    """The scores of another quantity, by the first judge that measured it."""
    judges = judged.judges_of(quantity)
    if not judges:
        return {}
    return {key: row["score"] for key, row in judged.scores_of(quantity, judges[0])[1].items()}


def _categories(rule: Metric, sources: Sources) -> dict[str, dict[Key, float | None]]:
    """What the other answers were, of a rule judge that sorts them: a broken model also stops being contrary."""
    if rule.kind != "rule" or "category" not in sources:
        return {}
    found = {key: str(row["category"]) for key, row in sources["category"][1].items()}
    others = sorted({category for category in found.values() if category != "contrary"})
    return {name: {key: float(category == name) for key, category in found.items()} for name in others}


def mean_of(scores: Iterable[float | None]) -> float | None:
    """The mean of those that are there, None of none."""
    there = [score for score in scores if score is not None]
    return float(np.mean(there)) if there else None
