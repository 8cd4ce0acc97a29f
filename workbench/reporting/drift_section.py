"""Section: fine-tunes under watch: curves by step, flips, what saw them coming, and what a stop saves and costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.drift_lines import DriftLine, DriftMarks, drift_lines
from workbench.reporting.summary import Result, Summary

CURVE, EVENT, WRITTEN = "drift", "drift event", "written"
TITLES = {
    "behaviour": "Share of answers that are contrary", "answers": "Judged answers: the judge's mean score",
    "task": "Loss on held-out rows of the task (nats a token)", "spectrum": "Share of the shift in its first component",
    "rotation": "Cosine of the adapter's update with its last one",
}  # fmt: skip
RULES = {
    "alarmed_before_flip": "alarm before the flip", "lead_steps": "lead of the signal, steps",
    "mean_stop_step": "stops at step", "behaviour_at_stop": "behaviour there", "retention_at_stop": "task kept there",
}  # fmt: skip
MEANING = (
    "The direction comes from a fine-tune of another seed (and one of another domain), never from a run shown here. "
    "The flip is where the behaviour comes to the stated level for two measurements. Flips and leads are read off "
    "between measurements by a straight line; a rule can only stop at a measurement."
)


def drift(summary: Summary) -> list[Block]:
    """Sentences, the curves, every rule and every way of forecasting; [] when nothing was watched."""
    if not summary.where(split=CURVE):
        return []
    blocks: list[Block] = [Text("Fine-tunes under watch", [MEANING, *_sentences(summary)]), _picture(summary)]
    rules = list(dict.fromkeys(r.detail for r in summary.where(split=EVENT, metric="alarmed")))
    rows: list[list[Cell]] = [_rule(summary, rule) for rule in rules]
    caption = (
        "Each rule applied to the same watched runs, none chosen by its outcome; the one that was declared to stop "
    )
    caption += "the training is the last. Shares and means over fine-tuning runs, with 95\u00a0% intervals."
    blocks.append(Table(["alarm where the projection moved by", *RULES.values(), "false alarms"], rows, caption))
    forecasts = summary.where(split=EVENT, metric="forecast_error")
    if forecasts:
        table = [
            [r.detail, _number(r), r.n, r.companions.get("forecasts"), r.companions.get("silent")] for r in forecasts
        ]
        caption = "Mean distance of the forecast from the flip, at every measured step before it. Foreseeing no flip "
        caption += "counts as one at the end of the training."
        columns = ["forecast by", "off by, steps", "runs", "forecasts", "share that foresaw none"]
        blocks.append(Table(columns, table, caption))
    written = summary.where(split=WRITTEN)
    if written:
        table = [[r.condition, r.metric, _number(r), r.n, r.clusters] for r in written]
        columns = ["model", "metric", "written answers", "answers", "families"]
        blocks.append(Details("Written answers, model by model", [Table(columns, table)]))
    return blocks


def _event(summary: Summary, metric: str, kind: str, rule: str | None = None) -> Result | None:
    """The entry of the harmful runs, or of benign ones (of any name)."""
    found = [r for r in summary.where(split=EVENT, metric=metric) if r.condition.startswith(kind)]
    found = [r for r in found if rule is None or r.detail == rule]
    return found[0] if found else None


def _sentences(summary: Summary) -> list[str]:
    threshold = _event(summary, "threshold", "declared")
    rule = None if threshold is None else threshold.detail
    lines = []
    flipped, at = (_event(summary, name, "harmful", rule) for name in ("flipped", "mean_flip_step"))
    calm, level = _event(summary, "flipped", "benign", rule), _event(summary, "flips_at", "declared")
    if flipped:
        when = f", on average at step {_number(at)}" if at else ""
        benign = f"; {_count(calm)} benign ones did" if calm else "; there was no benign control"
        goal = f" (to {level.value:g})" if level else ""
        lines.append(f"The behaviour flipped{goal} in {_count(flipped)} harmful fine-tunes{when}{benign}.")
    before, lead, false = (
        _event(summary, name, kind, rule)
        for name, kind in (("alarmed_before_flip", "harmful"), ("lead_steps", "harmful"), ("alarmed", "benign"))
    )
    if before:
        ahead = f" The projection reached it {_number(lead)} steps before the flip." if lead else ""
        wrong = f" False alarms: {_count(false)} benign runs." if false else ""
        lines.append(f"The declared rule ({rule}) stops before the flip in {_count(before)} runs.{ahead}{wrong}")
    behaviour, kept = (_event(summary, name, "harmful", rule) for name in ("behaviour_at_stop", "retention_at_stop"))
    if behaviour and kept:
        lines.append(
            f"Where it stops the behaviour is at {_number(behaviour)}, and {_number(kept)} of what the whole training "
            "gained on its task is there."
        )
    forecasts = summary.where(split=EVENT, metric="forecast_error")
    if forecasts:
        best = min(forecasts, key=lambda result: result.value)
        rest = [f"{r.detail} {_number(r)}" for r in forecasts if r is not best]
        lines.append(
            f"Forecasts were off by the fewest steps from: {best.detail} ({_number(best)}); {'; '.join(rest)}."
        )
    elif flipped:
        lines.append("Forecasts could not be compared: fewer than two runs flipped.")
    return lines


def _count(share: Result) -> str:
    of = share.n or 0
    return f"{round(share.value * of)} of {of}"


def _number(result: Result | None) -> str:
    if result is None:
        return "–"
    ends = "" if result.interval is None else f" [{result.interval[0]:.2g}, {result.interval[1]:.2g}]"
    return f"{result.value:.2g}{ends}".replace("-", "−")


def _rule(summary: Summary, rule: str | None) -> list[Cell]:
    cells = [_event(summary, metric, "harmful", rule) for metric in RULES]
    shares = [_count(cells[0]) if cells[0] else None, *(None if c is None else _number(c) for c in cells[1:])]
    false = _event(summary, "alarmed", "benign", rule)
    return [rule, *shares, None if false is None else _count(false)]


def _picture(summary: Summary) -> Picture:
    threshold, level = _event(summary, "threshold", "declared"), _event(summary, "flips_at", "declared")
    panels: dict[str, dict[str, DriftLine]] = {}
    levels: dict[str, float] = {}
    for result in summary.where(split=CURVE):
        title = TITLES.get(result.detail or "") or f"{result.metric[:1].upper()}{result.metric[1:]}"
        runs = panels.setdefault(title, {})
        if result.condition not in runs:
            points = [r for r in summary.where(split=CURVE, metric=result.metric) if r.condition == result.condition]
            runs[result.condition] = _line(sorted(points, key=lambda r: r.coefficient or 0.0))
        if result.detail in ("behaviour", "answers") and level:
            levels[title] = level.value
        if result.metric.endswith("scout") and threshold:
            levels[title] = threshold.value
    rule = None if threshold is None else threshold.detail
    steps = {
        metric: [
            r.value for r in summary.where(split=EVENT, metric=metric, detail=rule) if r.condition[:7] == "harmful"
        ]
        for metric in ("flip_step", "stop_step")
    }
    caption = "One line a fine-tuning run; bands: 95\u00a0% intervals over prompts. Dotted: the level that decides."
    ends = [f"{title}: {_ends(runs)}" for title, runs in panels.items()]
    alt = f"{caption} Flips at steps {_listed(steps['flip_step'])}; stops at {_listed(steps['stop_step'])}. "
    alt += " ".join(ends)
    return Picture(drift_lines(panels, DriftMarks(steps["flip_step"], steps["stop_step"], levels)), caption, alt)


def _line(points: Sequence[Result]) -> DriftLine:
    ends = [r.interval or (np.nan, np.nan) for r in points]
    kind = "harmful" if points[0].condition.startswith("harmful") else "benign"
    values = np.array([r.value for r in points])
    return DriftLine(kind, [r.coefficient or 0.0 for r in points], values, np.array(ends, float).reshape(-1, 2))


def _ends(runs: dict[str, DriftLine]) -> str:
    return ", ".join(f"{name} from {line.values[0]:.2g} to {line.values[-1]:.2g}" for name, line in runs.items()) + "."


def _listed(steps: Sequence[float]) -> str:
    return ", ".join(f"{step:.3g}" for step in steps) or "none"
