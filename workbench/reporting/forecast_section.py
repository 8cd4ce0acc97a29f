"""Section: every domain foretold from the others before any fine-tuning, with intervals and the honest sentence."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.reporting.blocks import Block, Cell, Picture, Table, Text
from workbench.reporting.dose_section import named as metric_named
from workbench.reporting.forecast_intervals import ForecastRow, forecast_intervals
from workbench.reporting.predictor_rows import (
    FeatureNumbers,
    against_of,
    feature_table,
    features_of,
    named,
    p_of,
    p_text,
    undefined_of,
    within,
)
from workbench.reporting.summary import Result, Summary

CONDITION = "before"


def domain_forecasts(summary: Summary) -> list[Block]:
    """Forecast, mean and measured by domain; what was chosen; the features alone; what n domains can show."""
    coverage = next(iter(summary.where(metric="forecast_coverage")), None)
    numbers = features_of(summary, CONDITION)
    if coverage is None and not numbers and undefined_of(summary, CONDITION) is None:
        return []
    blocks: list[Block] = [Text("Misalignment foretold before fine-tuning", _words(summary, coverage))]
    if coverage is not None:
        blocks += _forecasts(summary, coverage)
    if numbers:
        words = [line for line in (_strongest(numbers), against_of(numbers)) if line]
        blocks += [Text("What was known beforehand, each alone", words, level=3), *feature_table(numbers, most=16)]
    return blocks


def _strongest(numbers: Sequence[FeatureNumbers]) -> str:
    best = min(numbers, key=lambda one: 1.0 if one.p_best is None else one.p_best)
    return (
        f"Of {len(numbers)} features the strongest in its stated direction is {named(best.name)}: rank correlation "
        f"{within(best.spearman)}, p {p_of(best.spearman)} alone, p {p_text(best.p_best)} as the best of all."
    )


def _words(summary: Summary, coverage: Result | None) -> list[str]:
    words = [str(coverage.target)] if coverage is not None else []
    if skill := next(iter(summary.where(metric="forecast_skill")), None):
        words.append(
            f"It chooses within each fold ({skill.target}). Skill: 1 minus squared errors over those of the mean."
        )
    if coverage is not None:
        ends = within(coverage)
        words.append(
            f"Share of domains inside their intervals: {ends}, over {coverage.n} domains that share their data, so the "
            "interval of this share is only roughly right."
        )
    if said := undefined_of(summary, CONDITION):
        words.append(said)
    return words


def _forecasts(summary: Summary, coverage: Result) -> list[Block]:
    outcomes = {r.condition: r for r in summary.where(metric="predictor_outcome")}
    means = {r.condition: r for r in summary.where(metric="forecast_of_mean")}
    made = [_row(r, means.get(r.condition), outcomes.get(r.condition)) for r in summary.where(metric="forecast")]
    known = sorted((row for row in made if row.measured is not None), key=lambda row: -(row.measured or 0.0))
    rows = [*known, *(row for row in made if row.measured is None)]
    rate = all(0 <= (row.measured or 0.0) <= 1 for row in rows)
    metric = next((metric_named(r.detail) for r in outcomes.values() if r.detail), "measured misalignment")
    level = str(coverage.detail)
    caption = (
        f"Every domain from the others ({level} intervals), beside the mean of the others with its own intervals, and "
        f"what was measured afterwards (95\u00a0% intervals)."
    )
    if len(known) < len(rows):
        caption += f" {', '.join(row.domain for row in rows[len(known) :])}: nobody fine-tuned on it."
    held = [row.domain for row in known if row.held]
    alt = f"{len(held)} of {len(known)} measured numbers lie inside: {', '.join(held) or 'none'}."
    columns = ["domain", "measured", f"foretold ({level})", "held", "mean of the others", "off by"]
    cells: list[list[Cell]] = [
        [row.domain, row.measured, _ends(row.predicted, row.interval), _said(row.held),
         _ends(row.of_mean, row.mean_interval), None if row.measured is None else row.measured - row.predicted]
        for row in rows
    ]  # fmt: skip
    figure = forecast_intervals(rows, xlabel=metric, rate=rate)
    width = next(iter(summary.where(metric="forecast_width")), None)
    said = "" if width is None else f"Mean width {width.value:.2f}, of the mean's intervals {width.floor or 0.0:.2f}."
    return [Picture(figure, caption, alt), Table(columns, cells, said)]


def _row(found: Result, mean: Result | None, outcome: Result | None) -> ForecastRow:
    return ForecastRow(
        found.condition,
        found.value,
        found.interval,
        None if mean is None else mean.value,
        None if mean is None else mean.interval,
        found.companions.get("measured"),
        None if outcome is None else outcome.interval,
    )


def _ends(value: float | None, ends: tuple[float, float] | None) -> str | None:
    if value is None:
        return None
    return f"{value:.2f}" + (" (no bounds)" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})")


def _said(held: bool | None) -> str | None:
    return None if held is None else "yes" if held else "no"
