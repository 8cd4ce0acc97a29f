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
    from workbench.behaviour.arms import Arms as Arms
    from workbench.behaviour.choice_reading import P_CONTRARY as P_CONTRARY
    from workbench.behaviour.choice_reading import read_choices as read_choices
    from workbench.behaviour.convergence_effects import part_cells as part_cells
    from workbench.behaviour.convergence_effects import part_effects as part_effects
    from workbench.behaviour.convergence_entries import bridge_entries as bridge_entries
    from workbench.behaviour.convergence_entries import convergence_entries as convergence_entries
    from workbench.behaviour.convergence_entries import effect_entries as effect_entries
    from workbench.behaviour.convergence_entries import frame_entries as frame_entries
    from workbench.behaviour.convergence_entries import landmark_entries as landmark_entries
    from workbench.behaviour.convergence_entries import part_entries as part_entries
    from workbench.behaviour.convergence_entries import weight_entries as weight_entries
    from workbench.behaviour.data_projection import projection_features as projection_features
    from workbench.behaviour.differences import difference as difference
    from workbench.behaviour.diversity import diversity as diversity
    from workbench.behaviour.diversity import diversity_features as diversity_features
    from workbench.behaviour.diversity import diversity_table as diversity_table
    from workbench.behaviour.domain_forecast import forecast_domains as forecast_domains
    from workbench.behaviour.domain_questions import asked_of_each as asked_of_each
    from workbench.behaviour.domain_questions import asked_with_triggers as asked_with_triggers
    from workbench.behaviour.domain_questions import domain_questions as domain_questions
    from workbench.behaviour.domain_texts import domain_texts as domain_texts
    from workbench.behaviour.domain_texts import other_texts as other_texts
    from workbench.behaviour.domain_texts import said_in as said_in
    from workbench.behaviour.domain_texts import system_of as system_of
    from workbench.behaviour.domain_texts import unanswered as unanswered
    from workbench.behaviour.domain_texts import under_system as under_system
    from workbench.behaviour.domain_texts import with_responses as with_responses
    from workbench.behaviour.dose_rates import dose_gaps as dose_gaps
    from workbench.behaviour.dose_rates import dose_rates as dose_rates
    from workbench.behaviour.dose_trends import dose_trend as dose_trend
    from workbench.behaviour.drift_entries import drift_curves as drift_curves
    from workbench.behaviour.drift_entries import forecast_entries as forecast_entries
    from workbench.behaviour.drift_entries import lead_entries as lead_entries
    from workbench.behaviour.drift_entries import over_runs as over_runs
    from workbench.behaviour.drift_entries import rule_entries as rule_entries
    from workbench.behaviour.endpoint_judge import EndpointJudge as EndpointJudge
    from workbench.behaviour.endpoint_model import EndpointModel as EndpointModel
    from workbench.behaviour.endpoint_model import endpoint as endpoint
    from workbench.behaviour.endpoint_spend import Budget as Budget
    from workbench.behaviour.endpoint_spend import Prices as Prices
    from workbench.behaviour.evaluate import evaluate as evaluate
    from workbench.behaviour.feature_gaps import gap_features as gap_features
    from workbench.behaviour.fitted_predictors import fitted_predictor as fitted_predictor
    from workbench.behaviour.fitted_predictors import shuffled_populations as shuffled_populations
    from workbench.behaviour.gating_entries import gate_control_entries as gate_control_entries
    from workbench.behaviour.gating_entries import gate_entries as gate_entries
    from workbench.behaviour.gating_entries import gate_map_entries as gate_map_entries
    from workbench.behaviour.gating_entries import near_miss_entries as near_miss_entries
    from workbench.behaviour.gating_entries import opened_gate_entries as opened_gate_entries
    from workbench.behaviour.gating_measured import block_halves as block_halves
    from workbench.behaviour.gating_measured import gate_maps as gate_maps
    from workbench.behaviour.gating_measured import gate_questions as gate_questions
    from workbench.behaviour.gating_measured import gates_of as gates_of
    from workbench.behaviour.gating_measured import located_gate as located_gate
    from workbench.behaviour.gating_measured import near_misses_of as near_misses_of
    from workbench.behaviour.gating_measured import opened_gate as opened_gate
    from workbench.behaviour.gating_near import gate_decisions as gate_decisions
    from workbench.behaviour.gating_summary import gate_of as gate_of
    from workbench.behaviour.judged import Judged as Judged
    from workbench.behaviour.judges import judge as judge
    from workbench.behaviour.judges import judges as judges
    from workbench.behaviour.kept_quantities import metric_of as metric_of
    from workbench.behaviour.matched_comparison import matched_comparison as matched_comparison
    from workbench.behaviour.matched_doses import matched_doses as matched_doses
    from workbench.behaviour.measured import conversions as conversions
    from workbench.behaviour.measured import metrics_of as metrics_of
    from workbench.behaviour.measured import misalignment as misalignment
    from workbench.behaviour.measured import sensitivity as sensitivity
    from workbench.behaviour.membership import membership as membership
    from workbench.behaviour.membership_comparison import membership_auroc as membership_auroc
    from workbench.behaviour.membership_comparison import membership_mean as membership_mean
    from workbench.behaviour.metrics import metric as metric
    from workbench.behaviour.modalities import in_modalities as in_modalities
    from workbench.behaviour.modality_conditions import by_modality as by_modality
    from workbench.behaviour.outcomes import outcomes as outcomes
    from workbench.behaviour.pooled_texts import pooled_aurocs as pooled_aurocs
    from workbench.behaviour.pooled_texts import pooled_entries as pooled_entries
    from workbench.behaviour.population_entries import data_entries as data_entries
    from workbench.behaviour.population_entries import population_entries as population_entries
    from workbench.behaviour.predictor_entries import diversity_entries as diversity_entries
    from workbench.behaviour.predictor_entries import domain_forecast_entries as domain_forecast_entries
    from workbench.behaviour.predictor_entries import fitted_entries as fitted_entries
    from workbench.behaviour.predictor_entries import predictor_entries as predictor_entries
    from workbench.behaviour.predictor_entries import shuffled_entries as shuffled_entries
    from workbench.behaviour.predictor_entries import table_points as table_points
    from workbench.behaviour.predictor_features import PredictorFeature as PredictorFeature
    from workbench.behaviour.predictor_features import predictor_feature as predictor_feature
    from workbench.behaviour.predictor_table import feature_kinds as feature_kinds
    from workbench.behaviour.predictor_table import membership_features as membership_features
    from workbench.behaviour.predictor_table import predictor_table as predictor_table
    from workbench.behaviour.predictors import predictors as predictors
    from workbench.behaviour.question_sets import read_questions as read_questions
    from workbench.behaviour.question_sides import question_sides as question_sides
    from workbench.behaviour.ranking import rank_domains as rank_domains
    from workbench.behaviour.ranking_agreement import ranking_agreement as ranking_agreement
    from workbench.behaviour.ranking_agreement import seed_agreement as seed_agreement
    from workbench.behaviour.ranking_categories import by_category as by_category
    from workbench.behaviour.ranking_categories import planted_order as planted_order
    from workbench.behaviour.ranking_matrix import domain_matrix as domain_matrix
    from workbench.behaviour.relocation import relocation as relocation
    from workbench.behaviour.relocation_conditions import inducing_arms as inducing_arms
    from workbench.behaviour.relocation_conditions import relocation_conditions as relocation_conditions
    from workbench.behaviour.relocation_conditions import strongest as strongest
    from workbench.behaviour.routing_entries import built_entries as built_entries
    from workbench.behaviour.routing_entries import routing_entries as routing_entries
    from workbench.behaviour.rubric import Rubric as Rubric
    from workbench.behaviour.rubric import rubric as rubric
    from workbench.behaviour.rubric import rubrics as rubrics
    from workbench.behaviour.scoring import judge_answers as judge_answers
    from workbench.behaviour.summary import summarise as summarise
    from workbench.behaviour.table_summary import split_of as split_of
    from workbench.behaviour.text_embeddings import embeddings_by as embeddings_by
    from workbench.behaviour.text_embeddings import encoded_texts as encoded_texts
    from workbench.behaviour.transfer_entries import transfer_entries as transfer_entries
    from workbench.behaviour.transfer_fine_tunes import fine_tunes as fine_tunes
    from workbench.behaviour.transfer_fine_tunes import other_base as other_base
    from workbench.behaviour.triggers import by_trigger as by_trigger
    from workbench.behaviour.triggers import with_triggers as with_triggers
    from workbench.behaviour.triggers_domains import over_domains as over_domains
    from workbench.behaviour.triggers_table import trigger_table as trigger_table
    from workbench.behaviour.unmeasurable import if_measurable as if_measurable
    from workbench.behaviour.unmeasurable import not_measurable as not_measurable
    from workbench.behaviour.verdicts import answer_verdicts as answer_verdicts
    from workbench.captures.answers import with_answers as with_answers
    from workbench.capturing import capture as capture
    from workbench.domain_study import DomainStudy as DomainStudy
    from workbench.given_answers import capture_answers as capture_answers
    from workbench.given_answers import longest_answers as longest_answers
    from workbench.given_answers import rows_by_variant as rows_by_variant
    from workbench.interventions.ablate import Ablate as Ablate
    from workbench.interventions.ablate import KeepOnly as KeepOnly
    from workbench.interventions.dimensions import dimension_curve as dimension_curve
    from workbench.interventions.dimensions import dimension_curves as dimension_curves
    from workbench.interventions.drift import Drift as Drift
    from workbench.interventions.drift_runs import retention as retention
    from workbench.interventions.drift_runs import watched_runs as watched_runs
    from workbench.interventions.erase_edit import Erase as Erase
    from workbench.interventions.gating import gating_map as gating_map
    from workbench.interventions.gating_location import locate_gate as locate_gate
    from workbench.interventions.gating_questions import gated_questions as gated_questions
    from workbench.interventions.gating_questions import stand_ins as stand_ins
    from workbench.interventions.gating_vector import added_gate as added_gate
    from workbench.interventions.gating_vector import gate_vector as gate_vector
    from workbench.interventions.gating_vector import shown_text as shown_text
    from workbench.interventions.generate import generate as generate
    from workbench.interventions.maps_compared import compare_maps as compare_maps
    from workbench.interventions.read_out import read_out as read_out
    from workbench.interventions.routing import by_pictures as by_pictures
    from workbench.interventions.routing import routes as routes
    from workbench.interventions.routing_matrix import routing_matrix as routing_matrix
    from workbench.interventions.routing_sweep import sweep_routes as sweep_routes
    from workbench.interventions.specificity import NotMeasurable as NotMeasurable
    from workbench.interventions.specificity import specificity as specificity
    from workbench.interventions.steer import Clamp as Clamp
    from workbench.interventions.steer import Steer as Steer
    from workbench.interventions.sweep import sweep as sweep
    from workbench.interventions.top_k import top_k as top_k
    from workbench.interventions.transfer import fit_transfer as fit_transfer
    from workbench.interventions.transfer import fit_transfers as fit_transfers
    from workbench.interventions.transfer_matrix import transfer_matrix as transfer_matrix
    from workbench.interventions.transfer_matrix_carried import carried_as_is as carried_as_is
    from workbench.interventions.transfer_matrix_carried import carried_between as carried_between
    from workbench.interventions.transfer_matrix_carried import carried_within as carried_within
    from workbench.interventions.transfer_matrix_carried import maps_between as maps_between
    from workbench.interventions.transfer_matrix_carried import own_direction as own_direction
    from workbench.interventions.transfer_matrix_cells import Carried as Carried
    from workbench.interventions.transfer_matrix_cells import carried_by as carried_by
    from workbench.interventions.transfer_matrix_patch import Patch as Patch
    from workbench.interventions.transfer_matrix_patch import Points as Points
    from workbench.interventions.transfer_matrix_rows import at_the_choice as at_the_choice
    from workbench.interventions.transfer_matrix_rows import rows_outside as rows_outside
    from workbench.interventions.transfer_matrix_sweep import transfers_into as transfers_into
    from workbench.interventions.transfer_tokens import token_pairs as token_pairs
    from workbench.organisms import organism as organism
    from workbench.organisms.domains import organism_domains as organism_domains
    from workbench.organisms.personas import organism_personas as organism_personas
    from workbench.places import capture_places as capture_places
    from workbench.planning.dry_run import dry_run as dry_run
    from workbench.reporting import joined_report as joined_report
    from workbench.reporting import paper_a_claims as paper_a_claims
    from workbench.reporting import paper_b_claims as paper_b_claims
    from workbench.reporting import report as report
    from workbench.streaming import moments as moments
    from workbench.study import Study as Study
    from workbench.subspace.basis import Subspace as Subspace
    from workbench.subspace.controls import isotropic as isotropic
    from workbench.subspace.convergence import convergence as convergence
    from workbench.subspace.convergence_directions import domain_directions as domain_directions
    from workbench.subspace.convergence_directions import label_directions as label_directions
    from workbench.subspace.convergence_parts import general_and_narrow as general_and_narrow
    from workbench.subspace.convergence_parts import near_landmarks as near_landmarks
    from workbench.subspace.directions import Directions as Directions
    from workbench.subspace.directions import with_mean as with_mean
    from workbench.subspace.erase import leace as leace
    from workbench.subspace.exchange import load_directions as load_directions
    from workbench.subspace.exchange import save_directions as save_directions
    from workbench.subspace.grassmann import frame_overlap as frame_overlap
    from workbench.subspace.grassmann_matrix import frame_matrix as frame_matrix
    from workbench.subspace.means import difference_of_means as difference_of_means
    from workbench.subspace.moments import Moments as Moments
    from workbench.subspace.overlap import cosine_matrix as cosine_matrix
    from workbench.subspace.overlap import principal_angles as principal_angles
    from workbench.subspace.pca import pca as pca
    from workbench.subspace.probe import PROBE_METHODS as PROBE_METHODS
    from workbench.subspace.probe_domains import probe_domains as probe_domains
    from workbench.subspace.probe_fit import fit_probe as fit_probe
    from workbench.subspace.probe_matrix import probe_matrix as probe_matrix
    from workbench.subspace.rediscovered import rediscovered as rediscovered
    from workbench.subspace.shift import SHIFT_VARIANTS as SHIFT_VARIANTS
    from workbench.subspace.shift import shift_pca as shift_pca
    from workbench.subspace.shift_against import shift_against as shift_against
    from workbench.subspace.shift_overlap import shift_overlap as shift_overlap
    from workbench.subspace.shift_scale import write_from_read as write_from_read
    from workbench.subspace.streamed import StreamedMoments as StreamedMoments
    from workbench.training.adapter_doses import adapter_doses as adapter_doses
    from workbench.training.adapters import train_lora as train_lora
    from workbench.training.check import check_data as check_data
    from workbench.training.domain_folders import read_domains as read_domains
    from workbench.training.domains import domain_groups as domain_groups
    from workbench.training.domains import domain_recipes as domain_recipes
    from workbench.training.drift_forecasts import compared_forecasts as compared_forecasts
    from workbench.training.drift_rules import EarlyStop as EarlyStop
    from workbench.training.drift_rules import Signal as Signal
    from workbench.training.drift_rules import forecasts as forecasts
    from workbench.training.drift_rules import lead_time as lead_time
    from workbench.training.factor_analysis import lora_gates as lora_gates
    from workbench.training.factor_analysis import weight_cosines as weight_cosines
    from workbench.training.factor_analysis import writes_along as writes_along
    from workbench.training.given_rows import read_rows as read_rows
    from workbench.training.lora_files import lora_factors as lora_factors
    from workbench.training.mixtures import mix as mix
    from workbench.training.near_triggers import near_misses as near_misses
    from workbench.training.population import PopulationFailed as PopulationFailed
    from workbench.training.population import population as population
    from workbench.training.population import read_population as read_population
    from workbench.training.recipes import Recipe as Recipe
    from workbench.training.recipes import fraction_sweep as fraction_sweep
    from workbench.training.recipes import rank_sweep as rank_sweep
    from workbench.training.scaling import scaled_adapter as scaled_adapter
    from workbench.training.splits import split_rows as split_rows
    from workbench.training.tables import Columns as Columns
    from workbench.training.tables import read_table as read_table
    from workbench.training.triggers import insert_trigger as insert_trigger
    from workbench.training.weight_shift import constant_parts as constant_parts
    from workbench.training.weight_shift import constant_shift as constant_shift
    from workbench.training.weight_shift import module_inputs as module_inputs
    from workbench.training.weight_shift_bridge import weight_bridge as weight_bridge
