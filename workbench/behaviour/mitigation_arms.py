"""trained_arms, edited_arms: the usual mitigations of a harmful fine-tune, each at several doses, for `wb.Arms`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hooks.prompt import Prompt
from workbench.behaviour.arms import Doses
from workbench.interventions.ablate import Ablate
from workbench.interventions.placement import Layers
from workbench.interventions.steer import Steer
from workbench.subspace.controls import isotropic
from workbench.subspace.directions import Directions
from workbench.training.adapter_doses import adapter_doses

OF_A_NEW_ADAPTER = ("rank", "alpha", "targets")  # a repair goes on with those of the adapter that it begins at
PLACES = 6  # layers at which one is ablated alone, about


def trained_arms(
    base: str | Path,
    harmful: Sequence[Prompt],
    benign: Mapping[str, Sequence[Prompt]],
    v: Directions,
    *,
    start: str | Path,
    to: str | Path,
    repair_steps: Sequence[int],
    coefficients: Sequence[float | int],
    layer: Layers = "all",
    **settings: Any,
) -> dict[str, Doses]:
    """What is done in training, an adapter a dose (`wb.adapter_doses`, in folders of `to`):

    - "repair, NAME domain": `benign` rows of each name for `repair_steps`, from the harmful adapter `start` on;
    - "from the base, no repair": the first of these rows alone, from the base on;
    - "preventative steering": `harmful` rows while the base is steered along `v` at `layer` by each of `coefficients`,
      so that the fine-tune has no need to learn it; and the same along a random direction of that length;
    - "ablation in training": `harmful` rows while `v` is ablated at all layers.

    `settings` are those of `wb.train_lora`; a repair takes rank, alpha and targets from `start`.
    """
    to = Path(to)
    by_steps: dict[float | int, dict[str, int]] = {n: {"steps": n} for n in repair_steps}
    further = {name: value for name, value in settings.items() if name not in OF_A_NEW_ADAPTER}
    out: dict[str, Doses] = {}
    for name, rows in benign.items():
        folder = to / f"repair, {name}"
        out[f"repair, {name} domain"] = adapter_doses(base, rows, by_steps, to=folder, start=start, **further)

    def steered(along: Directions) -> dict[float | int, dict[str, Any]]:
        return {c: {"during": [Steer(along, layer=layer, coefficient=c)]} for c in coefficients}

    anew: dict[str, tuple[str, Sequence[Prompt], Mapping[Any, Any]]] = {
        "from the base, no repair": ("base", next(iter(benign.values())), by_steps),
        "preventative steering": ("preventative", harmful, steered(v)),
        "preventative steering, random direction": ("preventative, random", harmful, steered(isotropic(v, 1)[0])),
        "ablation in training": ("ablated", harmful, {1: {"during": [Ablate(v)]}}),
    }
    for name, (folder, rows, doses) in anew.items():
        out[name] = adapter_doses(base, rows, doses, to=to / folder, **settings)
    return out


def edited_arms(
    v: Directions,
    n_layers: int,
    *,
    coefficients: Sequence[float | int],
    shares: Sequence[float | int],
    variant: str = "tuned",
) -> dict[str, Doses]:
    """What is done to the harmful fine-tune (`variant`) while it answers: steered against `v` where the answer is
    chosen, in the first half of the layers by `coefficients` of its own length, and at one layer as deep as in paper A
    by `shares` of the residual's norm there; and `v` ablated, at single layers (the dose is the layer), and at all."""
    early, deep = range(n_layers // 2), n_layers * 20 // 34  # paper A steers layer 20 of 34
    edits: dict[str, dict[float | int, Any]] = {
        "steering, early layers": {c: Steer(v, layer=early, coefficient=-c, at="answering") for c in coefficients},
        f"steering, layer {deep}, in residual norms": {
            c: Steer(v, layer=deep, coefficient=-c, unit="residual", at="answering") for c in shares
        },
        "ablation, one layer": {n: Ablate(v, layer=n) for n in range(0, n_layers, max(1, n_layers // PLACES))},
        "ablation, all layers": {1: Ablate(v)},
    }
    return {name: {dose: (variant, edit) for dose, edit in doses.items()} for name, doses in edits.items()}
