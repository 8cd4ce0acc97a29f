"""Drift tables and what was read from them as entries of `summary.json`: curves by step, events by run, and means over
runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stores import ResultTable
from workbench.behaviour.table_summary import plain_entry
from workbench.interventions.drift_runs import LeadTimes, Retentions, WatchedRun, retention
from workbench.statistics import t_interval, wilson
from workbench.statistics.intervals import t_quantile
from workbench.training.drift_forecasts import ForecastErrors
from workbench.training.drift_rules import EarlyStop, Signal

CURVE, EVENT = "drift", "drift event"  # what `split` says of these entries
_SD = {"mean": "sd", "moved": "moved_sd"}
Entry = dict[str, Any]


def drift_curves(runs: Mapping[str, WatchedRun], *, signals: Mapping[str, Signal]) -> list[Entry]:
    """Of each run, by name: one entry a signal (by the name it is given) and measured step, which is its `coefficient`;
    `detail` is the kind of signal. Intervals are over prompts. Of the adapter: the cosine of its update with the last
    one, and of the shift since the start: the share of its first component."""
    return [entry for name, run in runs.items() for entry in _curves(name, run.table, signals)]


def _curves(run: str, table: ResultTable, signals: Mapping[str, Signal]) -> list[Entry]:
    out: list[Entry] = []
    for name, signal in signals.items():
        rows = [row for row in _rows(table, measure=signal.measure, group=signal.group) if _belongs(row, signal)]
        rows = [row for row in rows if row[signal.value] is not None]  # a judge may have scored nothing
        for row in sorted(rows, key=lambda row: row["step"]):
            facts = {**_place(run, row), **_interval(row, signal.value), "detail": signal.measure}
            out.append(plain_entry(name, float(row[signal.value]), row["n"], facts))
    for row in _rows(table, measure="spectrum", decomposed="paired_shift_raw", unchanged=False):
        facts = {**_place(run, row), "detail": "spectrum"}
        out.append(plain_entry("share of the first component of the shift", row["share_1"], row["n"], facts))
    turned: dict[int, list[float]] = {}
    for row in _rows(table, measure="rotation", against="end"):
        if row["delta_cosine"] is not None:
            turned.setdefault(row["step"], []).append(row["delta_cosine"])
    for step, cosines in sorted(turned.items()):
        found = t_interval(cosines) if np.ptp(cosines) > 0 else None
        stated = {} if found is None else {"interval": [found.low, found.high], "interval_method": found.method}
        facts = {**_place(run, {"step": step}), **stated, "detail": "rotation"}
        out.append(plain_entry("cosine of the update with the last one", float(np.mean(cosines)), len(cosines), facts))
    return out


def rule_entries(rule: EarlyStop, *, words: str, flips_at: float | int) -> list[Entry]:
    """What was declared beforehand: the rule's threshold, and the value of the behaviour that counts as flipped."""
    facts = {"split": EVENT, "condition": "declared"}
    return [
        plain_entry("threshold", float(rule.threshold), 0, {**facts, "detail": words}),
        plain_entry("flips_at", float(flips_at), 0, facts),
    ]


