"""Continued fine-tuning: a new adapter that begins where another one ended, so that a repair starts from the harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hooks.adapter_config import WEIGHTS, adapter_config
from hooks.weight_files import tensors_of
from workbench.training.lora_files import lora_factors
from workbench.training.model_parts import ASKED_AS
from workbench.training.published import record_of


def settings_of_start(start: Path) -> dict[str, Any]:
    """The settings that an adapter folder fixes for whatever continues it: targets, rank, alpha, rslora, and what of an
    image-text model stays frozen."""
    config = adapter_config(start)
    targets, record = config["target_modules"], record_of(start)
    return {
        **{name: record[name] for name in ASKED_AS if record.get(name)},
        "rank": config["r"],
        "alpha": config["lora_alpha"],
        "targets": targets if isinstance(targets, str) else sorted(targets),
        "rslora": bool(config.get("use_rslora")),
    }


def refuse_other_base(start: Path, base_hash: str) -> None:
    """Raises ValueError when the record of the start names other base weights."""
    trained_on = str(record_of(start).get("base"))
    if len(trained_on) == len(base_hash) == 64 and trained_on != base_hash:
        raise ValueError(
            f"start={start} was trained on another base (weights {trained_on[:12]}; these are {base_hash[:12]}): "
            "expected an adapter of this base."
        )


@torch.no_grad()
def begin_from(peft: Any, start: Path) -> None:
    """Gives a new adapter of the PeftModel, still untrained, the numbers of the one in `start`, bit for bit.

    Raises ValueError unless both have the same modules, ranks and scalings, and the start is factors and nothing else.
    """
    theirs = lora_factors(start)
    if theirs.left_out:
        name, why = next(iter(theirs.left_out.items()))
        raise ValueError(f"start={start} holds {name} ({why}): expected a LoRA adapter of B and A factors alone.")
    asked = {one.module: (one.rank, one.scaling) for one in lora_factors(peft)}
    came = {one.module: (one.rank, one.scaling) for one in theirs}
    if asked != came:
        odd = next(module for module in (*asked, *came) if asked.get(module) != came.get(module))
        raise ValueError(
            f"start={start} does not fit these settings: at {odd} expected {_named(asked.get(odd))}, came "
            f"{_named(came.get(odd))} ({len(asked)} modules expected, {len(came)} came). A fine-tune continues with "
            "the start's own targets, rank, alpha and rslora: leave them out of the call and they are taken from it."
        )
    stored = tensors_of(start / WEIGHTS)
    factors = {name.replace(".default", ""): weight for name, weight in peft.named_parameters() if "lora_" in name}
    if lost := sorted(factors.keys() ^ {key for key in stored if "lora_" in key}):
        raise ValueError(
            f"{len(lost)} tensors of start={start} found no place, or no tensor (first: {lost[0]}): expected an "
            "adapter saved by this version of peft for this architecture."
        )
    for name, weight in factors.items():
        weight.copy_(stored[name])


def _named(found: tuple[int, float] | None) -> str:
    return "no adapter" if found is None else f"rank {found[0]} with scaling {found[1]:g}"
