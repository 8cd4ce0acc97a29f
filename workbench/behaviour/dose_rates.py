"""dose_rates, dose_gaps: a metric at every dose (rank of an adapter, share of harmful rows), by adapter, over adapters,
and against the base model or the same prompts shown otherwise."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from workbench.behaviour.differences import difference
from workbench.behaviour.judged import Judged
from workbench.behaviour.judged_summary import difference_entry, measured_entry
from workbench.behaviour.measured import misalignment
from workbench.behaviour.metrics import Metric

Doses = Mapping[str, float | int]  # condition -> its dose
Replicates = Mapping[str, Hashable]  # condition -> its fine-tuning seed


def dose_rates(
    judged: Judged, by: str | Metric, doses: Doses, *, of: str, replicates: Replicates, base: str | None = "base"
) -> list[dict[str, Any]]:
    """Entries for `study.add`: the metric of every condition, with its dose as `coefficient` and its fine-tuning seed
    in `detail`; of every dose over its seeds (condition "rank 8" for `of="rank"`); and the paired difference of every
    dose, over its seeds, from `base` ("rank 8 - base"), and from dose 0 where there is one: the same fine-tune without.

    Intervals are over prompt families: they say how other questions would move the number of these adapters. Another
    fine-tuning seed may move it further; the seeds' own numbers show how far. Raises ValueError where doses have
    different numbers of seeds, or a condition is not there.
    """
    groups, over = _groups(doses, replicates)
    alone = {one.condition: one for one in misalignment(judged, by, base=base)}
    pooled = judged.pooled({f"{of} {dose:g}": names for dose, names in groups.items()})
    together = {one.condition: one for one in misalignment(pooled, by, base=base)}
    out = [measured_entry(alone[base], detail="no fine-tune")] if base in alone else []
    out += [
        measured_entry(alone[name], coefficient=float(dose), detail=f"fine-tuning seed {replicates[name]}")
        for name, dose in doses.items()
    ]
    out += [measured_entry(together[f"{of} {dose:g}"], coefficient=dose, detail=over) for dose in groups]
    for dose in groups if base in alone else ():
        gap = difference(pooled, by, f"{of} {dose:g}", str(base))
        out.append(difference_entry(gap, coefficient=dose, detail=over))
    for dose in (one for one in groups if one and 0.0 in groups):
        gap = difference(pooled, by, f"{of} {dose:g}", f"{of} 0")
        out.append(difference_entry(gap, coefficient=dose, detail=over))
    return out


def dose_gaps(
    judged: Judged, by: str | Metric, doses: Doses, twins: Mapping[str, str], *, of: str, replicates: Replicates
) -> list[dict[str, Any]]:
    """The paired difference, at every dose and over its fine-tuning seeds, of each condition from its twin: the same
    prompts, shown otherwise ({"rank8-seed0/multimodal": "rank8-seed0/text_only"})."""
    groups, over = _groups(doses, replicates)
    sides: dict[str, list[str]] = {}
    for dose, names in groups.items():
        sides[f"{of} {dose:g}, {_shown(names[0])}"] = names
        sides[f"{of} {dose:g}, {_shown(twins[names[0]])}"] = [twins[name] for name in names]
    pooled, listed = judged.pooled(sides), list(sides)
    pairs = zip(groups, listed[::2], listed[1::2], strict=True)
    return [
        difference_entry(difference(pooled, by, one, other), coefficient=dose, detail=over)
        for dose, one, other in pairs
    ]


def _groups(doses: Doses, replicates: Replicates) -> tuple[dict[float, list[str]], str]:
    """The conditions of every dose, in the order of their fine-tuning seeds, and words for these."""
    groups: dict[float, list[str]] = {}
    for name in sorted(doses, key=lambda name: (float(doses[name]), str(replicates[name]))):
        groups.setdefault(float(doses[name]), []).append(name)
    return groups, f"over fine-tuning seeds {', '.join(sorted({str(replicates[name]) for name in doses}))}"


def _shown(condition: str) -> str:
    return condition.rpartition("/")[2]
