"""Modality routing: where a direction is built, where it is applied, and on which prompts that is evaluated, as three
different things.

A direction that was built at image positions need not act there, and what acts at image positions cannot be tried on
text. The routes are the combinations that exist; those that do not are named, with the reason, and never become zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hooks.model import TracedModel
from hooks.positions import Scope, checked_scope, scope_name
from hooks.prompt import Prompt
from stores.printed import Printed
from workbench.interventions.cells import Intervention
from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions

APPLIED = ("image", "text", "answering")
BEHIND = "causality: behind the last block nothing carries image positions to the answer"
UNEDITED = "unedited"  # what tables of answers call the condition that all others are compared with


@dataclass(frozen=True)
class Route:
    """An intervention with a direction `built` at some positions, `applied` at others, on the prompts `evaluated`."""

    built: str
    applied: str
    evaluated: str
    intervention: Intervention

    @property
    def name(self) -> str:
        """What tables of answers call its condition."""
        return f"{self.built}->{self.applied}"


@dataclass(frozen=True)
class Skipped:
    """A combination that cannot be tried, and why."""

    built: str
    applied: str
    evaluated: str
    why: str

    def __str__(self) -> str:
        return f"{self.built}->{self.applied} on {self.evaluated} prompts: {self.why}"


@dataclass(frozen=True)
class Routes(Printed):
    """All combinations: those to be run, in order, and those that cannot be. `evaluated` names the sets of prompts."""

    _items = "routes"

    routes: tuple[Route, ...]
    skipped: tuple[Skipped, ...]
    evaluated: tuple[str, ...]

    def on(self, evaluated: str) -> list[Route]:
        """The routes of one set of prompts, in the order of `cells`."""
        if evaluated not in self.evaluated:
            raise ValueError(f"there are no prompts {evaluated!r}: expected one of {', '.join(self.evaluated)}.")
        return [route for route in self.routes if route.evaluated == evaluated]

    def cells(self, evaluated: str) -> list[Intervention]:
        """For `wb.sweep` on these prompts; the sweep's own first cell is the unedited model."""
        return [route.intervention for route in self.on(evaluated)]

    def conditions(self, evaluated: str, variant: str = "base") -> dict[str, str | tuple[Any, ...]]:
        """For `wb.sample_answers` on these prompts: the `variant` as it is, and under each route."""
        edited = {route.name: (variant, route.intervention) for route in self.on(evaluated)}
        return {UNEDITED: variant, **edited}


def by_pictures(prompts: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    """The prompts without pictures as "text", those with as "image", each with that as its label; a kind that there is
    none of is left out."""
    found: dict[str, list[Prompt]] = {"text": [], "image": []}
    for prompt in prompts:
        kind = "image" if prompt.images else "text"
        found[kind].append(replace(prompt, label=kind))
    return {kind: listed for kind, listed in found.items() if listed}


def routes(
    directions: Mapping[str, Directions | Subspace | None],
    intervene: Callable[[Any, Any], Intervention],
    prompts: Mapping[str, Sequence[Prompt]],
    *,
    applied: Sequence[Scope] = APPLIED,
    model: TracedModel | None = None,
) -> Routes:
    """Every direction at every scope on every set of prompts.

    `directions` are named by where they were built (`{"image": v, "text": w, "response": u}`; None: could not be),
    `prompts` by what they show (`{"text": [...], "image": [...]}`); `intervene(direction, at)` makes the intervention,
    such as `lambda v, at: wb.Steer(v, layer=12, coefficient=-1.0, at=at)`. Skipped, with the reason: image scopes on
    prompts without pictures, and directions that are None or have norm 0 at every site (prompts that differ in their
    answers alone are the same at every position before these); with the `model`, also edits at image positions behind
    its last block, from where nothing reaches the answer. Raises ValueError where only some prompts of a set have
    pictures: rows that nothing touches would thin the others' effect.
    """
    shows = {name: _shows_pictures(name, listed) for name, listed in prompts.items()}
    found: list[Route] = []
    skipped: list[Skipped] = []
    for evaluated in prompts:
        for built, direction in directions.items():
            for scope in applied:
                place = (built, scope_name(checked_scope(scope)), evaluated)
                if why := _why_not(direction, scope, shows[evaluated]):
                    skipped.append(Skipped(*place, why))
                    continue
                made = intervene(direction, scope)
                if model is not None and scope == "image" and _behind_the_last_block(made, model):
                    skipped.append(Skipped(*place, BEHIND))
                else:
                    found.append(Route(*place, made))
    if not found:
        raise ValueError("no combination can be tried:\n" + "\n".join(map(str, skipped)))
    return Routes(tuple(found), tuple(skipped), tuple(prompts))


def _why_not(direction: Directions | Subspace | None, scope: Scope, shows: bool) -> str | None:
    if direction is None:
        return "no direction was built there"
    if isinstance(direction, Directions) and not np.any(direction.norm):
        return "the classes do not differ at the positions that the direction was built at (norm 0)"
    if scope in ("image", "text_after_image") and not shows:
        return "nothing to edit: these prompts have no image position"
    return None


def _behind_the_last_block(intervention: Intervention, model: TracedModel) -> bool:
    """Whether it edits nothing that a later block reads: positions exchange what they hold in blocks alone."""
    last = model.n_layers - 1
    return all(site.point == "resid_post" and site.layer == last for site in intervention.edits(model))


def _shows_pictures(name: str, prompts: Sequence[Prompt]) -> bool:
    with_picture = sum(bool(prompt.images) for prompt in prompts)
    if not prompts or 0 < with_picture < len(prompts):
        raise ValueError(
            f"{with_picture} of the {len(prompts)} prompts {name!r} have pictures: expected all of them, or none. Give "
            "them as two sets."
        )
    return with_picture > 0
