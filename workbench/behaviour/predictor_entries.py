"""Predictors, diversity and forecasts as entries of `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.behaviour.diversity import Diversity
from workbench.behaviour.domain_forecast import DomainForecasts, forecast_sentence
from workbench.behaviour.fitted_predictors import FittedPredictor, ShuffledPopulations
from workbench.behaviour.predictor_table import PredictorTable
from workbench.behaviour.predictors import Correlated, PredictorRanking
from workbench.behaviour.table_summary import plain_entry
from workbench.statistics.fitted_tests import AgainstShuffles
from workbench.statistics.intervals import Interval

Entry = dict[str, Any]
DOMAIN, PREDICTOR, FORECAST = "domain", "predictor", "forecast"  # what `split` says of these entries


def table_points(table: PredictorTable, *, of: str | None = None) -> list[Entry]:
    """What a scatter plot needs: `predictor_outcome`, one a domain (condition), and `predictor_feature`, one a domain
    and feature (detail). `of`: the metric that was measured."""
    out = []
    for place, domain in enumerate(table.domains):
        same = {"split": DOMAIN, "modality": "all", "condition": domain}
        seeds, interval = table.seeds[place], table.intervals[place]
        facts = {**same, **_within(interval), "detail": of}
        out.append(plain_entry("predictor_outcome", float(table.measured[place]), seeds, facts))
        for feature, value in zip(table.features, table.values[place].tolist(), strict=True):
            facts = {**same, "detail": feature.name, "target": feature.source}
            out.append(plain_entry("predictor_feature", value, seeds, facts))
    return out


def predictor_entries(found: PredictorRanking, *, condition: str = "measured") -> list[Entry]:
    """`predictor_pearson`, `predictor_spearman` and `predictor_auroc`, each of one feature (detail) times its stated
    sign, whose source is the target; companions: the sign, p in the stated direction, p of the best of all. Then
    `predictor_critical_r`, with the sentence on what n domains can show as its target, and what has no correlation."""
    same = {"split": PREDICTOR, "modality": "all", "condition": condition}
    n, out = found.table.n, []
    for each in found.ranked:
        here = {**same, "detail": each.feature.name, "target": each.feature.source}
        for kind, r in (("pearson", each.pearson), ("spearman", each.spearman)):
            out.append(plain_entry(f"predictor_{kind}", r.r, n, {**here, **_of_correlation(r, each.feature.sign)}))
        if (told := each.told) is not None:
            facts = {**here, **_within(told.interval), "test": {"p": told.p, "method": told.method}}
            facts |= {"companions": {"threshold": found.threshold, "misaligned": float(told.misaligned)}}
            out.append(plain_entry("predictor_auroc", told.auroc, n, facts))
    ceiling = None if found.table.reliability is None else float(np.sqrt(found.table.reliability))
    facts = {**same, "target": str(found.reach), "companions": {"highest_possible_r": ceiling}}
    out.append(plain_entry("predictor_critical_r", found.reach.critical, n, facts))
    for name, why in found.undefined.items():
        out.append(plain_entry("predictor_undefined", 1.0, n, {**same, "detail": name, "target": why}))
    return out


def fitted_entries(found: FittedPredictor, *, condition: str = "measured") -> list[Entry]:
    """`fitted_skill` and `fitted_auroc` with their own shuffles as control, and `fitted_prediction`, one a domain (its
    target: the condition of the others); `detail` is the model."""
    same = {"split": PREDICTOR, "modality": "all", "detail": found.model}
    facts = {**same, "condition": condition, "target": _chosen(found.chosen)}
    out = [
        plain_entry(
            "fitted_skill", found.skill.value, found.n, {**facts, **_within(found.interval), **_shuffles(found.skill)}
        )
    ]
    if found.auroc is not None:
        beside = {"companions": {"threshold": found.threshold}}
        out.append(
            plain_entry("fitted_auroc", found.auroc.value, found.n, {**facts, **_shuffles(found.auroc), **beside})
        )
    for domain, value in found.predicted.items():
        out.append(plain_entry("fitted_prediction", value, 1, {**same, "condition": domain, "target": condition}))
    return out


def shuffled_entries(found: ShuffledPopulations, *, condition: str = "measured") -> list[Entry]:
    """`shuffled_below_05`: the share of shuffled populations with p below .05, with the p of uniformity."""
    test = {"p": found.uniform, "method": "Kolmogorov-Smirnov, p of shuffled populations against uniform"}
    facts = {
        "split": PREDICTOR,
        "modality": "all",
        "condition": condition,
        "test": test,
        "series": {"p": list(found.p)},
    }
    return [plain_entry("shuffled_below_05", found.below, len(found.p), facts)]


def diversity_entries(found: Sequence[Diversity]) -> list[Entry]:
    """One entry a domain (condition) and measure (detail); companions: at how many texts, and how much the value grew
    from half of them."""
    out = []
    for each in found:
        facts = {"split": DOMAIN, "modality": "all", "condition": each.domain, "detail": each.measure}
        beside = {"companions": {"size": float(each.size), "grows": each.grows}}
        out.append(plain_entry("diversity", each.value, each.texts, {**facts, **_within(each.interval), **beside}))
    return out


def domain_forecast_entries(found: DomainForecasts) -> list[Entry]:
    """`forecast`, one a domain (condition; new ones have no measured value among the companions), `forecast_of_mean`
    beside it, `forecast_skill` with its shuffles and what was chosen (none where all domains measure the same),
    `forecast_coverage` with
    the sentence as its target, and `forecast_width`, whose floor is the width of the mean's intervals."""
    same = {"split": FORECAST, "modality": "all", "detail": f"{found.method} {found.level:.0%}"}
    n, out = len(found.domains), []
    for each in (*found.domains, *found.new):
        here = {**same, "condition": each.domain}
        beside = {"companions": {"measured": each.measured}}
        out.append(plain_entry("forecast", each.predicted, n, {**here, **_within(each.interval), **beside}))
        out.append(plain_entry("forecast_of_mean", each.of_mean, n, {**here, **_within(each.mean_interval)}))
    over = {**same, "condition": "measured"}
    if found.skill is not None:
        facts = {**over, **_within(found.skill_within), **_shuffles(found.skill), "target": _chosen(found.chosen)}
        out.append(plain_entry("forecast_skill", found.skill.value, n, facts))
    share = {**over, **_within(found.coverage_interval), "target": forecast_sentence(found)}
    out.append(plain_entry("forecast_coverage", found.covered / n, n, share))
    if np.isfinite(found.width + found.mean_width):
        out.append(plain_entry("forecast_width", found.width, n, {**over, "floor": found.mean_width}))
    return out


def _of_correlation(found: Correlated, sign: int) -> dict[str, Any]:
    beside = {"sign": float(sign), "p_signed": found.p_signed, "p_best": found.p_best}
    return {**_within(found.interval), "test": {"p": found.p, "method": found.method}, "companions": beside}


def _chosen(folds: Mapping[str, int]) -> str:
    return f"chosen in folds: {', '.join(f'{name} {count}' for name, count in folds.items())}"


def _shuffles(found: AgainstShuffles) -> dict[str, Any]:
    draws = list(found.null)
    return {"control": {"kind": "shuffled", "N": len(draws), "p": found.p, "draws": draws}}


def _within(interval: Interval | None) -> dict[str, Any]:
    """Infinite ends are no JSON: such an interval is left to its method, which says why there is none."""
    if interval is None:
        return {}
    finite = bool(np.isfinite([interval.low, interval.high]).all())
    ends = {"interval": [interval.low, interval.high]} if finite else {}
    return {**ends, "interval_method": interval.method}
