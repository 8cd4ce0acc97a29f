"""A routing matrix as entries of `summary.json`: one a combination, those that are not possible with their reason."""

from __future__ import annotations

from typing import Any

from workbench.behaviour.table_summary import plain_entry
from workbench.interventions.routing import Skipped
from workbench.interventions.routing_built import BuiltDirections
from workbench.interventions.routing_matrix import Routed, RoutingMatrix
from workbench.statistics import DRAWS_FOR_P, p_value

BUILT = "routing directions"
ROUTING, IMPOSSIBLE = "routing", "not_possible"  # what `split` says of these entries; the metric of those without one


def routing_entries(matrix: RoutingMatrix, *, condition: str) -> list[dict[str, Any]]:
    """One entry a combination: the change of the measure, with `detail` "built->applied" and the evaluated prompts as
    `modality`. `test` is corrected for looking at the whole matrix, `control` has the changes under random twins,
    `companions` what was measured beside. A combination that cannot be is an entry of the metric "not_possible", whose
    `detail` ends with the reason; it has no change, which is not a change of 0."""
    return [
        *(_routed(one, matrix, condition) for one in matrix.entries),
        *(_skipped(one, condition) for one in matrix.skipped),
    ]


def built_entries(found: BuiltDirections) -> list[dict[str, Any]]:
    """Norm and split-half reliability of each direction, by where it was built (`condition`) and layer; None, where one
    could not be built, has no entries."""
    out = []
    for name, v in found.items():
        for i, site in enumerate(() if v is None else v.sites):
            assert v is not None
            facts = {"split": BUILT, "modality": "image", "condition": name, "layer": site.layer, "detail": str(site)}
            out.append(plain_entry("direction_norm", float(v.norm[i]), v.n_positive, facts))
            if v.reliability is not None:
                out.append(plain_entry("direction_reliability", float(v.reliability[i]), v.n_positive, facts))
    return out


def _routed(one: Routed, matrix: RoutingMatrix, condition: str) -> dict[str, Any]:
    control = None
    for kind, draws in one.controls.items():
        p = p_value(one.value, draws, "two-sided") if len(draws) >= DRAWS_FOR_P else None
        control = {"kind": kind, "N": len(draws), "p": p, "draws": list(draws)}
    facts = {
        "split": ROUTING,
        "modality": one.evaluated,
        "condition": condition,
        "detail": f"{one.built}->{one.applied}",
        "interval": [one.interval.low, one.interval.high],
        "interval_method": one.interval.method,
        "clusters": one.families,
        "test": {"p": one.p, "method": matrix.method},
        "equivalence": str(one.equivalence),
        "control": control,
        "dropped": one.dropped,
        "companions": {"unedited": one.unedited, "touched": one.touched, **one.beside},
    }
    return plain_entry(f"change of {matrix.measure}", one.value, one.pairs, facts)


def _skipped(one: Skipped, condition: str) -> dict[str, Any]:
    facts = {"split": ROUTING, "modality": one.evaluated, "condition": condition}
    return plain_entry(IMPOSSIBLE, 1.0, 0, {**facts, "detail": f"{one.built}->{one.applied}: {one.why}"})
