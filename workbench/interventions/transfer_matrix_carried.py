"""Which directions are carried into a recipient, and by what: within one base as they are and by fitted maps, between
two bases by maps with their shuffles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.interventions.maps import TransferMap
from workbench.interventions.transfer import fit_transfers
from workbench.interventions.transfer_matrix_cells import IDENTITY, OPERATIONS, Carried, carried_by
from workbench.interventions.transfer_matrix_patch import Points
from workbench.interventions.transfer_matrix_rows import rows_outside
from workbench.interventions.transfer_rows import family_tag
from workbench.subspace.directions import Directions
from workbench.subspace.rows import RowSource

OWN, OTHER = "own direction", "other model"
BETWEEN = "between bases"


def learned(methods: Sequence[str]) -> list[Any]:
    """The methods that fit something."""
    return [method for method in methods if method != IDENTITY]


def own_direction(v: Directions, points: RowSource, domain: str | None, **facts: Any) -> Carried:
    """The recipient's own direction, the ceiling; `points` are its base's rows on its questions."""
    return Carried(OWN, v, points=Points.of(points), domain=domain, own=True, **facts)


def carried_as_is(
    recipient: tuple[str, str],
    donors: Mapping[str, str],
    directions: Mapping[str, Directions],
    points: RowSource,
    **facts: Any,
) -> list[Carried]:
    """What fine-tunes of one base carry into one of them as it is, which one base allows: the recipient's own
    direction, and those of the `donors` (domain -> variant) other than itself.

    `recipient` is (domain, variant), `directions` are by variant, `points` the base's rows on the questions. `facts`
    are further fields of `Carried`.
    """
    domain, variant = recipient
    own, there = directions[variant], Points.of(points)
    found = [own_direction(own, points, domain, **facts)]
    others = {donor: directions[name] for donor, name in donors.items() if name != variant}
    moved = {donor: v.replace(origin=own.origin) for donor, v in others.items()}
    return found + [Carried(donor, v, points=there, domain=donor, **facts) for donor, v in moved.items()]


def carried_within(
    recipient: tuple[str, str],
    donors: Mapping[str, str],
    directions: Mapping[str, Directions],
    held: Mapping[str, Any],
    points: RowSource,
    methods: Sequence[str],
    **facts: Any,
) -> list[Carried]:
    """The same by fitted maps from each donor's fine-tune to the recipient's, on each set of prompts in `held` (a store
    of all variants) outside both domains: "ridge on personas". Whole families of prompts are held out. Raises what
    `wb.fit_transfers` raises, for too few prompts above all."""
    domain, variant = recipient
    found: list[Carried] = []
    for donor, name in donors.items():
        for prompts, rows in held.items() if name != variant and learned(methods) else ():
            ends = [rows_outside(rows, end, donor, domain) for end in (name, variant)]
            fitted = fit_transfers(ends[0], ends[1], methods=learned(methods), family=family_tag(ends[0]))
            maps = {f"{how} on {prompts}": one for how, one in fitted.items()}
            given = {"domain": donor, "controlled": False, **facts}
            found += carried_by(maps, donor, directions[name], directions[variant], points, **given)
    return found


def maps_between(
    source: Mapping[str, RowSource], target: Mapping[str, RowSource], methods: Sequence[str], layers: str = "depth"
) -> dict[str, TransferMap]:
    """Maps from one base to another by name ("ridge on personas, between bases"), one for each method and each set of
    prompts that both have rows of; `layers` says how layers are matched, and is part of the name unless by depth."""
    said = "" if layers == "depth" else f", layers by {layers}"
    return {
        f"{how} on {prompts}, {BETWEEN}{said}": one
        for prompts in source
        for how, one in fit_transfers(
            source[prompts],
            target[prompts],
            methods=learned(methods),
            layers=layers,  # type: ignore[arg-type]
            family=family_tag(source[prompts]),
        ).items()
    }


def carried_between(
    maps: Mapping[str, TransferMap],
    donors: Mapping[str, Directions],
    own: Directions,
    points: RowSource,
    *,
    domain: str | None,
    of: str | None = None,
    operations: Sequence[str] = OPERATIONS,
    shuffles: int = 0,
    by: str = "label",
) -> list[Carried]:
    """What directions of another base (`donors` by name, which is what they were tuned on unless `of` says it) carry
    into a recipient tuned on `domain`, by maps between the bases. `points`: the donors' base on the questions.

    The donor that was tuned on the same domain is also ablated by every map refitted `shuffles` times on shuffled
    pairs: fully, and within the classes `by` where the map's rows have classes.
    """
    found = []
    for donor, v in donors.items():
        for how, carry in maps.items():
            learnt = of or donor
            facts: dict[str, Any] = {"domain": learnt, "controlled": False}
            drawn = _shuffled(carry, v, own, shuffles, by) if shuffles and learnt == domain else {}
            shown = [one for one in operations if drawn and one == "ablate"]
            rest = [one for one in operations if one not in shown]
            for acts, twins in ((shown, drawn), (rest, {})):
                if acts:
                    found += carried_by(
                        {how: carry}, donor, v, own, points, operations=tuple(acts), twins=twins, **facts
                    )
    return found


def _shuffled(carry: TransferMap, v: Directions, own: Directions, n: int, by: str) -> dict[str, list[Directions]]:
    out = {}
    for kind in ("full", "within_class"):
        try:
            refits = carry.shuffled(kind, by=by, n=n)  # type: ignore[arg-type]
        except ValueError:  # rows without classes: plain prompts
            continue
        out[f"{kind} shuffle"] = [one.map(v, own) for one in refits]
    return out
