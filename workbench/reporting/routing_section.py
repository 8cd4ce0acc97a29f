"""Section: the routing matrix of a direction, as figures, sentences and a table, from the summary alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.routing_panels import RoutingPanel, routing_panels
from workbench.reporting.summary import Result, Summary

SPLIT, IMPOSSIBLE, BUILT = "routing", "not_possible", "routing directions"
COLUMNS = ["questions", "built at", "edited at", "unedited", "change", "interval", "p", "within the margin?",
           "random directions", "right answers", "KL, neutral", "energy", "pairs", "families"]  # fmt: skip
MEANING = (
    "A direction is built at some positions and edited at others, on questions with pictures or without. Every change "
    "is edited minus unedited, paired by question; its p is corrected for looking at the whole matrix. Equivalent "
    "(≈ 0) means within the margin that was stated beforehand; ≠ 0 told from 0; ? neither shown. Text positions "
    "include the one where the answer is chosen. A combination that cannot be has no number."
)


def routing(summary: Summary) -> list[Block]:
    """One figure and table for each way of editing; [] when there are none."""
    found = summary.where(split=SPLIT)
    blocks: list[Block] = []
    for condition in dict.fromkeys(result.condition for result in found):
        own = [result for result in found if result.condition == condition]
        measured = [result for result in own if result.metric != IMPOSSIBLE]
        if not measured:
            continue
        first = [] if blocks else [MEANING]
        heading = f"Where the direction acts: {condition.removeprefix('routing: ')}"
        blocks.append(Text(heading, [*first, *_sentences(measured, own)]))
        blocks.append(_picture(own, measured[0].metric))
        caption = "95\u00a0% intervals over families of questions. Random directions: lowest and highest change of the "
        caption += "draws; p against them is of this combination alone."
        blocks.append(Table(COLUMNS, [_row(result) for result in own], caption))
    return [*blocks, *_directions(summary)]


def place_of(result: Result) -> tuple[str, str]:
    """Where the direction was built, and where it was edited."""
    built, _, applied = (result.detail or "").partition(":")[0].partition("->")
    return built, applied


def verdict_of(result: Result) -> str:
    """What the test of equivalence said: equivalent, different, neither, or nothing."""
    return (result.equivalence or "").partition(":")[0].partition(",")[0]


def _directions(summary: Summary) -> list[Block]:
    built = summary.where(split=BUILT, metric="direction_norm")
    trust = {(r.condition, r.layer): r.value for r in summary.where(split=BUILT, metric="direction_reliability")}
    rows = [[r.condition, r.layer, r.value, trust.get((r.condition, r.layer)), r.n] for r in built]
    caption = "Reliability: the mean cosine between the directions of two random halves of the prompts; n: positions."
    table = Table(["built at", "layer", "norm", "reliability", "n"], rows, caption)
    return [Details("The directions, layer by layer", [table])] if rows else []


def _sentences(measured: Sequence[Result], own: Sequence[Result]) -> list[str]:
    counts = {name: sum(verdict_of(r) == name for r in measured) for name in ("different", "equivalent", "neither")}
    margin = re.search(r"margin \[.*?, (.*?)\]", measured[0].equivalence or "")
    within = f" (±{margin.group(1)})" if margin else ""
    lines = [
        f"Of {len(measured)} combinations {counts['different']} change the measure, {counts['equivalent']} are "
        f"equivalent to no change within the margin{within}, and for {counts['neither']} neither is shown."
    ]
    for questions in dict.fromkeys(result.modality for result in measured):
        here = [result for result in measured if result.modality == questions]
        parts = []
        for applied in dict.fromkeys(place_of(result)[1] for result in here):
            largest = max((r for r in here if place_of(r)[1] == applied), key=lambda r: abs(r.value))
            parts.append(f"at {applied} positions {_change(largest)}, built at {place_of(largest)[0]} positions")
        lines.append(f"On {questions} questions the largest change by an edit is {'; '.join(parts)}.")
    drawn = [result for result in measured if result.control and result.control.draws]
    if drawn:
        beyond = sum(_beyond(result) for result in drawn)
        kind = drawn[0].control.kind.replace("_", " ") if drawn[0].control else ""
        lines.append(
            f"{beyond} of {len(drawn)} changes are larger than under every one of "
            f"{drawn[0].control.N if drawn[0].control else 0} random directions ({kind}); the others lie within what "
            "those do."
        )
    if impossible := [result for result in own if result.metric == IMPOSSIBLE]:
        reasons = dict.fromkeys((result.detail or "").partition(": ")[2] for result in impossible)
        lines.append(f"{len(impossible)} combinations are not possible: {'; '.join(reasons)}.")
    return lines


def _change(result: Result) -> str:
    ends = "" if result.interval is None else f" [{result.interval[0]:+.2f}, {result.interval[1]:+.2f}]"
    return f"{result.value:+.2f}{ends}".replace("-", "−")


def _beyond(result: Result) -> bool:
    assert result.control is not None
    return abs(result.value) > max(map(abs, result.control.draws))


def _picture(own: Sequence[Result], metric: str) -> Picture:
    panels, said = {}, []
    built = list(dict.fromkeys(place_of(result)[0] for result in own))
    applied = sorted(dict.fromkeys(place_of(result)[1] for result in own), key=_order)
    for questions in dict.fromkeys(result.modality for result in own):
        values = np.full((len(built), len(applied)), np.nan)
        intervals = np.full((*values.shape, 2), np.nan)
        verdicts = [[""] * len(applied) for _ in built]
        for result in own:
            if result.modality != questions or result.metric == IMPOSSIBLE:
                continue
            row, column = built.index(place_of(result)[0]), applied.index(place_of(result)[1])
            values[row, column], verdicts[row][column] = result.value, verdict_of(result)
            intervals[row, column] = result.interval or (np.nan, np.nan)
            said.append(f"{questions} questions, {result.detail}: {_change(result)}, {verdict_of(result)}")
        panels[f"{questions} questions"] = RoutingPanel(built, applied, values, intervals, verdicts)
    caption = (
        f"{metric[:1].upper()}{metric[1:].replace('_', ' ')}, with 95\u00a0% intervals and the verdict of the test "
    )
    caption += "of equivalence."
    return Picture(routing_panels(panels), caption, f"{caption} {'; '.join(said)}.")


def _order(applied: str) -> int:
    """The scopes of every matrix first, in the order of a prompt."""
    usual = ("image", "text", "answering")
    return usual.index(applied) if applied in usual else len(usual)


def _row(result: Result) -> list[Cell]:
    built, applied = place_of(result)
    if result.metric == IMPOSSIBLE:
        reason = (result.detail or "").partition(": ")[2]
        return [result.modality, built, applied, None, "not possible", reason, *[None] * (len(COLUMNS) - 6)]
    beside = result.companions
    ends = None if result.interval is None else f"{result.interval[0]:.3g} to {result.interval[1]:.3g}"
    random = None
    if result.control and result.control.draws:
        draws, control = result.control.draws, result.control
        p = "" if control.p is None else f", p {control.p:.2g}"
        random = f"{min(draws):.3g} to {max(draws):.3g} ({control.N}, {control.kind.replace('_', ' ')}{p})"
    return [
        result.modality, built, applied, beside.get("unedited"), result.value, ends,
        None if result.test is None else f"{result.test.p:.2g}", verdict_of(result), random, beside.get("right"),
        beside.get("kl_neutral"), beside.get("energy_removed"), result.n, result.clusters,
    ]  # fmt: skip
