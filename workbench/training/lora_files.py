"""Reads the factors of a LoRA adapter from its folder, or from a model in memory."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hooks.adapter_config import WEIGHTS, adapter_config
from hooks.adapter_files import MOVED_BASE
from hooks.adapter_rows import lora_layers
from hooks.weight_files import tensors_of
from workbench.training.factors import Factor, LoraFactors

_VISION = re.compile(r"(^|\.)(vision\w*|visual\w*|image_encoder)\.")
_NUMBER = re.compile(r"\.(\d+)\.")


def lora_factors(adapter: Any, variant: str | None = None) -> LoraFactors:
    """The factors of an adapter: a folder, or an adapter of a model in memory (from `load_model`, or a PeftModel;
    `variant` names it, by default the one that is on).

    Scalings are alpha / rank, alpha / √rank for rsLoRA, with the folder's rank and alpha patterns. Raises ValueError
    for adapters whose change is no B·A on the base: DoRA, other kinds than LoRA, inits that moved the base.
    """
    if isinstance(adapter, str | Path):
        if variant is not None:
            raise ValueError("a folder holds one adapter: expected no variant= with it.")
        return _of_folder(Path(adapter))
    return _of_model(adapter, variant)


def _of_folder(folder: Path) -> LoraFactors:
    config = adapter_config(folder)
    _refuse_other_kinds(str(folder), config)
    stored = {
        key.removeprefix("base_model.model."): _array(value) for key, value in tensors_of(folder / WEIGHTS).items()
    }
    found, left_out = [], {}
    for key, a in stored.items():
        match = re.fullmatch(r"(.+)\.lora_(embedding_)?A(\.weight)?", key)
        if match is None:
            # peft copies the base's own embedding beside its factors; `load_model` refuses one that differs.
            if not re.search(r"\.lora_(embedding_)?B|\.base_layer\.weight$", key):
                left_out[key] = "a whole tensor, not factors"
            continue
        module, b = match[1], stored[key.replace("lora_A", "lora_B").replace("lora_embedding_A", "lora_embedding_B")]
        rank = config["rank_pattern"].get(_pattern(config["rank_pattern"], module), config["r"])
        alpha = config["alpha_pattern"].get(_pattern(config["alpha_pattern"], module), config["lora_alpha"])
        if len(a) != rank:
            left_out[module] = f"factors of {len(a) // rank} matrices in one (experts)"
            continue
        scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
        found.append(_factor(module, scaling, a, b))
    return _ordered(folder.name, found, left_out)


def _of_model(model: Any, variant: str | None) -> LoraFactors:
    module = getattr(model, "module", model)  # load_model's, or a PeftModel
    active = getattr(model, "active", None) or getattr(model, "active_adapter", None)
    variant = variant or (active if isinstance(active, str) else "base")
    layers: dict[str, Any] = lora_layers(module)
    names = sorted({name for layer in layers.values() for name in (*layer.lora_A, *layer.lora_embedding_A)})
    if variant not in names:
        raise ValueError(f"variant {variant!r} has no LoRA factors: expected one of {', '.join(names) or 'none'}.")
    found, left_out = [], {}
    for path, layer in layers.items():
        path = path.removeprefix("base_model.model.")
        if variant not in layer.scaling:
            continue
        if layer.use_dora.get(variant):
            _refuse_other_kinds(variant, {"use_dora": True})
        embeds = variant in layer.lora_embedding_A
        a = layer.lora_embedding_A[variant] if embeds else layer.lora_A[variant].weight
        b = layer.lora_embedding_B[variant] if embeds else layer.lora_B[variant].weight
        if len(a) != layer.r[variant]:
            left_out[path] = f"factors of {len(a) // layer.r[variant]} matrices in one (experts)"
            continue
        found.append(_factor(path, float(layer.scaling[variant]), _array(a), _array(b)))
    return _ordered(variant, found, left_out)


def _refuse_other_kinds(adapter: str, config: Mapping[str, Any]) -> None:
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise ValueError(f"adapter {adapter} is of the kind {kind}: expected LoRA, whose change is B·A.")
    if config.get("use_dora"):
        raise ValueError(
            f"adapter {adapter} is a DoRA: it rescales every row of the whole weight, so its change is no B·A. "
            "Expected a LoRA without use_dora."
        )
    if str(config.get("init_lora_weights")).startswith(MOVED_BASE):
        raise ValueError(
            f"adapter {adapter} (init_lora_weights={config['init_lora_weights']!r}) was trained on a base from which "
            "its beginning was taken away, so B·A is not its change: expected it converted to plain LoRA."
        )


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


def _factor(module: str, scaling: float, a: np.ndarray, b: np.ndarray) -> Factor:
    number = _NUMBER.search(f".{module}.")
    tower = "vision" if _VISION.search(module) else "language"
    # Convolutions have their kernel behind the channels.
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return Factor(module, tower, int(number[1]) if number else None, scaling, a, b)


def _ordered(adapter: str, found: Sequence[Factor], left_out: Mapping[str, str]) -> LoraFactors:
    if not found:
        raise ValueError(f"adapter {adapter} has no LoRA factors: expected lora_A and lora_B of at least one module.")
    order = sorted(found, key=lambda one: (one.tower != "vision", one.layer is not None, one.layer or 0))
    return LoraFactors(adapter, tuple(order), dict(left_out))


def _pattern(patterns: Mapping[str, Any], module: str) -> str:
    """The pattern that peft finds first for a module: it matches the end of its path."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), module)
