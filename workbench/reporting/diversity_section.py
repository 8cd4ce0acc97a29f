"""Section: how varied the domains' rows are, and whether that goes with misalignment."""

from __future__ import annotations

from workbench.reporting.blocks import Block, Cell, Details, Note, Picture, Table, Text
from workbench.reporting.diversity_correlations import correlation_rows
from workbench.reporting.dose_section import named as metric_named
from workbench.reporting.predictor_rows import (
    ALPHA,
    FeatureNumbers,
    feature_table,
    features_of,
    named,
    p_text,
    points_of,
    reach_of,
    undefined_of,
    within,
)
from workbench.reporting.predictor_scatter import predictor_scatter
from workbench.reporting.summary import Summary

CONDITION = "diversity"


def diversities(summary: Summary) -> list[Block]:
    """Correlations with intervals, the two measures of the paper as scatter plots, every domain's values."""
    if not summary.where(metric="diversity"):
        return []
    reach, numbers = reach_of(summary, CONDITION), features_of(summary, CONDITION)
    words = [_found(numbers)] if numbers else []
    words += [_sizes(summary)] + ([str(reach.target)] if reach is not None else [])
    blocks: list[Block] = [Text("Topical diversity and misalignment", words)]
    if said := undefined_of(summary, CONDITION):
        blocks.append(Note(said, kind="warning"))
    if numbers and reach is not None:
        ordered = sorted(numbers, key=lambda one: one.name)
        n = reach.n or 0
        caption = (
            f"Rank correlations over {n} domains, 95\u00a0% intervals (Fisher's z); filled: 0 is outside. Dashed: the "
            f"least |r| that is significant, {reach.value:.2f}."
        )
        alt = "; ".join(f"{named(one.name)} {within(one.spearman)}" for one in ordered)
        rows = {named(one.name): one.spearman for one in ordered}
        blocks.append(Picture(correlation_rows(rows, reach.value), caption, f"{alt}."))
        blocks += [*_scatter(summary, numbers), *feature_table(numbers)]
    return [*blocks, _values(summary)]


def _found(numbers: list[FeatureNumbers]) -> str:
    best = max(numbers, key=lambda one: abs(one.spearman.value))
    clear = sum(one.spearman.test is not None and one.spearman.test.p <= ALPHA for one in numbers)
    chance = best.p_best
    said = "more than" if chance is not None and chance <= ALPHA else "no more than"
    return (
        f"Of {len(numbers)} measures, {clear} {'goes' if clear == 1 else 'go'} with misalignment at p ≤ {ALPHA} taken "
        f"alone, two-sided, since no sign was stated. The strongest, {named(best.name)} ({within(best.spearman)}), is "
        f"{said} the best of as many measures does by chance (p {p_text(chance)})."
    )


def _sizes(summary: Summary) -> str:
    found = summary.where(metric="diversity")
    sizes = sorted({int(r.companions.get("size") or 0) for r in found})
    grows = max((r.companions.get("grows") or 1.0 for r in found), default=1.0)
    return (
        f"All domains are measured at {', '.join(map(str, sizes))} rows. From half of them to all, a measure grows by "
        f"up to {grows - 1:.0%}: values at other sizes cannot be compared with these."
    )


def _scatter(summary: Summary, numbers: list[FeatureNumbers]) -> list[Block]:
    names = [one.name for one in numbers]
    shown = [name for name in ("vendi_1", "mean_distance") if name in names]
    if not shown:
        return []
    outcomes = summary.where(metric="predictor_outcome")
    metric = next((metric_named(r.detail) for r in outcomes if r.detail), "measured misalignment")
    of = {one.name: one for one in numbers}
    panels = {f"ρ {within(of[name].spearman)}": (named(name), points_of(summary, name)) for name in shown}
    rate = all(0 <= r.value <= 1 for r in outcomes)
    caption = f"A point a domain (n = {len(outcomes)}); bars: 95\u00a0% intervals of what was measured."
    alt = "; ".join(f"{named(name)}: {within(of[name].spearman)}" for name in shown)
    return [Picture(predictor_scatter(panels, ylabel=metric, rate=rate), caption, f"{alt}.")]


def _values(summary: Summary) -> Block:
    found = summary.where(metric="diversity")
    domains = list(dict.fromkeys(r.condition for r in found))
    measures = list(dict.fromkeys(str(r.detail) for r in found))
    of = {(r.condition, r.detail): r for r in found}
    rows: list[list[Cell]] = [[name, *(within(of.get((name, measure))) for measure in measures)] for name in domains]
    table = Table(["domain", *map(named, measures)], rows, "95\u00a0% intervals over the domain's rows (half-samples).")
    return Details("Every domain's diversity", [table])
