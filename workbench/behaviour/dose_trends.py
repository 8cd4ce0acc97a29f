"""dose_trend: does a metric of judged answers rise with the dose (an adapter's rank, a share of harmful rows)?"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from stores.printed import Printed
from workbench.behaviour.judged import Judged
from workbench.behaviour.measured import family_of, points_of, values_of
from workbench.behaviour.metrics import Metric, metric
from workbench.behaviour.scoring import key_of
from workbench.statistics import Tail, Trend, dose_table, page_trend


@dataclass(frozen=True)
class DoseTrend(Printed):
    """The trend of a metric; `over` is what was taken as its items: "families" of prompts or "replicates". `dropped`
    prompt families had no score in some condition, and count in none."""

    metric: str
    trend: Trend
    over: str
    families: int
    dropped: int
    judges: Mapping[str, str]

    def __str__(self) -> str:
        dropped = f", {self.dropped} without a score somewhere left out" if self.dropped else ""
        return f"{self.metric} over doses, by {self.over}: {self.trend}; {self.families} families{dropped}"


def dose_trend(
    judged: Judged,
    by: str | Metric,
    doses: Mapping[str, float | int],
    *,
    replicates: Mapping[str, Hashable] | None = None,
    judge: str | None = None,
    tail: Tail = "two-sided",
    alpha: float = 0.05,
    draws: int = 9999,
    seed: int = 0,
) -> DoseTrend:
    """Page's test that a metric changes with the dose. `doses` names the conditions that are compared and the dose of
    each; conditions of one dose are averaged. Each prompt family weighs the same.

    Without `replicates` the items are prompt families, and the claim is about these adapters: other prompts would show
    it too. With them (condition -> fine-tuning seed) the items are the seeds, and the claim is about the dose: other
    trainings would show it too. Raises ValueError for conditions that are not there, and as `page_trend` does.
    """
    if strange := [name for name in doses if name not in judged.conditions]:
        raise ValueError(f"there is no condition {strange[0]!r}: expected some of {', '.join(judged.conditions)}.")
    if replicates is not None and (lacking := [name for name in doses if name not in replicates]):
        raise ValueError(f"condition {lacking[0]!r} has no replicate: expected one for each condition with a dose.")
    rule = metric(by)
    values, sources = values_of(judged, rule, judge)
    means = {}
    for condition in doses:
        family = {key_of(row): family_of(row) for row in judged.rows if row["condition"] == condition}
        scores: dict[str, list[float]] = {}
        for name, value in points_of({key: values[key] for key in family}, family, rule):
            scores.setdefault(name, []).append(value)
        means[condition] = {name: float(np.mean(each)) for name, each in scores.items()}
    everywhere = [name for name in next(iter(means.values()), {}) if all(name in each for each in means.values())]
    if not everywhere:
        raise ValueError("no prompt family has a score in every condition: expected answers to the same prompts.")
    if replicates is None:
        cells = [(means[name][family], doses[name], family) for name in doses for family in everywhere]
    else:
        cells = [
            (float(np.mean([means[name][family] for family in everywhere])), doses[name], replicates[name])
            for name in doses
        ]
    table, at, _ = dose_table([cell[0] for cell in cells], [cell[1] for cell in cells], [cell[2] for cell in cells])
    trend = page_trend(table, at, tail=tail, alpha=alpha, bounds=rule.span, draws=draws, seed=seed)
    return DoseTrend(
        metric=str(rule),
        trend=trend,
        over="families" if replicates is None else "replicates",
        families=len(everywhere),
        dropped=len(set().union(*means.values())) - len(everywhere),
        judges={name: judge for name, (judge, _) in sources.items()},
    )
