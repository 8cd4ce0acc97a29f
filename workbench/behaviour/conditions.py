"""Conditions: the models that are compared, a variant of one model under the interventions that act on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.interventions.cells import Intervention, combined, fingerprint

Given = str | Intervention | Sequence[Any]
Edits = Mapping[Any, Sequence[Any]]


@dataclass(frozen=True)
class Condition:
    """`name` is what tables call it; `variant` an adapter, or "base"; `interventions` act together, in their order."""

    name: str
    variant: str
    interventions: tuple[Intervention, ...] = ()

    def edits(self, model: Any) -> Edits:
        return combined(model, self.interventions)

    def describe(self, model: Any) -> dict[str, Any]:
        """What a table's spec states: another direction is another table."""
        acts = [one.describe() for one in self.interventions]
        return {"name": self.name, "variant": self.variant, "acts": acts, "edits": fingerprint(self.edits(model))}


def conditions_of(model: Any, given: Mapping[str, Given] | Sequence[str] | None) -> list[Condition]:
    """The conditions asked for: names of variants; or a mapping from a name to a variant, an intervention on the
    model's active variant, or a tuple of a variant and interventions. None is the active variant as it is. Raises
    ValueError for what is none of these."""
    active = model.active or "base"
    if given is None:
        given = [active]
    named = given if isinstance(given, Mapping) else {name: name for name in given}
    if not named:
        raise ValueError("no conditions: expected at least one variant or intervention.")
    return [_condition(model, name, what, active) for name, what in named.items()]


def _condition(model: Any, name: str, what: Given, active: str) -> Condition:
    parts: list[Any] = [what] if isinstance(what, str | Intervention) else list(what)
    variant: str = parts.pop(0) if parts and isinstance(parts[0], str) else active
    if variant not in model.variants:
        raise ValueError(
            f"condition {name!r}: variant {variant!r} is not loaded: expected one of {', '.join(model.variants)}."
        )
    for one in parts:
        if not isinstance(one, Intervention):
            raise ValueError(
                f"condition {name!r} holds a {type(one).__name__}: expected a variant's name, interventions "
                "(wb.Ablate, wb.Steer, ...), or a tuple of a name and interventions."
            )
    return Condition(name, variant, tuple(parts))


def variants_a_batch(units: Sequence[Sequence[int]], lengths: Sequence[int], max_tokens: int) -> int:
    """How many variants may be rows of one batch: so many that the largest unit, for each of them, still fits."""
    largest = max((len(unit) * max(lengths[i] for i in unit) for unit in units), default=1)
    return max(1, max_tokens // largest)


def parts_of(model: Any, conditions: Sequence[Condition], most: int) -> dict[str, list[Condition]]:
    """The conditions that share batches, by the name of their part: those of one variant; and up to `most` variants
    that no intervention acts on, where the model can have adapters as rows."""
    by_variant: dict[str, list[Condition]] = {}
    for one in conditions:
        by_variant.setdefault(one.variant, []).append(one)
    plain = [name for name, own in by_variant.items() if not any(one.interventions for one in own)]
    if model.why_not_by_row(plain):
        most = 1
    shared = [plain[at : at + most] for at in range(0, len(plain), most)]
    alone = [[name] for name in by_variant if name not in plain]
    return {
        part[0] if len(part) == 1 else f"{part[0]}..{part[-1]}": [one for name in part for one in by_variant[name]]
        for part in (*shared, *alone)
    }
