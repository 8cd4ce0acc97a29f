"""Section: trends over doses, each with its strength, its p and what the p is over."""

from __future__ import annotations

from workbench.reporting.blocks import Block, Cell, Table, Text
from workbench.reporting.dose_section import named
from workbench.reporting.summary import Result, Summary
from workbench.statistics import holm

TREND = "trend of "
ALPHA = 0.05


def trends(summary: Summary) -> list[Block]:
    """A table of all trends; the p of each also corrected for there being several (Holm)."""
    found = [(result, result.test.p) for result in summary.results if result.metric.startswith(TREND) and result.test]
    if not found:
        return []
    corrected = holm([p for _, p in found]).tolist()
    rising = sum(p <= ALPHA and result.value > 0 for (result, _), p in zip(found, corrected, strict=True))
    falling = sum(p <= ALPHA and result.value < 0 for (result, _), p in zip(found, corrected, strict=True))
    words = (
        f"Of {len(found)} trends, {rising} rise and {falling} fall with p ≤ {ALPHA} after Holm's correction for "
        f"{len(found)} tests; for the other {len(found) - rising - falling} no trend is shown, which does not show "
        "that there is none. Strength runs from −1 (every pair of doses falls in every unit) to 1 (every pair rises). "
        "A trend is no proof that each step goes up: the steps that go against it are counted."
    )
    rows = [_row(result, p, q) for (result, p), q in zip(found, corrected, strict=True)]
    columns = ["questions", "metric", "over", "strength", "p", "p, Holm", "units", "families", "what was tested"]
    return [Text("Trends over doses", [words]), Table(columns, rows)]


def _row(result: Result, p: float, corrected: float) -> list[Cell]:
    tested = (result.detail or "").partition(": ")[2] or (result.test.method if result.test else "")
    return [
        f"{result.split}, {result.modality}", named(result.metric.removeprefix(TREND)), result.condition, result.value,
        f"{p:.2g}", f"{corrected:.2g}", result.clusters, result.n, tested,
    ]  # fmt: skip
