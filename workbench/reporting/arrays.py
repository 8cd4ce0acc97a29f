"""Results -> the plain arrays that the figures draw. NaN stands for what was not measured."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from workbench.reporting.by_layer import LayerCurve
from workbench.reporting.dose_response import DoseCurve
from workbench.reporting.spectrum import Spectrum
from workbench.reporting.style import RATES
from workbench.reporting.summary import Result, Summary

SPLIT = "other_domains"


def layer_curve(summary: Summary, modality: str, metric: str = "contrary") -> LayerCurve | None:
    """The rate after ablation at each layer; None when no layer was ablated alone."""
    cell = {"metric": metric, "split": SPLIT, "modality": modality}
    found = summary.where(condition="ablation", target=None, **cell)
    by_layer = {result.layer: result for result in reversed(found) if result.layer is not None}
    if not by_layer:
        return None
    layers = sorted(by_layer)
    results = [by_layer[layer] for layer in layers]
    controls = [summary.controls(result) for result in results]
    kinds = dict.fromkeys(kind for each in controls for kind in each)
    value = {name: summary.first(condition=name, **cell) for name in ("base", "tuned", "ablation")}
    levels = {name: None if result is None else result.value for name, result in value.items()}
    return LayerCurve(
        layers=layers,
        value=np.array([result.value for result in results]),
        interval=_intervals(results),
        controls={kind: _columns([each.get(kind, np.empty(0)) for each in controls]) for kind in kinds},
        base=levels["base"],
        tuned=levels["tuned"],
        every_layer=levels["ablation"],
    )


def dose_curve(summary: Summary, modality: str, target: str | None = None) -> DoseCurve | None:
    """The rates against the coefficient, coefficient 0 from the unsteered model; None when nothing was steered.

    `target` names the model steered: None is the base, "tuned" the fine-tuned model, others models of their own.
    """
    cell = {"split": SPLIT, "modality": modality}
    by_metric: dict[str, dict[float, Result]] = {kind: {} for kind in RATES}
    for result in summary.where(condition="steer", target=target, metric=tuple(RATES), **cell):
        if result.coefficient is not None:
            by_metric[result.metric].setdefault(result.coefficient, result)
    if not by_metric["contrary"]:
        return None
    unsteered = {None: "base", "base": "base", "tuned": "tuned"}.get(target)
    for kind, results in by_metric.items():
        start = summary.first(metric=kind, condition=unsteered, **cell) if unsteered else None
        if results and start is not None:
            results.setdefault(0.0, start)
    doses = sorted({dose for results in by_metric.values() for dose in results})
    measured = {kind: [results.get(dose) for dose in doses] for kind, results in by_metric.items() if results}
    drawn = [summary.controls(r).values() if r and r.coefficient is not None else () for r in measured["contrary"]]
    control = _columns([np.concatenate(list(kinds)) if kinds else np.empty(0) for kinds in drawn])
    return DoseCurve(
        coefficients=np.array(doses, dtype=float),
        rates={k: np.array([np.nan if r is None else r.value for r in row]) for k, row in measured.items()},
        intervals={kind: bars for kind, row in measured.items() if (bars := _intervals(row)) is not None},
        control=control if control.size else None,
    )


def spectra(summary: Summary) -> dict[int, Spectrum]:
    """The spectrum of every decomposed layer. A component's number is its result's coefficient, or the number in its
    detail ("component 3"), or else its place in the list."""
    found: dict[str, dict[int, dict[int, Result]]] = {}
    for result in summary.where(metric="explained_variance"):
        if result.layer is None:
            continue
        components = found.setdefault(result.condition, {}).setdefault(result.layer, {})
        components[_component(result, len(components) + 1)] = result
    ranks = {(r.condition, r.layer): r.value for r in reversed(summary.where(metric="effective_rank"))}
    made = {}
    for layer, components in sorted(found.get("pca", {}).items()):
        null = found.get("pca_null", {}).get(layer)
        benign = found.get("pca_benign", {}).get(layer)
        bands = [_band(result) for result in _ordered(null)] if null else []
        if not null:  # the band may stand with the component itself, as its control
            bands = [_band(result) for result in _ordered(components)]
        made[layer] = Spectrum(
            explained=np.array([result.value for result in _ordered(components)]),
            null=np.array(bands) if bands and None not in bands else None,
            benign=np.array([result.value for result in _ordered(benign)]) if benign else None,
            effective_rank=ranks.get(("pca", layer)),
            benign_rank=ranks.get(("pca_benign", layer)),
        )
    return made


def chosen(layers: Sequence[int], most: int = 3) -> list[int]:
    """At most `most` layers, evenly spread from the first to the last."""
    if len(layers) <= most:
        return list(layers)
    return [layers[round(place)] for place in np.linspace(0, len(layers) - 1, most)]


def _component(result: Result, otherwise: int) -> int:
    if result.coefficient is not None:
        return int(result.coefficient)
    numbers = re.findall(r"\d+", result.detail or "")
    return int(numbers[-1]) if numbers else otherwise


def _ordered(components: dict[int, Result]) -> list[Result]:
    return [components[number] for number in sorted(components)]


def _band(result: Result) -> tuple[float, float] | None:
    if result.control is not None and result.control.draws:
        low, high = np.quantile(result.control.draws, [0.05, 0.95])
        return float(low), float(high)
    return result.interval if result.condition == "pca_null" else None


def _intervals(results: Sequence[Result | None]) -> Float[np.ndarray, "cell 2"] | None:
    bars = np.array([r.interval if r is not None and r.interval else (np.nan, np.nan) for r in results], dtype=float)
    return None if np.isnan(bars).all() else bars


def _columns(draws: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "draw cell"]:
    """Columns of unequal length side by side, short ones filled with NaN."""
    columns = np.full((max((len(column) for column in draws), default=0), len(draws)), np.nan)
    for place, column in enumerate(draws):
        columns[: len(column), place] = column
    return columns
