"""Section: paired differences, each on the same prompts, with interval, p and what had no pair."""

from __future__ import annotations

from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.dose_section import OVER, is_rate, named
from workbench.reporting.paired_differences import Gap, paired_differences
from workbench.reporting.summary import Result, Summary
from workbench.statistics import holm

SHOWN = 4  # panels


def differences(summary: Summary) -> list[Block]:
    """Differences at doses: figures of all but those from the base, which the doses' own figure has; a table of all."""
    found = [
        result
        for result in summary.results
        if " - " in result.condition and result.test is not None and (result.detail or "").startswith(OVER)
    ]
    if not found:
        return []
    corrected = holm([result.test.p for result in found if result.test]).tolist()
    clear = sum(p <= 0.05 for p in corrected)
    words = (
        "Both sides answered the same prompts; the p is of a sign-flip test over prompt families, corrected for "
        f"{len(found)} tests (Holm): {clear} of {len(found)} have p ≤ 0.05. An interval that holds 0 does not show "
        "that there is no difference."
    )
    rows = [_row(result, p) for result, p in zip(found, corrected, strict=True)]
    columns = [
        "questions",
        "metric",
        "difference",
        "value",
        "interval",
        "p",
        "p, Holm",
        "pairs",
        "families",
        "unpaired",
    ]
    table = Table(columns, rows)
    body: list[Block] = _figures(found)
    last: list[Block] = [table] if len(rows) <= 12 else [Details(f"All {len(rows)} differences", [table])]
    return [Text("Paired differences", [words]), *body, *last]


def _figures(found: list[Result]) -> list[Block]:
    panels: dict[str, dict[str, list[Result]]] = {}
    for result in found:
        one, _, other = result.condition.partition(" - ")
        if not other.startswith("base"):
            kind = f"{named(result.metric)}: {_shown(one) or result.modality} − {_shown(other) or other}"
            panels.setdefault(kind, {}).setdefault(f"{result.split}: {one.partition(',')[0]}", []).append(result)
    blocks: list[Block] = []
    kinds = list(panels)
    for start in range(0, len(kinds), SHOWN):
        some = {kind: {row: r[0] for row, r in panels[kind].items()} for kind in kinds[start : start + SHOWN]}
        drawn = {kind: {row: Gap(r.value, r.interval) for row, r in rows.items()} for kind, rows in some.items()}
        caption = "Differences over fine-tuning seeds, 95\u00a0% intervals over prompt families; filled: 0 is outside."
        said = [f"{kind}, {row} {gap.value:+.2f}" for kind, rows in drawn.items() for row, gap in rows.items()]
        alt = f"{caption} {'; '.join(said)}"
        rate = all(is_rate([r]) or abs(r.value) <= 1 for rows in some.values() for r in rows.values())
        blocks.append(Picture(paired_differences(drawn, rate=rate), caption, alt))
    return blocks


def _shown(side: str) -> str:
    return side.partition(", ")[2].replace("_", " ")


def _row(result: Result, corrected: float) -> list[Cell]:
    ends = None if result.interval is None else f"{result.interval[0]:.3g} to {result.interval[1]:.3g}"
    test = result.test
    return [
        f"{result.split}, {result.modality}", named(result.metric), result.condition, result.value, ends,
        None if test is None else f"{test.p:.2g}", f"{corrected:.2g}", result.n, result.clusters, result.dropped,
    ]  # fmt: skip
