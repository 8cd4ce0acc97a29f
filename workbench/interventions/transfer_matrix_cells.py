"""Donors' directions as they arrive in a recipient, and what is done with them there: ablate, steer, patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from stores.printed import Printed
from workbench.interventions.ablate import Ablate
from workbench.interventions.cells import Intervention
from workbench.interventions.maps import TransferMap
from workbench.interventions.placement import Layers
from workbench.interventions.steer import Steer
from workbench.interventions.transfer_matrix_patch import Patch, Points
from workbench.subspace import controls as control_directions
from workbench.subspace.directions import Directions
from workbench.subspace.rows import RowSource

OPERATIONS = ("ablate", "steer", "patch")
IDENTITY = "identity"
MATCHED = ("energy_matched", "isotropic")  # random controls that are alike to the direction in energy, or in length


class Key(NamedTuple):
    """Which cell of a recipient: the donor, what carried its direction, the operation, and which control draw."""

    donor: str
    by: str
    operation: str
    control: str | None = None
    draw: int | None = None


@dataclass(frozen=True, eq=False)
class Carried(Printed):
    """A donor's direction in a recipient's residual stream, and what carried it there (`by`: "identity", "ridge on
    personas", ...). `points` are the donor's base on the recipient's questions, in the same stream, for patches.

    `domain` is what the donor was tuned on: questions about it are left out. `own`: the donor is the recipient itself,
    whose direction is the ceiling. `operations` are those that are tried with it. `controlled`: random directions are
    drawn for it; `twins` are further controls by kind, such as the same direction under shuffled maps.
    """

    donor: str
    direction: Directions
    by: str = IDENTITY
    points: Points | None = None
    domain: str | None = None
    own: bool = False
    operations: tuple[str, ...] = OPERATIONS
    controlled: bool = True
    twins: Mapping[str, Sequence[Directions]] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)  # what is known of the map, such as its R²


def carried_by(
    maps: Mapping[str, TransferMap], donor: str, v: Directions, own: Directions, points: RowSource | None, **facts: Any
) -> list[Carried]:
    """`v` under each of these maps, with the origin of the recipient's `own` direction; `points`: the donor's base on
    the recipient's questions (None: no patch). `facts` are further fields of `Carried`; held-out R², in total and along
    v, are means over layers."""
    out = []
    for by, carry in maps.items():
        there = None if points is None else Points.of(points, carry)
        fits = {"map R2": carry.r2, "map R2 along v": carry.r2_along(v)}
        beside = {name: float(np.mean(list(values.values()))) for name, values in fits.items()}
        out.append(Carried(donor, carry.map(v, own), by, there, beside=beside, **facts))
    return out


def edits_of(
    carried: Sequence[Carried], steer_at: Layers, coefficient: float
) -> dict[Key, tuple[Carried, Intervention | Patch]]:
    """Every operation of every direction. A patch needs points; ablation goes back to the direction's origin, steering
    adds `coefficient` times the vector as it arrived."""
    found: dict[Key, tuple[Carried, Intervention | Patch]] = {}
    for one in carried:
        for operation in one.operations:
            if operation not in OPERATIONS:
                raise ValueError(f"operation {operation!r} is unknown: expected some of {', '.join(OPERATIONS)}.")
            if operation == "patch" and one.points is None:
                continue
            key = Key(one.donor, one.by, operation)
            if key in found:
                raise ValueError(f"{one.donor} arrives twice by {one.by}: expected each map of a donor once.")
            found[key] = one, acting(one.direction, operation, one.points, steer_at, coefficient)
    return found


def acting(
    v: Directions, operation: str, points: Points | None, steer_at: Layers, coefficient: float
) -> Intervention | Patch:
    """The operation along one direction."""
    if operation == "ablate":
        return Ablate(v)
    if operation == "steer":
        return Steer(v, layer=steer_at, coefficient=coefficient)
    assert points is not None
    return Patch(v, points)


def twins_of(
    key: Key, one: Carried, activations: RowSource | None, n: int, orthogonal: int, seed: int
) -> dict[Key, Directions]:
    """Directions to compare one cell with: its own twins, `n` random ones matched to it (in the energy that an ablation
    or a patch takes out, where `activations` are given; else in length), and `orthogonal` ones orthogonal to it."""
    drawn: dict[str, Sequence[Directions]] = dict(one.twins)
    if n and one.controlled and key.operation != "steer" and activations is not None:
        drawn["energy_matched"] = control_directions.energy_matched(one.direction, activations, n, seed)
    elif n and one.controlled:
        drawn["isotropic"] = control_directions.isotropic(one.direction, n, seed)
    if orthogonal and one.controlled:
        drawn["orthogonal"] = control_directions.orthogonal(one.direction, orthogonal, seed)
    return {
        key._replace(control=kind, draw=draw): direction
        for kind, listed in drawn.items()
        for draw, direction in enumerate(listed)
    }
