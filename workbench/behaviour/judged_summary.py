"""Metrics of judged answers and their differences as entries of `summary.json`, with all that stands beside them."""

from __future__ import annotations

import math
from typing import Any

from workbench.behaviour.differences import Difference
from workbench.behaviour.dose_trends import DoseTrend
from workbench.behaviour.measured import Measured
from workbench.behaviour.table_summary import plain_entry
from workbench.statistics import Interval


def measured_entry(found: Measured, **facts: Any) -> dict[str, Any]:
    """One metric of one condition; its value is None where no answer has a score."""
    stated = {"condition": found.condition, **_interval(found.interval), "clusters": found.families}
    beside = {
        "unscored": found.unscored,
        "reasons": dict(found.reasons),
        "bounds": list(found.bounds),
        "companions": dict(found.companions),
        "floor": found.floor,
        "judges": dict(found.judges),
    }
    return plain_entry(found.metric, found.value, found.n, {**_PLACE, **stated, **beside, **facts})


def difference_entry(found: Difference, **facts: Any) -> dict[str, Any]:
    """One paired difference, with its p in `test`."""
    stated = {
        "condition": f"{found.condition} - {found.against}",
        **_interval(found.interval),
        "clusters": found.families,
        "test": {"p": found.test.p, "method": found.test.method},
        "dropped": found.dropped,
        "judges": dict(found.judges),
        "equivalence": None if found.equivalence is None else str(found.equivalence),
    }
    return plain_entry(found.metric, found.value, found.pairs, {**_PLACE, **stated, **facts})


def trend_entry(found: DoseTrend, *, condition: str, **facts: Any) -> dict[str, Any]:
    """A trend over doses: its strength (1: every pair of doses goes up in every unit) and p."""
    trend = found.trend
    stated = {
        "condition": condition,
        "clusters": trend.units,
        "detail": str(found),
        "test": {"p": trend.test.p, "method": trend.test.method},
        "doses": dict(zip(map(str, trend.doses), trend.means, strict=True)),
        "judges": dict(found.judges),
    }
    return plain_entry(f"trend of {found.metric}", trend.strength, found.families, {**_PLACE, **stated, **facts})


_PLACE: dict[str, Any] = {"split": "evaluation", "modality": "all", "layer": None}


def _interval(interval: Interval | None) -> dict[str, Any]:
    if interval is None or not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return {}
    return {"interval": [interval.low, interval.high], "interval_method": interval.method}
