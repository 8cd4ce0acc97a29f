"""transfer_matrix: what was carried into the recipients, as one matrix of specificity indexes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from workbench.interventions.specificity import Families, NotMeasurable, Specificity, specificity
from workbench.interventions.transfer_matrix_cells import Key
from workbench.interventions.transfer_matrix_result import POOLED, TransferCell, TransferMatrix
from workbench.interventions.transfer_matrix_sweep import UNEDITED, Readings, Transfers, by_family
from workbench.statistics import DRAWS_FOR_P


def transfer_matrix(transfers: Sequence[Transfers], *, least: float | int = 0.05) -> TransferMatrix:
    """The matrix of these recipients. Questions about the donor's or the recipient's domain are left out of each cell.

    A cell whose recipient has no gap between base and fine-tune of at least `least` (in the units of the measure) on
    these questions is not measurable, and says so. With fewer than 99 control draws of its own a cell is compared with
    the draws of all donors of the same recipient and operation together. Raises ValueError for no recipient, and for
    recipients that were measured differently.
    """
    if not transfers or len({one.measure for one in transfers}) != 1:
        raise ValueError(f"expected recipients of one measure: {[one.measure for one in transfers] or 'none'} came.")
    cells = [cell for one in transfers for cell in _cells_of(one, float(least))]
    return TransferMatrix(tuple(cells), transfers[0].measure, float(least))


def _cells_of(into: Transfers, least: float) -> list[TransferCell]:
    found = []
    for key in into.keys:
        without = {str(name) for name in (into.domain, into.domains.get(key.donor)) if name is not None}
        alike = into.domain is not None and into.domains.get(key.donor) == into.domain
        kind = "own" if key.donor in into.own else "same domain" if alike else "other"
        place = TransferCell(key.donor, into.recipient, key.by, key.operation, kind, None)
        place = replace(place, beside={**into.effect.beside.get(key, {}), **_right(into.effect)})
        try:
            index, questions = _specificity(into, key, without, least)
            found.append(replace(place, found=index, questions=questions))
        except NotMeasurable as why:
            found.append(replace(place, why=str(why)))
    return _pooled(found)


def _right(effect: Readings) -> dict[str, float]:
    right = effect.beside.get(UNEDITED, {}).get("p_right")
    return {} if right is None else {"unedited_p_right": right}


def _specificity(into: Transfers, key: Key, without: set[str], least: float) -> tuple[Specificity, int]:
    drawn = into.draws(key)
    flat = [one for listed in drawn.values() for one in listed]
    base = into.base.of(UNEDITED)
    runs = into.effect.of(*flat)
    # A control's answer that the judge could not score counts as the base's: in favour of the control.
    values = np.vstack([base, into.effect.of(UNEDITED, key), np.where(np.isfinite(runs), runs, base)])
    moved = by_family(into.effect.questions, values, without)
    kept = None
    if into.capability is not None:
        kept = by_family(into.capability.questions, into.capability.of(UNEDITED, key, *flat), without)
    places, controls = {one: n for n, one in enumerate(flat)}, {}
    for kind, listed in drawn.items():
        rows = np.array([places[one] for one in listed])
        lost = None if kept is None else Families(kept.names, kept.values[2 + rows])
        controls[kind] = (Families(moved.names, moved.values[3 + rows]), lost)
    capability = None if kept is None else (_row(kept, 0), _row(kept, 1))
    before, tuned, edited = (_row(moved, n) for n in range(3))
    found = specificity(before, tuned, edited, capability, controls=controls, least=least)
    asked = sum(one.tags.get("domain") not in without for one in into.effect.questions)
    return found, asked


def _row(of: Families, n: int) -> Families:
    return Families(of.names, of.values[n])


def _pooled(cells: Sequence[TransferCell]) -> list[TransferCell]:
    """Cells with too few draws of their own share those of all donors under the same map and operation."""
    out = []
    for cell in cells:
        if cell.found is None or not cell.found.draws or max(map(len, cell.found.draws.values())) >= DRAWS_FOR_P:
            out.append(cell)
            continue
        alike = [one.found for one in cells if (one.by, one.operation) == (cell.by, cell.operation) and one.found]
        pooled = {
            f"{kind}{POOLED}": tuple(value for one in alike for value in one.draws.get(kind, ()))
            for kind in cell.found.draws
        }
        out.append(replace(cell, found=replace(cell.found, draws={**cell.found.draws, **pooled})))
    return out