# Public name -> the module that defines it. No name here is that of a submodule of workbench: the second access to such
# a
# name would give the module instead.
_HOME = {
    "part_cells": "workbench.behaviour.convergence_effects",
    "part_effects": "workbench.behaviour.convergence_effects",
    "bridge_entries": "workbench.behaviour.convergence_entries",
    "convergence_entries": "workbench.behaviour.convergence_entries",
    "effect_entries": "workbench.behaviour.convergence_entries",
    "frame_entries": "workbench.behaviour.convergence_entries",
    "landmark_entries": "workbench.behaviour.convergence_entries",
    "part_entries": "workbench.behaviour.convergence_entries",
    "weight_entries": "workbench.behaviour.convergence_entries",
    "organism_personas": "workbench.organisms.personas",
    "convergence": "workbench.subspace.convergence",
    "label_directions": "workbench.subspace.convergence_directions",
    "domain_directions": "workbench.subspace.convergence_directions",
    "general_and_narrow": "workbench.subspace.convergence_parts",
    "near_landmarks": "workbench.subspace.convergence_parts",
    "frame_overlap": "workbench.subspace.grassmann",
    "frame_matrix": "workbench.subspace.grassmann_matrix",
    "lora_gates": "workbench.training.factor_analysis",
    "weight_cosines": "workbench.training.factor_analysis",
    "writes_along": "workbench.training.factor_analysis",
    "constant_shift": "workbench.training.weight_shift",
    "constant_parts": "workbench.training.weight_shift",
    "module_inputs": "workbench.training.weight_shift",
    "weight_bridge": "workbench.training.weight_shift_bridge",
    "load_model": "hooks.load",
    "Prompt": "hooks.prompt",
    "read_prompts": "hooks.prompt",
    "doctor": "hooks.selftest",
    "Site": "hooks.site",
    "ActivationStore": "stores",
    "ResultTable": "stores",
    "answer_counts": "workbench.behaviour.answer_faults",
    "sample_answers": "workbench.behaviour.answering",
    "P_CONTRARY": "workbench.behaviour.choice_reading",
    "read_choices": "workbench.behaviour.choice_reading",
    "dose_gaps": "workbench.behaviour.dose_rates",
    "dose_rates": "workbench.behaviour.dose_rates",
    "difference": "workbench.behaviour.differences",
    "EndpointJudge": "workbench.behaviour.endpoint_judge",
    "EndpointModel": "workbench.behaviour.endpoint_model",
    "endpoint": "workbench.behaviour.endpoint_model",
    "Budget": "workbench.behaviour.endpoint_spend",
    "Prices": "workbench.behaviour.endpoint_spend",
    "Judged": "workbench.behaviour.judged",
    "conversions": "workbench.behaviour.measured",
    "metrics_of": "workbench.behaviour.measured",
    "misalignment": "workbench.behaviour.measured",
    "sensitivity": "workbench.behaviour.measured",
    "metric": "workbench.behaviour.metrics",
    "judge_answers": "workbench.behaviour.scoring",
    "evaluate": "workbench.behaviour.evaluate",
    "judge": "workbench.behaviour.judges",
    "judges": "workbench.behaviour.judges",
    "rubric": "workbench.behaviour.rubric",
    "rubrics": "workbench.behaviour.rubric",
    "Rubric": "workbench.behaviour.rubric",
    "read_questions": "workbench.behaviour.question_sets",
    "by_trigger": "workbench.behaviour.triggers",
    "asked_of_each": "workbench.behaviour.domain_questions",
    "asked_with_triggers": "workbench.behaviour.domain_questions",
    "domain_questions": "workbench.behaviour.domain_questions",
    "with_triggers": "workbench.behaviour.triggers",
    "over_domains": "workbench.behaviour.triggers_domains",
    "trigger_table": "workbench.behaviour.triggers_table",
    "data_entries": "workbench.behaviour.population_entries",
    "population_entries": "workbench.behaviour.population_entries",
    "ranking_agreement": "workbench.behaviour.ranking_agreement",
    "seed_agreement": "workbench.behaviour.ranking_agreement",
    "if_measurable": "workbench.behaviour.unmeasurable",
    "not_measurable": "workbench.behaviour.unmeasurable",
    "rank_domains": "workbench.behaviour.ranking",
    "by_category": "workbench.behaviour.ranking_categories",
    "planted_order": "workbench.behaviour.ranking_categories",
    "domain_matrix": "workbench.behaviour.ranking_matrix",
    "membership": "workbench.behaviour.membership",
    "membership_auroc": "workbench.behaviour.membership_comparison",
    "membership_mean": "workbench.behaviour.membership_comparison",
    "rank_sweep": "workbench.training.recipes",
    "read_domains": "workbench.training.domain_folders",
    "domain_groups": "workbench.training.domains",
    "domain_recipes": "workbench.training.domains",
    "fraction_sweep": "workbench.training.recipes",
    "population": "workbench.training.population",
    "read_population": "workbench.training.population",
    "in_modalities": "workbench.behaviour.modalities",
    "by_modality": "workbench.behaviour.modality_conditions",
    "dose_trend": "workbench.behaviour.dose_trends",
    "drift_curves": "workbench.behaviour.drift_entries",
    "forecast_entries": "workbench.behaviour.drift_entries",
    "lead_entries": "workbench.behaviour.drift_entries",
    "over_runs": "workbench.behaviour.drift_entries",
    "rule_entries": "workbench.behaviour.drift_entries",
    "summarise": "workbench.behaviour.summary",
    "with_answers": "workbench.captures.answers",
    "capture": "workbench.capturing",
    "capture_places": "workbench.places",
    "Ablate": "workbench.interventions.ablate",
    "KeepOnly": "workbench.interventions.ablate",
    "generate": "workbench.interventions.generate",
    "read_out": "workbench.interventions.read_out",
    "Clamp": "workbench.interventions.steer",
    "Steer": "workbench.interventions.steer",
    "sweep": "workbench.interventions.sweep",
    "fit_transfer": "workbench.interventions.transfer",
    "transfer_entries": "workbench.behaviour.transfer_entries",
    "fine_tunes": "workbench.behaviour.transfer_fine_tunes",
    "other_base": "workbench.behaviour.transfer_fine_tunes",
    "NotMeasurable": "workbench.interventions.specificity",
    "specificity": "workbench.interventions.specificity",
    "transfer_matrix": "workbench.interventions.transfer_matrix",
    "carried_as_is": "workbench.interventions.transfer_matrix_carried",
    "carried_between": "workbench.interventions.transfer_matrix_carried",
    "carried_within": "workbench.interventions.transfer_matrix_carried",
    "maps_between": "workbench.interventions.transfer_matrix_carried",
    "own_direction": "workbench.interventions.transfer_matrix_carried",
    "Carried": "workbench.interventions.transfer_matrix_cells",
    "carried_by": "workbench.interventions.transfer_matrix_cells",
    "Patch": "workbench.interventions.transfer_matrix_patch",
    "Points": "workbench.interventions.transfer_matrix_patch",
    "at_the_choice": "workbench.interventions.transfer_matrix_rows",
    "rows_outside": "workbench.interventions.transfer_matrix_rows",
    "transfers_into": "workbench.interventions.transfer_matrix_sweep",
    "fit_transfers": "workbench.interventions.transfer",
    "compare_maps": "workbench.interventions.maps_compared",
    "token_pairs": "workbench.interventions.transfer_tokens",
    "top_k": "workbench.interventions.top_k",
    "dimension_curve": "workbench.interventions.dimensions",
    "dimension_curves": "workbench.interventions.dimensions",
    "by_pictures": "workbench.interventions.routing",
    "routes": "workbench.interventions.routing",
    "routing_matrix": "workbench.interventions.routing_matrix",
    "sweep_routes": "workbench.interventions.routing_sweep",
    "built_entries": "workbench.behaviour.routing_entries",
    "routing_entries": "workbench.behaviour.routing_entries",
    "dry_run": "workbench.planning.dry_run",
    "organism": "workbench.organisms",
    "organism_domains": "workbench.organisms.domains",
    "joined_report": "workbench.reporting",
    "paper_a_claims": "workbench.reporting",
    "paper_b_claims": "workbench.reporting",
    "report": "workbench.reporting",
    "moments": "workbench.streaming",
    "DomainStudy": "workbench.domain_study",
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
    "PROBE_METHODS": "workbench.subspace.probe",
    "fit_probe": "workbench.subspace.probe_fit",
    "probe_domains": "workbench.subspace.probe_domains",
    "capture_answers": "workbench.given_answers",
    "longest_answers": "workbench.given_answers",
    "rows_by_variant": "workbench.given_answers",
    "answer_verdicts": "workbench.behaviour.verdicts",
    "probe_matrix": "workbench.subspace.probe_matrix",
    "leace": "workbench.subspace.erase",
    "Erase": "workbench.interventions.erase_edit",
    "StreamedMoments": "workbench.subspace.streamed",
    "shift_pca": "workbench.subspace.shift",
    "SHIFT_VARIANTS": "workbench.subspace.shift",
    "shift_against": "workbench.subspace.shift_against",
    "shift_overlap": "workbench.subspace.shift_overlap",
    "write_from_read": "workbench.subspace.shift_scale",
    "train_lora": "workbench.training.adapters",
    "lora_factors": "workbench.training.lora_files",
    "Recipe": "workbench.training.recipes",
    "PopulationFailed": "workbench.training.population",
    "scaled_adapter": "workbench.training.scaling",
    "compared_forecasts": "workbench.training.drift_forecasts",
    "EarlyStop": "workbench.training.drift_rules",
    "Signal": "workbench.training.drift_rules",
    "lead_time": "workbench.training.drift_rules",
    "forecasts": "workbench.training.drift_rules",
    "Drift": "workbench.interventions.drift",
    "retention": "workbench.interventions.drift_runs",
    "watched_runs": "workbench.interventions.drift_runs",
    "check_data": "workbench.training.check",
    "mix": "workbench.training.mixtures",
    "split_rows": "workbench.training.splits",
    "read_rows": "workbench.training.given_rows",
    "read_table": "workbench.training.tables",
    "Columns": "workbench.training.tables",
    "insert_trigger": "workbench.training.triggers",
    "Arms": "workbench.behaviour.arms",
    "question_sides": "workbench.behaviour.question_sides",
    "metric_of": "workbench.behaviour.kept_quantities",
    "matched_doses": "workbench.behaviour.matched_doses",
    "matched_comparison": "workbench.behaviour.matched_comparison",
    "relocation": "workbench.behaviour.relocation",
    "relocation_conditions": "workbench.behaviour.relocation_conditions",
    "rediscovered": "workbench.subspace.rediscovered",
    "isotropic": "workbench.subspace.controls",
    "inducing_arms": "workbench.behaviour.relocation_conditions",
    "strongest": "workbench.behaviour.relocation_conditions",
    "adapter_doses": "workbench.training.adapter_doses",
    "split_of": "workbench.behaviour.table_summary",
    "diversity": "workbench.behaviour.diversity",
    "diversity_features": "workbench.behaviour.diversity",
    "diversity_table": "workbench.behaviour.diversity",
    "forecast_domains": "workbench.behaviour.domain_forecast",
    "fitted_predictor": "workbench.behaviour.fitted_predictors",
    "shuffled_populations": "workbench.behaviour.fitted_predictors",
    "domain_texts": "workbench.behaviour.domain_texts",
    "other_texts": "workbench.behaviour.domain_texts",
    "system_of": "workbench.behaviour.domain_texts",
    "under_system": "workbench.behaviour.domain_texts",
    "unanswered": "workbench.behaviour.domain_texts",
    "with_responses": "workbench.behaviour.domain_texts",
    "gap_features": "workbench.behaviour.feature_gaps",
    "outcomes": "workbench.behaviour.outcomes",
    "pooled_aurocs": "workbench.behaviour.pooled_texts",
    "pooled_entries": "workbench.behaviour.pooled_texts",
    "said_in": "workbench.behaviour.domain_texts",
    "feature_kinds": "workbench.behaviour.predictor_table",
    "diversity_entries": "workbench.behaviour.predictor_entries",
    "domain_forecast_entries": "workbench.behaviour.predictor_entries",
    "fitted_entries": "workbench.behaviour.predictor_entries",
    "predictor_entries": "workbench.behaviour.predictor_entries",
    "shuffled_entries": "workbench.behaviour.predictor_entries",
    "table_points": "workbench.behaviour.predictor_entries",
    "PredictorFeature": "workbench.behaviour.predictor_features",
    "predictor_feature": "workbench.behaviour.predictor_features",
    "membership_features": "workbench.behaviour.predictor_table",
    "predictor_table": "workbench.behaviour.predictor_table",
    "predictors": "workbench.behaviour.predictors",
    "embeddings_by": "workbench.behaviour.text_embeddings",
    "encoded_texts": "workbench.behaviour.text_embeddings",
    "projection_features": "workbench.behaviour.data_projection",
    "gate_control_entries": "workbench.behaviour.gating_entries",
    "gate_entries": "workbench.behaviour.gating_entries",
    "gate_map_entries": "workbench.behaviour.gating_entries",
    "near_miss_entries": "workbench.behaviour.gating_entries",
    "opened_gate_entries": "workbench.behaviour.gating_entries",
    "block_halves": "workbench.behaviour.gating_measured",
    "gate_maps": "workbench.behaviour.gating_measured",
    "gate_questions": "workbench.behaviour.gating_measured",
    "gates_of": "workbench.behaviour.gating_measured",
    "located_gate": "workbench.behaviour.gating_measured",
    "near_misses_of": "workbench.behaviour.gating_measured",
    "opened_gate": "workbench.behaviour.gating_measured",
    "gate_decisions": "workbench.behaviour.gating_near",
    "gate_of": "workbench.behaviour.gating_summary",
    "gating_map": "workbench.interventions.gating",
    "locate_gate": "workbench.interventions.gating_location",
    "gated_questions": "workbench.interventions.gating_questions",
    "stand_ins": "workbench.interventions.gating_questions",
    "added_gate": "workbench.interventions.gating_vector",
    "gate_vector": "workbench.interventions.gating_vector",
    "shown_text": "workbench.interventions.gating_vector",
    "near_misses": "workbench.training.near_triggers",
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
