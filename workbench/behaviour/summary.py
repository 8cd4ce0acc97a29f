"""summarise: tables, directions, subspaces and maps as numbers with interval, n, clusters and controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hooks.site import Site
from workbench.behaviour.differences import Difference
from workbench.behaviour.dimension_summary import curve_entries
from workbench.behaviour.dose_trends import DoseTrend
from workbench.behaviour.judged_summary import difference_entry, measured_entry, trend_entry
from workbench.behaviour.measured import Measured
from workbench.behaviour.shift_summary import comparison_entries, overlap_entries, shift_entries
from workbench.behaviour.table_summary import plain_entry, table_entries
from workbench.interventions.dimension_result import DimensionCurve
from workbench.interventions.maps import TransferMap
from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions
from workbench.subspace.shift_against import ShiftComparison
from workbench.subspace.shift_overlap import ShiftOverlap
from workbench.subspace.shift_result import ShiftPCA


def summarise(found: Any, *, condition: str | None = None, **facts: Any) -> list[dict[str, Any]]:
    """What was found, one entry a number, as `summary.json` holds them: of a table (see `table_entries`), of Directions
    (norm and reliability by layer), of a Subspace (explained variance by component with its null, effective rank), of
    a TransferMap (held-out R²), of a DoseTrend, or of judged answers (`wb.misalignment`, `wb.difference`) and
    causal curves (`wb.dimension_curves`), which know their condition, of a shift's decompositions (`wb.shift_pca`,
    `shift_against`, `shift_overlap`). Entries are taken as they are. `facts` go into every entry."""
    match found:
        case Measured():
            return [measured_entry(found, **facts)]
        case DimensionCurve():
            return curve_entries(found, **facts)
        case Difference():
            return [difference_entry(found, **facts)]
        case list() if found and all(isinstance(one, Measured | Difference | DimensionCurve) for one in found):
            return [entry for one in found for entry in summarise(one, **facts)]
        case list() if all(isinstance(one, dict) for one in found):  # none of them: nothing was found to tell
            return [{**one, **facts} for one in found]
    if condition is None:
        raise ValueError(f"summarise({type(found).__name__}) needs a condition: expected condition='tuned', for one.")
    match found:
        case Directions():
            return direction_entries(found, condition=condition, **facts)
        case Subspace():
            return spectrum_entries(found, condition=condition, **facts)
        case DoseTrend():
            return [trend_entry(found, condition=condition, **facts)]
        case ShiftComparison():
            return comparison_entries(found, condition=condition, **facts)
        case ShiftPCA():
            return shift_entries(found, condition=condition, **facts)
        case ShiftOverlap():
            return overlap_entries(found, condition=condition, **facts)
        case TransferMap():
            return map_entries(found, condition=condition, **facts)
        case _:
            return table_entries(found, condition=condition, **facts)


def direction_entries(v: Directions, *, condition: str, **facts: Any) -> list[dict[str, Any]]:
    """Norm and split-half reliability of a direction, layer by layer."""
    out = []
    for i, site in enumerate(v.sites):
        same = _at(site, condition, facts)
        out.append(plain_entry("norm", float(v.norm[i]), v.n_positive, same))
        if v.reliability is not None:
            out.append(plain_entry("reliability", float(v.reliability[i]), v.n_positive, same))
    return out


def spectrum_entries(subspace: Subspace, *, condition: str, **facts: Any) -> list[dict[str, Any]]:
    """Share of variance of every kept component (numbered from 1 by `coefficient`), its null band under condition
    `CONDITION_null`, and the effective rank, layer by layer."""
    out = []
    for i, site in enumerate(subspace.sites):
        same = _at(site, condition, facts)
        for j in range(subspace.k):
            out.append(
                plain_entry(
                    "explained_variance", float(subspace.explained[i, j]), subspace.n, {**same, "coefficient": j + 1}
                )
            )
            if subspace.null is not None:
                low, high = (float(end) for end in subspace.null[i, j])
                null = {**same, "condition": f"{condition}_null", "coefficient": j + 1, "interval": [low, high]}
                method = f"5 % to 95 % of {subspace.draws} draws, {subspace.null_kind}"
                out.append(
                    {**plain_entry("explained_variance", (low + high) / 2, subspace.n, null), "interval_method": method}
                )
        out.append(plain_entry("effective_rank", float(subspace.effective_rank[i]), subspace.n, same))
    return out


def map_entries(
    found: TransferMap, *, condition: str, along: Directions | None = None, **facts: Any
) -> list[dict[str, Any]]:
    """Held-out R² of a map between models, layer by layer of the target, and R² along the image of a direction."""
    measured = {"r2": found.r2, "r2_along": {} if along is None else found.r2_along(along)}
    return [
        plain_entry(metric, float(value), found.n_held_out, _at(site, condition, facts))
        for metric, values in measured.items()
        for site, value in values.items()
    ]


def _at(site: Site, condition: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What every entry of one site states: it was measured on the prompts that directions are fitted on."""
    place = {"split": "fit", "modality": "all", "layer": site.layer, "detail": str(site)}
    return {"condition": condition, **place, **facts}
