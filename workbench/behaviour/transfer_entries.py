"""A transfer matrix as summary entries: every cell, the mean of each map and operation, and what differs both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.behaviour.ranking_result import interval_facts
from workbench.behaviour.table_summary import plain_entry
from workbench.interventions.specificity import Specificity
from workbench.interventions.transfer_matrix_cells import MATCHED
from workbench.interventions.transfer_matrix_result import (
    Asymmetry,
    Overall,
    TransferCell,
    TransferMatrix,
    honest,
)
from workbench.statistics import DRAWS_FOR_P, p_value

SPLIT, MEAN, ASYMMETRY = "transfer matrix", "transfer matrix, mean", "transfer asymmetry"
INDEX, CLOSED, IMPOSSIBLE = "specificity", "gap closed", "transfer not measurable"


def transfer_entries(matrix: TransferMatrix, **facts: Any) -> list[dict[str, Any]]:
    """For `study.add`. Cells: split "transfer matrix", condition the donor, target the recipient, detail "OPERATION by
    MAP", metric `specificity` (`gap closed` where no capability was asked). Means over pairs of different domains:
    split "transfer matrix, mean", condition the map, target the operation. Split "transfer asymmetry": condition "A ->
    B", target the operation, detail the map. Cells that are not measurable say why in `detail`."""
    out = [_cell(cell, matrix) for cell in matrix.cells]
    for by, operation in matrix.kinds:
        if (mean := matrix.overall(by, operation)) is not None:
            out += _mean(mean, matrix)
        out += [_asymmetry(one) for one in matrix.asymmetries(by, operation)]
    return [{**entry, **facts} for entry in out]


def _cell(cell: TransferCell, matrix: TransferMatrix) -> dict[str, Any]:
    how = f"{cell.operation} by {cell.by}"
    place = {"split": SPLIT, "modality": "all", "layer": None, "condition": cell.donor, "target": cell.recipient}
    if cell.found is None:
        return plain_entry(IMPOSSIBLE, 1.0, 1, {**place, "detail": f"{how}: {cell.why}"})
    found = cell.found
    companions = {**_parts(found), **(cell.beside or {}), "same domain": float(cell.kind != "other")}
    control = None
    if found.draws:
        kind = honest(found)
        companions["percentile"] = found.percentile(kind)
        companions |= {f"percentile, {name}": found.percentile(name) for name in found.draws if name != kind}
        control = _control(found.value, kind, found.draws[kind])
    said = {"detail": how, "clusters": len(found.closed.families), "control": control, "companions": companions}
    metric = CLOSED if found.index is None else INDEX
    return plain_entry(metric, found.value, cell.questions, {**place, **interval_facts(found.bounds), **said})


def _parts(found: Specificity) -> dict[str, float]:
    out = {"gap closed": found.closed.value}
    if found.lost is not None:
        out["capability lost"] = found.lost.value
    names = ("base", "fine-tune", "edited", "capability before", "capability after")
    return out | dict(zip(names, found.means, strict=False))


def _mean(mean: Overall, matrix: TransferMatrix) -> list[dict[str, Any]]:
    metric = CLOSED if mean.lost is None else INDEX
    same = {"split": MEAN, "modality": "all", "condition": mean.by, "target": mean.operation}
    same |= {"clusters": min(mean.donors, mean.recipients)}
    companions: dict[str, float | None] = {"gap closed": mean.closed, "capability lost": mean.lost}
    companions |= {"own directions": mean.own, "same domain, another training": mean.same}
    companions["pairs above every control"] = float(mean.above) if mean.draws else None
    kinds = sorted(mean.draws, key=lambda kind: kind not in MATCHED)
    control = _control(mean.value, kinds[0], mean.draws[kinds[0]]) if kinds else None
    said = {**interval_facts(mean.interval), "control": control, "companions": companions}
    said["detail"] = f"{mean.pairs} pairs of {mean.donors} donors and {mean.recipients} recipients; {matrix.measure}"
    out = [plain_entry(metric, mean.value, mean.pairs, {**same, **said})]
    if mean.minus_identity is not None and mean.minus_interval is not None:
        less = {**interval_facts(mean.minus_interval), "detail": "minus the identity on the same pairs"}
        out.append(plain_entry(f"{metric}, minus identity", mean.minus_identity, mean.pairs, {**same, **less}))
    return out


def _asymmetry(one: Asymmetry) -> dict[str, Any]:
    place = {"split": ASYMMETRY, "modality": "all", "condition": f"{one.first} -> {one.second}"}
    place |= {"target": one.operation, "detail": one.by, "clusters": one.families, **interval_facts(one.interval)}
    place["test"] = {"p": one.p, "method": "Welch's t of linearised shares, Holm over the pairs"}
    return plain_entry("there minus back", one.difference, one.families, place)


def _control(value: float, kind: str, draws: tuple[float, ...]) -> Mapping[str, Any]:
    p = p_value(value, list(draws), "greater") if len(draws) >= DRAWS_FOR_P else None
    return {"kind": kind, "N": len(draws), "p": p, "draws": list(draws)}
