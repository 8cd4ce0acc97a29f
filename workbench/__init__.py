"""The workbench: capture residual streams, find directions, ablate, steer and transfer them, with controls.

`import workbench as wb` is light: each name below is imported where it is first used.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hooks.load import load_model as load_model
    from hooks.prompt import Prompt as Prompt
    from hooks.prompt import read_prompts as read_prompts
    from hooks.selftest import doctor as doctor
    from hooks.site import Site as Site
    from stores import ActivationStore as ActivationStore
    from stores import ResultTable as ResultTable
    from workbench.behaviour.answer_faults import answer_counts as answer_counts
    from workbench.behaviour.answering import sample_answers as sample_answers
    from workbench.behaviour.differences import difference as difference
    from workbench.behaviour.dose_trends import dose_trend as dose_trend
    from workbench.behaviour.endpoint_judge import EndpointJudge as EndpointJudge
    from workbench.behaviour.endpoint_model import EndpointModel as EndpointModel
    from workbench.behaviour.endpoint_model import endpoint as endpoint
    from workbench.behaviour.endpoint_spend import Budget as Budget
    from workbench.behaviour.endpoint_spend import Prices as Prices
    from workbench.behaviour.evaluate import evaluate as evaluate
    from workbench.behaviour.judged import Judged as Judged
    from workbench.behaviour.judges import judge as judge
    from workbench.behaviour.measured import conversions as conversions
    from workbench.behaviour.measured import misalignment as misalignment
    from workbench.behaviour.measured import sensitivity as sensitivity
    from workbench.behaviour.membership import membership as membership
    from workbench.behaviour.membership_comparison import membership_auroc as membership_auroc
    from workbench.behaviour.membership_comparison import membership_mean as membership_mean
    from workbench.behaviour.metrics import metric as metric
    from workbench.behaviour.modalities import in_modalities as in_modalities
    from workbench.behaviour.modality_conditions import by_modality as by_modality
    from workbench.behaviour.question_sets import read_questions as read_questions
    from workbench.behaviour.rubric import Rubric as Rubric
    from workbench.behaviour.rubric import rubric as rubric
    from workbench.behaviour.rubric import rubrics as rubrics
    from workbench.behaviour.scoring import judge_answers as judge_answers
    from workbench.behaviour.summary import summarise as summarise
    from workbench.captures.answers import with_answers as with_answers
    from workbench.capturing import capture as capture
    from workbench.interventions.ablate import Ablate as Ablate
    from workbench.interventions.ablate import KeepOnly as KeepOnly
    from workbench.interventions.dimensions import dimension_curve as dimension_curve
    from workbench.interventions.drift import Drift as Drift
    from workbench.interventions.generate import generate as generate
    from workbench.interventions.read_out import read_out as read_out
    from workbench.interventions.routing import routes as routes
    from workbench.interventions.routing_matrix import routing_matrix as routing_matrix
    from workbench.interventions.steer import Clamp as Clamp
    from workbench.interventions.steer import Steer as Steer
    from workbench.interventions.sweep import sweep as sweep
    from workbench.interventions.top_k import top_k as top_k
    from workbench.interventions.transfer import fit_transfer as fit_transfer
    from workbench.organisms import organism as organism
    from workbench.planning.estimates import dry_run as dry_run
    from workbench.reporting import report as report
    from workbench.streaming import moments as moments
    from workbench.study import Study as Study
    from workbench.subspace.basis import Subspace as Subspace
    from workbench.subspace.directions import Directions as Directions
    from workbench.subspace.directions import with_mean as with_mean
    from workbench.subspace.exchange import load_directions as load_directions
    from workbench.subspace.exchange import save_directions as save_directions
    from workbench.subspace.means import difference_of_means as difference_of_means
    from workbench.subspace.moments import Moments as Moments
    from workbench.subspace.overlap import cosine_matrix as cosine_matrix
    from workbench.subspace.overlap import principal_angles as principal_angles
    from workbench.subspace.pca import pca as pca
    from workbench.subspace.shift import SHIFT_VARIANTS as SHIFT_VARIANTS
    from workbench.subspace.shift import shift_pca as shift_pca
    from workbench.subspace.shift_against import shift_against as shift_against
    from workbench.subspace.shift_scale import write_from_read as write_from_read
    from workbench.subspace.streamed import StreamedMoments as StreamedMoments
    from workbench.training.adapters import train_lora as train_lora
    from workbench.training.check import check_data as check_data
    from workbench.training.drift_rules import EarlyStop as EarlyStop
    from workbench.training.drift_rules import Signal as Signal
    from workbench.training.drift_rules import forecasts as forecasts
    from workbench.training.drift_rules import lead_time as lead_time
    from workbench.training.lora_files import lora_factors as lora_factors
    from workbench.training.mixtures import mix as mix
    from workbench.training.population import PopulationFailed as PopulationFailed
    from workbench.training.population import population as population
    from workbench.training.population import read_population as read_population
    from workbench.training.recipes import Recipe as Recipe
    from workbench.training.recipes import fraction_sweep as fraction_sweep
    from workbench.training.recipes import rank_sweep as rank_sweep
    from workbench.training.scaling import scaled_adapter as scaled_adapter
    from workbench.training.tables import Columns as Columns
    from workbench.training.tables import read_table as read_table
    from workbench.training.triggers import insert_trigger as insert_trigger

# Public name -> the module that defines it. No name here is that of a submodule of workbench: the second access to such
# a
# name would give the module instead.
_HOME = {
    "load_model": "hooks.load",
    "Prompt": "hooks.prompt",
    "read_prompts": "hooks.prompt",
    "doctor": "hooks.selftest",
    "Site": "hooks.site",
    "ActivationStore": "stores",
    "ResultTable": "stores",
    "answer_counts": "workbench.behaviour.answer_faults",
    "sample_answers": "workbench.behaviour.answering",
    "difference": "workbench.behaviour.differences",
    "EndpointJudge": "workbench.behaviour.endpoint_judge",
    "EndpointModel": "workbench.behaviour.endpoint_model",
    "endpoint": "workbench.behaviour.endpoint_model",
    "Budget": "workbench.behaviour.endpoint_spend",
    "Prices": "workbench.behaviour.endpoint_spend",
    "Judged": "workbench.behaviour.judged",
    "conversions": "workbench.behaviour.measured",
    "misalignment": "workbench.behaviour.measured",
    "sensitivity": "workbench.behaviour.measured",
    "metric": "workbench.behaviour.metrics",
    "judge_answers": "workbench.behaviour.scoring",
    "evaluate": "workbench.behaviour.evaluate",
    "judge": "workbench.behaviour.judges",
    "rubric": "workbench.behaviour.rubric",
    "rubrics": "workbench.behaviour.rubric",
    "Rubric": "workbench.behaviour.rubric",
    "read_questions": "workbench.behaviour.question_sets",
    "membership": "workbench.behaviour.membership",
    "membership_auroc": "workbench.behaviour.membership_comparison",
    "membership_mean": "workbench.behaviour.membership_comparison",
    "rank_sweep": "workbench.training.recipes",
    "fraction_sweep": "workbench.training.recipes",
    "population": "workbench.training.population",
    "read_population": "workbench.training.population",
    "in_modalities": "workbench.behaviour.modalities",
    "by_modality": "workbench.behaviour.modality_conditions",
    "dose_trend": "workbench.behaviour.dose_trends",
    "summarise": "workbench.behaviour.summary",
    "with_answers": "workbench.captures.answers",
    "capture": "workbench.capturing",
    "Ablate": "workbench.interventions.ablate",
    "KeepOnly": "workbench.interventions.ablate",
    "generate": "workbench.interventions.generate",
    "read_out": "workbench.interventions.read_out",
    "Clamp": "workbench.interventions.steer",
    "Steer": "workbench.interventions.steer",
    "sweep": "workbench.interventions.sweep",
    "fit_transfer": "workbench.interventions.transfer",
    "top_k": "workbench.interventions.top_k",
    "dimension_curve": "workbench.interventions.dimensions",
    "routes": "workbench.interventions.routing",
    "routing_matrix": "workbench.interventions.routing_matrix",
    "dry_run": "workbench.planning.estimates",
    "organism": "workbench.organisms",
    "report": "workbench.reporting",
    "moments": "workbench.streaming",
    "Study": "workbench.study",
    "Subspace": "workbench.subspace.basis",
    "Directions": "workbench.subspace.directions",
    "with_mean": "workbench.subspace.directions",
    "load_directions": "workbench.subspace.exchange",
    "save_directions": "workbench.subspace.exchange",
    "difference_of_means": "workbench.subspace.means",
    "Moments": "workbench.subspace.moments",
    "cosine_matrix": "workbench.subspace.overlap",
    "principal_angles": "workbench.subspace.overlap",
    "pca": "workbench.subspace.pca",
    "StreamedMoments": "workbench.subspace.streamed",
    "shift_pca": "workbench.subspace.shift",
    "SHIFT_VARIANTS": "workbench.subspace.shift",
    "shift_against": "workbench.subspace.shift_against",
    "write_from_read": "workbench.subspace.shift_scale",
    "train_lora": "workbench.training.adapters",
    "lora_factors": "workbench.training.lora_files",
    "Recipe": "workbench.training.recipes",
    "PopulationFailed": "workbench.training.population",
    "scaled_adapter": "workbench.training.scaling",
    "EarlyStop": "workbench.training.drift_rules",
    "Signal": "workbench.training.drift_rules",
    "lead_time": "workbench.training.drift_rules",
    "forecasts": "workbench.training.drift_rules",
    "Drift": "workbench.interventions.drift",
    "check_data": "workbench.training.check",
    "mix": "workbench.training.mixtures",
    "read_table": "workbench.training.tables",
    "Columns": "workbench.training.tables",
    "insert_trigger": "workbench.training.triggers",
}


def _refuse_shadowed_rooms() -> None:
    """A `hooks.py` or `stores/` beside a user's script would be imported in place of ours: refused, with the mend."""
    home = Path(__file__).resolve().parent.parent
    for room in ("hooks", "stores"):
        spec = importlib.util.find_spec(room)
        found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if found is None or found.parent.parent != home:
            raise ImportError(
                f"workbench needs its own package '{room}' (in {home}), but Python finds {found or 'none'} first. "
                "Rename that file or folder, or run the script from another folder."
            )


_refuse_shadowed_rooms()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}.")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOME, "__version__"])


__all__ = list(_HOME)
