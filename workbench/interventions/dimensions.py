"""The causal curve: a swept table read as behaviour over k (what comes out is in `dimension_result`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stores import ResultTable
from workbench.interventions.dimension_result import ControlBand, CurvePoint, DimensionCurve
from workbench.interventions.top_k import MODES
from workbench.statistics import (
    DRAWS_FOR_P,
    Interval,
    cluster_interval,
    clustered_wilson,
    max_statistic,
    p_value,
    paired_bootstrap,
    wilson,
)
from workbench.statistics.values import Bounds

Row = Mapping[str, Any]
TEXTS = ("category", "choice")
PLACE = ("layer", "layers", "at", "source", "to")  # facts of a cell, which the unedited model has not


def dimension_curve(
    table: ResultTable | Iterable[Row],
    metric: str,
    *,
    base: float | int | ResultTable | Iterable[Row] = 0.0,
    mode: str = "ablate_top_k",
    cluster: str = "prompt",
    bounds: Bounds | None = None,
    **conditions: Any,
) -> DimensionCurve:
    """Behaviour over k of a table that `wb.sweep` made of `top_k(...)`, with intervals and controls at every k.

    `metric` is a number in the rows ("score", "p_contrary", "logit_difference"), or else a category, whose rate it is.
    `base` is its value without the behaviour: the base model's, on the same prompts, or a table of its rows. `cluster`
    names the column whose rows belong together; `conditions` select rows first (`domain="a"`). Rates get Wilson's
    interval (cluster-adjusted where clusters repeat), other metrics that of cluster means within `bounds`; changes are
    paired by prompt. Rows without a value are left out, which `n` shows. An effect counts towards base: 0 is the
    unedited model, 1 the base (under keeping modes 1 is the unedited model, 0 the base).

    Raises ValueError when the table has no such cells, cells of several layers or scopes, or when `base` is the value
    of the unedited model: there is no behaviour to lose.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is unknown: expected one of {', '.join(MODES)}.")
    before = float(base) if isinstance(base, float | int) else _listed(base)
    curve = _curve(_listed(table), metric, before, mode, cluster, bounds, conditions)
    if not curve.behaves:
        raise ValueError(
            f"the unedited model has {metric} = {curve.unedited:.6g}, and so has the base: there is no behaviour whose "
            "dimensions could be counted."
        )
    return curve


def dimension_curves(
    table: ResultTable | Iterable[Row],
    metric: str,
    *,
    base: float | int | ResultTable | Iterable[Row],
    by: str = "modality",
    cluster: str = "prompt",
    bounds: Bounds | None = None,
) -> list[DimensionCurve]:
    """The `dimension_curve` of every mode in a table and of every group of prompts, by the column `by` (one group of
    all where rows have none). Where base and unedited model do the same there is nothing to count: such a curve has
    values and no effects (`behaves` is False), since an experiment that finds no behaviour has to say so."""
    rows = _listed(table)
    before = float(base) if isinstance(base, float | int) else _listed(base)
    modes = [mode for mode in MODES if any(row["intervention"] == mode for row in rows)]
    groups = sorted({row.get(by) for row in rows}, key=str)
    return [
        replace(
            _curve(rows, metric, before, mode, cluster, bounds, {by: group}),
            group=None if group is None else str(group),
        )
        for mode in modes
        for group in groups
    ]


def _listed(table: ResultTable | Iterable[Row]) -> list[Row]:
    return [*(table.rows() if isinstance(table, ResultTable) else table)]


def _curve(
    listed: list[Row],
    metric: str,
    base: float | list[Row],
    mode: str,
    cluster: str,
    bounds: Bounds | None,
    conditions: Mapping[str, Any],
) -> DimensionCurve:
    asked = {name: value for name, value in conditions.items() if name not in PLACE}
    plain = _plain(listed, asked)
    cells = [row for row in listed if row["intervention"] == mode]
    cells = [row for row in cells if all(row.get(name) == value for name, value in conditions.items())]
    _refuse(plain, cells, mode, metric)
    reading = _Reading(metric, cluster, bounds, _is_rate(listed, metric))
    unedited = reading.value(plain)
    without = reading.value(_plain(base, asked)) if isinstance(base, list) else float(base)
    points = [] if mode != "ablate_top_k" else [reading.point(0, plain, None, unedited, without, mode)]
    grouped: dict[int, list[Row]] = defaultdict(list)
    for row in cells:
        grouped[int(row["coefficient"])].append(row)
    for k in sorted(grouped):
        points.append(reading.point(k, grouped[k], plain, unedited, without, mode))
    corrected = _corrected(points, _tail(mode, unedited, without)) if unedited != without else tuple(points)
    return DimensionCurve(mode, metric, unedited, without, corrected)


def _plain(rows: Iterable[Row], asked: Mapping[str, Any]) -> list[Row]:
    """The rows of the unedited model."""
    plain = [row for row in rows if row["intervention"] == "none" and row["control"] is None]
    return [row for row in plain if all(row.get(name) == value for name, value in asked.items())]


