"""summarise: whatever was found, as numbers with interval, n, clusters and controls: the entries of `summary.json`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from stores import ResultTable
from workbench.behaviour import convergence_entries as convergences
from workbench.behaviour import drift_entries as drifts
from workbench.behaviour import gating_entries as gates
from workbench.behaviour import predictor_entries as predictions
from workbench.behaviour.convergence_effects import PartEffect
from workbench.behaviour.differences import Difference
from workbench.behaviour.dimension_summary import curve_entries
from workbench.behaviour.direction_entries import direction_entries, map_entries, spectrum_entries
from workbench.behaviour.diversity import Diversity
from workbench.behaviour.domain_forecast import DomainForecasts
from workbench.behaviour.domain_weights import DomainWeights
from workbench.behaviour.dose_trends import DoseTrend
from workbench.behaviour.fitted_predictors import FittedPredictor, ShuffledPopulations
from workbench.behaviour.gating_measured import OpenedGate
from workbench.behaviour.gating_near import NearMisses
from workbench.behaviour.gating_summary import Gate
from workbench.behaviour.judged_summary import difference_entry, measured_entry, trend_entry
from workbench.behaviour.measured import Measured
from workbench.behaviour.pooled_texts import PooledAuroc, pooled_entries
from workbench.behaviour.population_entries import data_entries, population_entries
from workbench.behaviour.predictor_table import PredictorTable
from workbench.behaviour.predictors import PredictorRanking
from workbench.behaviour.routing_entries import built_entries, routing_entries
from workbench.behaviour.shift_summary import comparison_entries, overlap_entries, shift_entries
from workbench.behaviour.table_summary import table_entries
from workbench.behaviour.transfer_entries import transfer_entries
from workbench.interventions.dimension_result import DimensionCurve
from workbench.interventions.drift_runs import LeadTimes, Retentions, WatchedRun
from workbench.interventions.maps import TransferMap
from workbench.interventions.routing_built import BuiltDirections
from workbench.interventions.routing_matrix import RoutingMatrix
from workbench.interventions.transfer_matrix_result import TransferMatrix
from workbench.subspace.basis import Subspace
from workbench.subspace.convergence_parts import Landmark, Parts
from workbench.subspace.convergence_result import Convergence
from workbench.subspace.directions import Directions
from workbench.subspace.grassmann_matrix import FrameMatrix
from workbench.subspace.shift_against import ShiftComparison
from workbench.subspace.shift_overlap import ShiftOverlap
from workbench.subspace.shift_result import ShiftPCA
from workbench.training.domain_folders import DomainFolders
from workbench.training.drift_forecasts import ForecastErrors
from workbench.training.drift_rules import EarlyStop
from workbench.training.population import Population
from workbench.training.weight_shift_bridge import Bridge

Entry = dict[str, Any]
Told = Callable[..., list[Entry]]
# What each kind of result says of itself. A result that is not here brings a method `entries(**facts)`.
ONE: dict[type, Told] = {
    # of one model, or of a model and its edits
    ResultTable: table_entries,
    Measured: lambda found, **facts: [measured_entry(found, **facts)],
    Difference: lambda found, **facts: [difference_entry(found, **facts)],
    DoseTrend: lambda found, **facts: [trend_entry(found, **facts)],
    DimensionCurve: curve_entries,
    Directions: direction_entries,
    Subspace: spectrum_entries,
    ShiftComparison: comparison_entries,
    ShiftPCA: shift_entries,
    ShiftOverlap: overlap_entries,
    BuiltDirections: built_entries,
    RoutingMatrix: routing_entries,
    # between models
    TransferMap: map_entries,
    TransferMatrix: transfer_entries,
    # of domains and their fine-tunes
    DomainFolders: data_entries,
    Population: population_entries,
    Convergence: convergences.convergence_entries,
    DomainWeights: convergences.weight_entries,
    PredictorTable: predictions.table_points,
    PredictorRanking: predictions.predictor_entries,
    FittedPredictor: predictions.fitted_entries,
    ShuffledPopulations: predictions.shuffled_entries,
    DomainForecasts: predictions.domain_forecast_entries,
    # of a trigger, and of a training that was watched
    Gate: gates.gate_entries,
    OpenedGate: gates.opened_gate_entries,
    NearMisses: gates.near_miss_entries,
    EarlyStop: drifts.rule_entries,
    LeadTimes: drifts.lead_entries,
    Retentions: drifts.retention_entries,
}
# Those that come as a list or mapping, which is told as a whole.
MANY: dict[type, Told] = {
    Landmark: convergences.landmark_entries,
    FrameMatrix: convergences.frame_entries,
    Parts: convergences.part_entries,
    PartEffect: convergences.effect_entries,
    Bridge: convergences.bridge_entries,
    Diversity: predictions.diversity_entries,
    PooledAuroc: pooled_entries,
    WatchedRun: drifts.drift_curves,
    ForecastErrors: drifts.forecast_entries,
}


def summarise(found: Any, *, condition: str | None = None, **facts: Any) -> list[Entry]:
    """What was found, one entry a number, as `summary.json` holds them: of any result of this workbench (a table of
    `wb.sweep`, Directions, a Subspace, a TransferMap, rates and differences, a ranking, a gate, ...), of a list or
    mapping of such, of nothing for None. Whatever else has a method `entries(**facts)` that returns such a list, and
    lists of entries, are taken as well.

    `condition` names what was measured: a result that knows it needs none. `facts` go into every entry (split, target,
    detail), or are what this kind of result asks for beside (`wb.convergence`: `pairs_at`). Raises ValueError for one
    that is missing, TypeError for what is no result.
    """
    return _told(found, facts if condition is None else {"condition": condition, **facts})


def _told(found: Any, facts: Mapping[str, Any]) -> list[Entry]:
    if found is None:
        return []
    if (of := _kind(found, ONE)) is not None:
        return _asked(of, found, facts)
    if callable(getattr(found, "entries", None)):
        return _asked(found.entries, None, facts)
    if isinstance(found, dict) and "metric" in found:
        return [{**found, **facts}]
    if isinstance(found, list | tuple | Mapping):
        members = list(found.values() if isinstance(found, Mapping) else found)
        if members and (of := _kind(members[0], MANY)) is not None:
            return _asked(of, found, facts)
        return [entry for one in members for entry in _told(one, facts)]
    if (of := _kind(found, MANY)) is not None:
        return _asked(of, [found], facts)
    raise TypeError(
        f"summarise({type(found).__name__}): expected a result of this workbench, a list or mapping of results, "
        "entries (dicts with `metric`, `value`, `n`, ...), or an object with a method entries(**facts)."
    )


def _kind(found: Any, known: Mapping[type, Told]) -> Told | None:
    return next((of for kind, of in known.items() if isinstance(found, kind)), None)


def _asked(of: Told, found: Any, facts: Mapping[str, Any]) -> list[Entry]:
    """What it says, after a look at whether all is there that it asks for; other facts go into every entry."""
    asked = inspect.signature(of).parameters.values()
    wanted = [one.name for one in asked if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    if missing := [name for name in wanted if name not in facts]:
        what = type(found).__name__ if found is not None else type(getattr(of, "__self__", of)).__name__
        raise ValueError(
            f"{what} does not say what it was measured on: expected {', '.join(f'{name}=...' for name in missing)} "
            "beside it (condition='tuned', for one)."
        )
    known = facts if any(one.kind is one.VAR_KEYWORD for one in asked) else {one.name for one in asked} & facts.keys()
    told = {name: facts[name] for name in known}
    entries = of(**told) if found is None else of(found, **told)
    rest = {name: value for name, value in facts.items() if name not in told}
    return [{**entry, **rest} for entry in entries] if rest else entries
