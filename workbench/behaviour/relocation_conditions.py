"""What is asked to find out what became of a harm: the conditions of `wb.relocation`, and how strongly to steer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.behaviour.arms import Arms
from workbench.behaviour.conditions import Given
from workbench.behaviour.judged import Judged
from workbench.behaviour.kept_quantities import quantities
from workbench.behaviour.metrics import Metric
from workbench.interventions.ablate import Ablate
from workbench.interventions.placement import Layers
from workbench.interventions.steer import Steer
from workbench.subspace.controls import isotropic
from workbench.subspace.rediscovered import Rediscovered

OLD, NEW, RANDOM = "base + old", "base + new", "base + random"


def inducing_arms(geometry: Rediscovered, coefficients: Sequence[float | int], layer: Layers = "all") -> Arms:
    """The base with the old, and with the new direction added at `layer`, at several strengths."""
    both = {OLD: geometry.old, NEW: geometry.new}
    return Arms(
        {name: {c: ("base", Steer(v, layer=layer, coefficient=c)) for c in coefficients} for name, v in both.items()}
    )


def strongest(judged: Judged, arms: Arms, by: str | Metric = "organism") -> dict[str, float | int]:
    """Arm -> the dose under which misalignment outside the fine-tuned domain is highest, the first of equal ones: to be
    chosen on dev questions. Too strong a push breaks a model before it persuades it, so one strength would not do."""
    found = quantities(judged, by)["misalignment"].of(judged)
    values = {name: one.value for name, one in found.items()}
    if unscored := [name for _, _, name in arms if values[name] is None]:
        raise ValueError(
            f"no answer of {unscored[0]!r} has a score: nothing can be chosen. Judge them "
            "first, or name another metric."
        )
    return {
        arm: max(doses, key=lambda dose, arm=arm: float(values[arms.name(arm, dose)] or 0.0))
        for arm, doses in arms.doses.items()
    }


def relocation_conditions(
    geometry: Rediscovered,
    repaired: str,
    layer: Layers = "all",
    *,
    coefficients: Mapping[str, float | int] | None = None,
    controls: int = 20,
    seed: int = 0,
) -> dict[str, Given]:
    """The conditions that `wb.relocation` needs, as `wb.sample_answers` takes them: the base and the variant `repaired`
    as they are; the base with the old and the new direction added at `layer` (`coefficients` of `strongest`, else 1),
    and with `controls` random directions of the new one's length and coefficient; the repaired model without the old,
    and without the new direction (all layers, to the base's mean)."""
    strength = {OLD: 1.0, NEW: 1.0, **(coefficients or {})}
    random = isotropic(geometry.new, controls, seed) if controls else []
    added = {OLD: (geometry.old, strength[OLD]), NEW: (geometry.new, strength[NEW])}
    added |= {f"{RANDOM} {n}": (one, strength[NEW]) for n, one in enumerate(random)}
    return {
        "base": "base",
        "repaired": repaired,
        **{name: ("base", Steer(v, layer=layer, coefficient=c)) for name, (v, c) in added.items()},
        "repaired - old": (repaired, Ablate(geometry.old)),
        "repaired - new": (repaired, Ablate(geometry.new)),
    }
