"""Section: membership scores as predictors of a domain's misalignment, unfitted and fitted, and what n domains show."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workbench.reporting.blocks import Block, Cell, Details, Note, Picture, Table, Text
from workbench.reporting.dose_section import named as metric_named
from workbench.reporting.predictor_roc import RocCurve, predictor_roc, roc_curve
from workbench.reporting.predictor_rows import (
    ALPHA,
    FeatureNumbers,
    against_of,
    feature_table,
    features_of,
    named,
    p_of,
    p_text,
    points_of,
    reach_of,
    undefined_of,
    within,
)
from workbench.reporting.predictor_scatter import predictor_scatter
from workbench.reporting.summary import Result, Summary

CONDITION = "membership"
# Name -> the score raw and adjusted by the base; of arXiv:2602.00298's notebook the first two, which `wb.membership`
# adjusts in their usual orientation.
SCORES = {
    "min-k %": (r"paper_b_min_k_[\d.]+", r"adjusted_min_k_[\d.]+"),
    "zlib": (r"paper_b_zlib", r"adjusted_zlib"),
    "mean log p": (r"loss", r"adjusted_loss"),
    "min-k %++": (r"min_k_pp_[\d.]+", r"adjusted_min_k_pp_[\d.]+"),
    "ReCaLL": (r"recall", r"adjusted_recall"),
}
PUBLISHED = ("min-k %", "zlib")
KINDS = ("raw", "adjusted by the base")


def membership_predictors(summary: Summary) -> list[Block]:
    """Scatter and ROC raw and adjusted, all features with intervals, fitted predictors against their own shuffles."""
    reach = reach_of(summary, CONDITION)
    if reach is None:
        return []
    numbers = features_of(summary, CONDITION)
    words = [_found(numbers), *_published(numbers), against_of(numbers), _ceiling(reach), str(reach.target)]
    blocks: list[Block] = [Text("Membership scores as predictors", [line for line in words if line])]
    if said := undefined_of(summary, CONDITION):
        blocks.append(Note(said, kind="warning"))
    if not numbers:
        return blocks
    blocks += [*_scatters(summary, numbers), *_roc(summary, numbers), *feature_table(numbers)]
    return [*blocks, *_fitted(summary), *_pooled(summary)]


def _found(numbers: Sequence[FeatureNumbers]) -> str:
    if not numbers:
        return "No score could be held against misalignment."
    alone = sum(one.spearman.test is not None and one.spearman.test.p <= ALPHA for one in numbers)
    best = min(numbers, key=lambda one: 1.0 if one.p_best is None else one.p_best)
    chance = best.p_best
    many = f"Of {len(numbers)} scores, {alone} {'has' if alone == 1 else 'have'} a rank correlation with p ≤ {ALPHA}"
    verdict = "is more than the best of as many does by chance" if chance is not None and chance <= ALPHA else (
        "is no more than the best of as many does by chance"
    )  # fmt: skip
    return (
        f"{many} taken alone. The strongest in its stated direction, {named(best.name)} ({within(best.spearman)}), "
        f"{verdict} (p {p_text(chance)} over all {len(numbers)})."
    )


def _published(numbers: Sequence[FeatureNumbers]) -> list[str]:
    out = []
    for score in PUBLISHED:
        said = []
        for kind, one in _sides(numbers, score).items():
            area = "" if one.auroc is None else f", AUROC {within(one.auroc)}, p {p_of(one.auroc)}"
            said.append(f"{kind} {within(one.spearman)}, p {p_of(one.spearman)}{area}")
        if said:
            out.append(f"{score[:1].upper()}{score[1:]}, rank correlation in its stated direction: {'; '.join(said)}.")
    return out


def _ceiling(reach: Result) -> str:
    highest = reach.companions.get("highest_possible_r")
    if highest is None:
        return ""
    return f"By the intervals of the measured numbers themselves, no feature can be expected to pass |r| {highest:.2f}."


def _sides(numbers: Sequence[FeatureNumbers], score: str) -> dict[str, FeatureNumbers]:
    """The score raw and adjusted, as far as they have a correlation."""
    found = {}
    for kind, pattern in zip(KINDS, SCORES[score], strict=True):
        if (one := next((one for one in numbers if re.fullmatch(pattern, one.name)), None)) is not None:
            found[kind] = one
    return found


def _scatters(summary: Summary, numbers: Sequence[FeatureNumbers]) -> list[Block]:
    blocks: list[Block] = []
    outcomes = summary.where(metric="predictor_outcome")
    rate = all(0 <= r.value <= 1 for r in outcomes)
    metric = next((metric_named(r.detail) for r in outcomes if r.detail), "measured misalignment")
    for score in PUBLISHED:
        both = _sides(numbers, score)
        panels = {kind: (named(one.name), points_of(summary, one.name)) for kind, one in both.items()}
        if not panels:
            continue
        caption = (
            f"A point a domain (n = {len(outcomes)}); bars: 95\u00a0% intervals of what was measured, over questions "
            "and fine-tuning seeds. Nothing is fitted."
        )
        said = [f"{kind}: rank correlation {within(one.spearman)} as stated" for kind, one in both.items()]
        blocks.append(Picture(predictor_scatter(panels, ylabel=metric, rate=rate), caption, f"{'; '.join(said)}."))
    return blocks


def _roc(summary: Summary, numbers: Sequence[FeatureNumbers]) -> list[Block]:
    areas = [one.auroc for one in numbers if one.auroc is not None]
    if not areas:
        return []
    threshold = areas[0].companions.get("threshold") or 0.0
    ones = int(areas[0].companions.get("misaligned") or 0)
    panels: dict[str, dict[str, RocCurve]] = {}
    said = []
    for score in SCORES:
        for kind, one in _sides(numbers, score).items():
            points = points_of(summary, one.name)
            curve = roc_curve([(one.sign or 1) * p.value for p in points], [p.measured > threshold for p in points])
            if curve is not None:
                panels.setdefault(kind, {})[score] = curve
                said.append(f"{kind}, {score} AUROC {within(one.auroc)}")
    if not panels:
        return []
    others = len(points_of(summary, numbers[0].name)) - ones
    caption = (
        f"Which domains are misaligned (above {threshold:.3g}: {ones} of {ones + others}), told by single scores in "
        "their stated direction, unfitted. Grey: nine in ten random orders of the domains, point by point."
    )
    return [Picture(predictor_roc(panels, ones, others), caption, f"{'; '.join(said)}.")]


def _fitted(summary: Summary) -> list[Block]:
    found = summary.where(metric=("fitted_skill", "fitted_auroc"))
    if not found:
        return [Note("No fitted predictor: fewer than 5 domains, or fewer than 2 on a side.", kind="missing")]
    rows: list[list[Cell]] = []
    for result in found:
        what = {"fitted_skill": "skill", "fitted_auroc": "AUROC, pairs left out"}[result.metric]
        draws = result.control.draws if result.control else ()
        mean = sum(draws) / len(draws) if draws else None
        p = result.control.p if result.control else None
        rows.append(
            [f"{result.condition}, {result.detail}", what, within(result), mean, p_text(p), result.n, result.target]
        )
    clear = sum(r.control is not None and r.control.p is not None and r.control.p <= ALPHA for r in found)
    words = (
        "Regressions that choose their score and penalty within each fold. Each is compared with the same procedure on "
        "shuffled outcomes, never with 0 or 0.5: a prediction for a domain that was left out leans away from it. "
        f"{clear} of {len(found)} numbers have p ≤ {ALPHA} among their own shuffles, uncorrected."
    )
    if honest := next(iter(summary.where(metric="shuffled_below_05")), None):
        p = p_text(honest.test.p) if honest.test else "not stated"
        words += (
            f" In {honest.n} populations whose outcomes were dealt to the domains at random, {honest.value:.1%} of the "
            f"p lie below .05 (uniform: Kolmogorov-Smirnov p {p})."
        )
    columns = ["scores, model", "number", "value", "mean of its shuffles", "p", "domains", "by fold"]
    return [Text("Fitted predictors", [words], level=3), Table(columns, rows)]


def _pooled(summary: Summary) -> list[Block]:
    found = [r for r in summary.where(metric="pooled_auroc") if r.test is not None]
    if not found:
        return []
    texts = sum((r.companions.get("p_of_texts") or 0.0) <= ALPHA for r in found)
    domains = sum(r.test is not None and r.test.p <= ALPHA for r in found)
    words = (
        f"All {found[0].n} texts pooled, each with the label of its domain, as if each were a witness of its own: "
        f"{texts} of {len(found)} scores would have p ≤ {ALPHA}. The labels belong to {_domains(found[0])} domains; "
        f"dealt to these in all ways, {domains} of {len(found)} have p ≤ {ALPHA}."
    )
    rows: list[list[Cell]] = [
        [named(str(r.detail)), within(r), p_of(r), p_text(r.companions.get("p_of_texts")), r.n, _domains(r)]
        for r in found
    ]
    columns = ["score", "AUROC over texts", "p over domains", "p over texts (wrong)", "texts", "domains"]
    return [Text("Texts pooled over domains", [words], level=3), Details("All scores, pooled", [Table(columns, rows)])]


def _domains(result: Result) -> int:
    return int(result.companions.get("domains") or 0)