@dataclass(frozen=True)
class _Reading:
    """How values are taken from rows."""

    metric: str
    cluster: str
    bounds: Bounds | None
    rate: bool

    def values(self, rows: Sequence[Row]) -> dict[Any, tuple[float, Any]]:
        """(value, cluster) of each prompt that has one."""
        out: dict[Any, tuple[float, Any]] = {}
        for row in rows:
            verdict = next((row[name] for name in TEXTS if row.get(name) is not None), None)
            value = verdict if self.rate else row.get(self.metric)
            if value is not None:
                out[row["prompt"]] = (float(value == self.metric) if self.rate else float(value), row.get(self.cluster))
        if not out:
            raise ValueError(
                f"no row of a cell has a value of {self.metric!r}: expected a judge, or prompts with tags."
            )
        return out

    def value(self, rows: Sequence[Row]) -> float:
        return float(np.mean([value for value, _ in self.values(rows).values()]))

    def point(
        self, k: int, rows: Sequence[Row], plain: Sequence[Row] | None, unedited: float, base: float, mode: str
    ) -> CurvePoint:
        own = self.values([row for row in rows if row["control"] is None])
        numbers, clusters = (list(column) for column in zip(*own.values(), strict=True))
        behaves = unedited != base
        facts: dict[str, Any] = {"effect": 0.0, "effect_interval": (0.0, 0.0)} if behaves else {}
        if plain is not None:
            before = self.values(plain)
            both = [prompt for prompt in own if prompt in before]
            pair = [[side[prompt][0] for prompt in both] for side in (own, before)]
            names = [own[prompt][1] for prompt in both]
            low, high = (0.0, 1.0) if self.rate else self.bounds or (-np.inf, np.inf)
            ends = (low - high, high - low) if np.isfinite(high - low) else None
            change = paired_bootstrap(pair[0], pair[1], names, bounds=ends) if len(set(names)) > 1 else _unknown(ends)
            facts = {"change": float(np.mean(np.subtract(pair[0], pair[1]))), "change_interval": change}
            if behaves:
                effects = [_effect(unedited + end, unedited, base, mode) for end in (change.low, change.high)]
                facts |= {"effect": _effect(float(np.mean(numbers)), unedited, base, mode)}
                facts |= {"effect_interval": (min(effects), max(effects))}
            tail = _tail(mode, unedited, base) if behaves else None
            facts["controls"] = self._bands(rows, float(np.mean(numbers)), tail)
        interval = self._interval(numbers, clusters)
        return CurvePoint(k, float(np.mean(numbers)), interval, len(own), len(set(clusters)), **facts)

    def _bands(self, rows: Sequence[Row], value: float, tail: Any) -> dict[str, ControlBand]:
        drawn: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            if row["control"] is not None:
                drawn[row["control"]][row["draw"]].append(row)
        out = {}
        for kind, runs in drawn.items():
            draws = tuple(self.value(runs[draw]) for draw in sorted(runs))
            low, high = (float(end) for end in np.quantile(draws, [0.025, 0.975]))
            p = p_value(value, np.array(draws), tail) if tail and len(draws) >= DRAWS_FOR_P else None
            beyond = bool(tail) and (value < low if tail == "less" else value > high)
            out[kind] = ControlBand(float(np.mean(draws)), low, high, draws, beyond, p)
        return out

    def _interval(self, numbers: list[float], clusters: list[Any]) -> Interval:
        few = len(set(clusters))
        if self.rate:
            alone = few == len(numbers) or few < 2
            return wilson(round(sum(numbers)), len(numbers)) if alone else clustered_wilson(numbers, clusters)
        return cluster_interval(numbers, clusters, bounds=self.bounds) if few > 1 else _unknown(self.bounds)


def _unknown(bounds: Bounds | None) -> Interval:
    low, high = bounds or (-np.inf, np.inf)
    return Interval(float(low), float(high), "none: one cluster says nothing of spread")


def _tail(mode: str, unedited: float, base: float) -> Any:
    """Where a specific effect lies: below the controls when a behaviour that is above base goes."""
    falls = (unedited > base) == (mode == "ablate_top_k")
    return "less" if falls else "greater"


def _effect(value: float, unedited: float, base: float, mode: str) -> float:
    there = (value - base) / (unedited - base)
    return 1 - there if mode == "ablate_top_k" else there


def _corrected(points: list[CurvePoint], tail: Any) -> tuple[CurvePoint, ...]:
    """The points with `p_max`, where every k has the same number of control runs."""
    kinds = {kind for point in points for kind in point.controls or {}}
    for kind in kinds:
        places = [i for i, point in enumerate(points) if point.controls and kind in point.controls]
        bands = [(points[i].controls or {})[kind] for i in places]
        if len({len(band.draws) for band in bands}) != 1 or len(bands[0].draws) < DRAWS_FOR_P:
            continue
        found = max_statistic(
            np.array([points[i].value for i in places]), np.array([band.draws for band in bands]).T, tail
        )
        for i, band, p in zip(places, bands, found, strict=True):
            mended = {**(points[i].controls or {}), kind: replace(band, p_max=float(p))}
            points[i] = replace(points[i], controls=mended)
    return tuple(points)


def _is_rate(rows: Sequence[Row], metric: str) -> bool:
    return not any(isinstance(row.get(metric), int | float) for row in rows)  # `right` is also a tag, a text


def _refuse(plain: Sequence[Row], cells: Sequence[Row], mode: str, metric: str) -> None:
    if not plain or not any(row["control"] is None for row in cells):
        raise ValueError(
            f"the table has {len(plain)} rows of the unedited model and {len(cells)} of {mode!r}: expected both, of "
            "wb.sweep(model, prompts, found.cells, twins=found.twins) with found = wb.top_k(...)."
        )
    places = {tuple(row.get(name) for name in PLACE[1:]) for row in cells}
    if len(places) > 1:
        raise ValueError(
            f"the cells of {mode!r} act at {len(places)} places (layers, scope, source, to): "
            f"{sorted(map(str, places))}. Select one, such as dimension_curve(..., layers='3')."
        )
