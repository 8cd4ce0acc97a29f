"""A causal curve as entries of `summary.json`: the behaviour at every k, what share of it is gone, and how many
dimensions that takes."""

from __future__ import annotations

import math
from typing import Any

from workbench.behaviour.table_summary import plain_entry
from workbench.interventions.dimension_result import CurvePoint, DimensionCurve
from workbench.statistics import Interval

SHARE = 0.9  # of the behaviour, fixed before any result


def curve_entries(found: DimensionCurve, **facts: Any) -> list[dict[str, Any]]:
    """Entries of condition `found.mode`; `coefficient` is k, `target` the metric of behaviour.

    `behaviour` with its interval and, a kind of control each, the draws; `behaviour_base` and `behaviour_unedited`, the
    two ends; `effect`, the share of what lies between them that is gone (under modes that keep: there), with its
    interval; `dimensions`, the least k from which on that is 90 %, left out where no k is enough, or where there is no
    behaviour to lose.
    """
    same = {"condition": found.mode, "modality": found.group or "all", "layer": None, "target": found.metric, **facts}
    first = found.points[0]
    ends = {"behaviour_base": found.base, "behaviour_unedited": found.unedited}
    out = [plain_entry(metric, value, first.n, same) for metric, value in ends.items()]
    for point in found.points:
        out += _point_entries(point, {**same, "coefficient": float(point.k), "clusters": point.clusters})
    if found.behaves and (needed := found.needed(SHARE)).k is not None:
        out.append(plain_entry("dimensions", float(needed.k), first.n, {**same, "clusters": first.clusters}))
    return out


def _point_entries(point: CurvePoint, here: dict[str, Any]) -> list[dict[str, Any]]:
    out = [plain_entry("behaviour", point.value, point.n, {**here, **_stated(point.interval)})]
    for kind, band in (point.controls or {}).items():
        control = {"kind": kind, "N": len(band.draws), "p": band.p, "draws": list(band.draws)}
        twin = plain_entry("behaviour_control", band.mean, point.n, {**here, "control": control})
        if band.p_max is not None:
            method = f"maximum over all k, {len(band.draws)} control runs"
            twin["test"] = {"p": band.p_max, "method": method}
        out.append(twin)
    if point.effect is not None and point.effect_interval is not None:
        interval = Interval(*point.effect_interval, "of the change paired by prompt; the two ends taken as known")
        out.append(plain_entry("effect", point.effect, point.n, {**here, **_stated(interval)}))
    return out


def _stated(interval: Interval) -> dict[str, Any]:
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return {}
    return {"interval": [interval.low, interval.high], "interval_method": interval.method}
