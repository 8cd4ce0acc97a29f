"""The numbers of one script across base seeds, side by side: those that lead its page, each with n and interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from workbench.reporting import sentences, style
from workbench.reporting.blocks import Block, Cell, Details, Table, Text
from workbench.reporting.dose_section import OVER, named
from workbench.reporting.summary import Result, Summary
from workbench.statistics import format_p

Key = tuple[Any, ...]
MOST = 60  # rows of one table
COUNTS = ("trend", "shift_k", "dimensions")  # how metrics begin whose numbers are no shares


def _doses(one: Result) -> bool:
    return (one.detail or "").startswith(OVER) and " - " not in one.condition


def _gaps(one: Result) -> bool:
    return (one.detail or "").startswith(OVER) and " - " in one.condition and " - base" not in one.condition


def _trends(one: Result) -> bool:
    return one.metric.startswith("trend of ")


def _causal(one: Result) -> bool:
    return one.metric in ("effect", "dimensions")


def _variance(one: Result) -> bool:
    plain = one.detail in ("paired_shift_raw", "paired_shift_centered", "unpaired")
    return one.metric in ("shift_variance", "shift_k_90") and plain and one.split in ("last token", "vision tower")


def _confirmed(one: Result) -> bool:
    return one.split == "confirm" and one.modality == "all" and one.detail == "misalignment"


def _routed(one: Result) -> bool:
    return one.split == "routing"


def _drifted(one: Result) -> bool:
    return one.split != "drift"


# What leads the page of each script: a heading, and which results. Another script's first results stand for it.
LEADING: Mapping[str, Mapping[str, Callable[[Result], bool]]] = {
    "lora_rank": {"Trends": _trends, "Over fine-tuning seeds": _doses, "Paired differences": _gaps},
    "harmful_fraction": {"Trends": _trends, "Over fine-tuning seeds": _doses, "Paired differences": _gaps},
    "shift_geometry": {"What taking out or keeping k dimensions does": _causal, "Spectra": _variance},
    "modality_routing": {"Changes along every route": _routed},
    "training_drift": {"Over runs": _drifted},
    "mitigation": {"The chosen doses on the confirm questions": _confirmed},
}


def side_by_side(script: str, summaries: Mapping[int, Summary]) -> list[Block]:
    """A table for each group of leading numbers: a row a number, a column a base seed; and how far the seeds agree."""
    groups = LEADING.get(script) or {"First results": lambda one: True}
    blocks: list[Block] = []
    for heading, leads in groups.items():
        found: dict[Key, dict[int, Result]] = {}
        for seed, summary in summaries.items():
            for one in filter(leads, summary.results):
                found.setdefault(_key(one), {}).setdefault(seed, one)
        if not found:
            continue
        rows = [_row(key, by_seed, summaries) for key, by_seed in found.items()]
        columns = ["number", *(f"base seed {seed}" for seed in summaries), "from", "to", "n"]
        first = Table(columns, rows[:MOST], heading)
        blocks.append(first)
        if rows[MOST:]:
            blocks.append(Details(f"{heading}: {len(rows) - MOST} more", [Table(columns, rows[MOST:])]))
    return blocks or [Text("", ["No numbers lead this page; see the runs' own sections."])]


def _key(one: Result) -> Key:
    return one.metric, one.condition, one.split, one.modality, one.layer, one.coefficient, one.detail, one.target


def _row(key: Key, by_seed: Mapping[int, Result], summaries: Mapping[int, Summary]) -> list[Cell]:
    metric, condition, split, modality, layer, coefficient, detail, _ = key
    told = [named(metric), condition, split if split != "none" else "", modality if modality != "all" else ""]
    told += ["" if layer is None else f"layer {layer}", _dose(condition, coefficient), _kind(detail)]
    values = [one.value for one in by_seed.values()]
    sizes = sorted({one.n for one in by_seed.values() if one.n is not None})
    counts = "" if not sizes else str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    cells = [_cell(by_seed.get(seed)) for seed in summaries]
    rate = all(abs(value) <= 1 for value in values) and not metric.startswith(COUNTS)
    ends: list[Cell] = [style.percent(end) if rate else end for end in (min(values), max(values))]
    return [", ".join(filter(None, told)), *cells, *ends, counts or None]


def _cell(one: Result | None) -> str | None:
    """Value and interval; then the p of its test or of its control, with the number of control runs."""
    if one is None:
        return None
    if one.metric.startswith(COUNTS) or abs(one.value) > 1:
        ends = "" if one.interval is None else f" ({one.interval[0]:.3g} to {one.interval[1]:.3g})"
        words = f"{one.value:.3g}{ends}".replace("-", "−")
    else:
        words = sentences.rate(one)
    if one.test is not None:
        words += f", p = {one.test.p:.2g}"
    elif one.control is not None and one.control.p is not None:
        words += f", p {format_p(one.control.p, one.control.N)} of {one.control.N} {one.control.kind.replace('_', '-')}"
    return words


def _dose(condition: str, coefficient: float | None) -> str:
    return "" if coefficient is None or f"{coefficient:g}" in condition else f"at {coefficient:g}"


def _kind(detail: str | None) -> str:
    """Details that tell numbers apart; those that are the same for all, or sentences, do not."""
    return "" if detail is None or detail.startswith(OVER) or len(detail) > 40 else detail