def lead_entries(found: LeadTimes, *, rule: str) -> list[Entry]:
    """What the rule of this name (`detail`) did: for each run the steps of flip, signal and stop; over the runs of a
    kind the shares that flipped, were alarmed, and were alarmed before the flip, and the means of flip, lead and stop,
    and of behaviour and retained task at the stop (of a run that the rule leaves alone: at its end)."""
    runs, leads, behaviour = found.runs, found.leads, found.behaviour
    out: list[Entry] = []
    for name, lead in leads.items():
        steps = {"flip_step": lead.flip_step, "signal_step": lead.signal_step, "stop_step": lead.stop_step}
        facts = {"split": EVENT, "condition": name, "detail": rule}
        out += [plain_entry(metric, float(value), 1, facts) for metric, value in steps.items() if value is not None]
    for kind in dict.fromkeys(run.kind for run in runs.values()):
        own = {name: leads[name] for name, run in runs.items() if run.kind == kind}
        flipped = [one for one in own.values() if one.flip_step is not None]
        shares = {
            "flipped": [one.flip_step is not None for one in own.values()],
            "alarmed": [one.stop_step is not None for one in own.values()],
            "alarmed_before_flip": [bool(one.prevents) for one in flipped],
        }
        for metric, values in shares.items():
            out += _share(metric, values, condition=kind, detail=rule)
        ends = {n: runs[n].last_step if lead.stop_step is None else lead.stop_step for n, lead in own.items()}
        means = {
            "mean_flip_step": [one.flip_step for one in flipped],
            "lead_steps": [one.steps for one in own.values()],
            "mean_stop_step": list(ends.values()),
            "behaviour_at_stop": [dict(behaviour.series(runs[n].table.rows()))[end] for n, end in ends.items()],
            "retention_at_stop": [retention(runs[n].table, end) for n, end in ends.items()],
        }
        for metric, values in means.items():
            bounds = (0.0, 1.0) if metric == "behaviour_at_stop" and behaviour.value.endswith("rate") else None
            out += _over_runs(metric, values, condition=kind, detail=rule, bounds=bounds)
    return out


def _share(metric: str, values: Sequence[bool], **facts: Any) -> list[Entry]:
    if not values:
        return []
    found = wilson(sum(values), len(values))
    stated = {"interval": [found.low, found.high], "interval_method": f"{found.method} over fine-tuning runs"}
    stated |= {"split": EVENT, "clusters": len(values), **facts}
    return [plain_entry(metric, sum(values) / len(values), len(values), stated)]


def forecast_entries(found: Sequence[ForecastErrors], *, condition: str = "harmful") -> list[Entry]:
    """The mean error of each way of forecasting, in steps, over runs; `companions` say how often it was silent."""
    out: list[Entry] = []
    for one in found:
        entries = _over_runs("forecast_error", list(one.errors.values()), condition=condition, detail=one.by)
        out += [{**entry, "companions": {"silent": one.silent, "forecasts": one.forecasts}} for entry in entries]
    return out


def retention_entries(found: Retentions, *, condition: str) -> list[Entry]:
    """`task_retention`: the mean over the runs whose task gained at all."""
    return _over_runs("task_retention", list(found.values.values()), condition=condition)


def _over_runs(
    metric: str,
    values: Sequence[float | int | None],
    *,
    condition: str,
    detail: str | None = None,
    bounds: tuple[float, float] | None = None,
) -> list[Entry]:
    """The mean over the fine-tuning runs that have a value, its t interval (within `bounds`, the ends of the scale) and
    their number; nothing where none has."""
    there = [float(value) for value in values if value is not None]
    if not there:
        return []
    facts = {"split": EVENT, "condition": condition, "detail": detail, "clusters": len(there)}
    if np.ptp(there) > 0:
        found = t_interval(there)
        low, high = bounds or (-np.inf, np.inf)
        facts |= {"interval": [max(found.low, low), min(found.high, high)]}
        facts |= {"interval_method": f"{found.method} fine-tuning runs"}
    return [plain_entry(metric, float(np.mean(there)), len(there), facts)]


def _rows(table: ResultTable, **where: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in table.rows(**where)]


def _belongs(row: Mapping[str, Any], signal: Signal) -> bool:
    wanted = {"site": signal.site, "direction": signal.direction}
    return all(row.get(name) == value for name, value in wanted.items() if value is not None)


def _place(run: str, row: Mapping[str, Any]) -> dict[str, Any]:
    facts = {"split": CURVE, "modality": "all", "condition": run, "coefficient": row["step"]}
    return {**facts, "layer": row.get("layer")}


def _interval(row: Mapping[str, Any], value: str) -> dict[str, Any]:
    n, mean = row["n"], row[value]
    if mean is None or not n:
        return {}
    if value.endswith("rate"):
        found = wilson(round(mean * n), n)
        return {"interval": [found.low, found.high], "interval_method": found.method}
    sd = row.get(_SD.get(value, ""))
    if sd is None or n < 2:
        return {}
    half = t_quantile(n - 1, 0.95) * sd / np.sqrt(n)
    return {"interval": [mean - half, mean + half], "interval_method": f"t 95%, {n} prompts"}
