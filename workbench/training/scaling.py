"""Adapter scaling: the same B and A with another factor in front, for doses of a fine-tune between none and all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hooks.adapter_config import WEIGHTS, adapter_config
from hooks.load import folder_hash
from hooks.weight_files import header_of
from stores import content_key
from stores.files import write_file
from workbench.training.lora_files import lora_factors
from workbench.training.published import is_finished, publish, record_of


def scaled_adapter(adapter: str | Path, factor: float | int, *, to: str | Path) -> Path:
    """A new adapter folder whose change is `factor` x that of `adapter`, ΔW' = factor · scaling · B·A; returns `to`.

    Exact: alpha (and every alpha of its pattern) is multiplied, the weights are copied byte for byte, so rsLoRA and
    rank patterns keep their meaning. 1 gives the adapter's own numbers, 0 the base's bit for bit (`load_model` refuses
    an adapter that changes nothing: for dose 0 run the variant "base"), a negative factor goes the other way. A
    finished folder of the same adapter and factor is returned as it is.

    Raises ValueError for a factor that is no finite number, and for adapters that are not B·A alone (DoRA, whole
    modules or biases of their own, inits that moved the base). Source: model arithmetic with task vectors,
    arXiv:2212.04089.
    """
    source, to, factor = Path(adapter), Path(to), float(factor)
    if not math.isfinite(factor):
        raise ValueError(f"scaled_adapter(factor={factor}): expected a finite number.")
    lora_factors(source)  # refuses what is no B·A
    _refuse_whole_tensors(source)
    identity = folder_hash(source)
    key = content_key({"scaled": identity, "factor": factor})
    if is_finished(to, key):
        return to
    config = adapter_config(source)
    config["lora_alpha"] = _times(config["lora_alpha"], factor)
    config["alpha_pattern"] = {name: _times(alpha, factor) for name, alpha in (config["alpha_pattern"] or {}).items()}

    def write(folder: Path) -> None:
        write_file(folder / "adapter_model.safetensors", (source / "adapter_model.safetensors").read_bytes())
        write_file(folder / "adapter_config.json", json.dumps(config, indent=2, sort_keys=True))

    scaled_from = {"adapter": identity, "name": source.name, "factor": factor}
    publish(to, {**_without_key(record_of(source)), "key": key, "scaled_from": scaled_from}, write)
    return to


def _refuse_whole_tensors(source: Path) -> None:
    # peft copies the base's own embedding beside its factors; that is no part of the change.
    names = header_of(source / WEIGHTS)
    whole = [key for key in names if "lora_" not in key and not key.endswith("base_layer.weight")]
    if whole:
        raise ValueError(
            f"adapter {source} brings {len(whole)} whole tensors (first: {whole[0]}), which a factor in front of B·A "
            "does not scale: expected an adapter of factors alone (no modules_to_save, bias='none')."
        )


def _times(alpha: float | int, factor: float) -> float | int:
    """peft writes whole alphas as integers, and so do we."""
    scaled = alpha * factor
    return int(scaled) if scaled == int(scaled) else scaled


def _without_key(record: dict[str, Any]) -> dict[str, Any]:
    """What stays true of the scaled adapter; an alpha stands in its config alone."""
    return {name: value for name, value in record.items() if name not in ("key", "alpha", "seconds")}
