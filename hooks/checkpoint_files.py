"""The files of a checkpoint folder, judged before transformers acts on them: what they name stays in the folder,
nothing in them runs, and the model that the config describes is one that the weights can fill."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hooks.plain_files import Refused, json_file
from hooks.weight_files import header_of

LARGEST_JSON, LARGEST_VOCABULARY = 32 * 2**20, 2**30  # bytes
MOST_LAYERS = 1000
ROOM = 4  # times the stored numbers: a model may hold an embedding twice, and buffers
_VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_INDEX, _WEIGHTS = "model.safetensors.index.json", "model.safetensors"


def check_folder(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every stored weight. Raises FileNotFoundError without safetensors weights, and Refused for JSON
    that is broken or huge, and for weights that are named outside the folder or are no whole files."""
    for file in sorted(folder.glob("*.json")):
        large = file.name in _VOCABULARIES
        if file.is_file() and file.stat().st_size > (LARGEST_VOCABULARY if large else LARGEST_JSON):
            raise Refused(f"{file} has {file.stat().st_size:,} bytes: expected a checkpoint's own JSON files.")
        if not large:  # some real ones state infinity (a limit that is none), and some say a thing twice
            json_file(file, LARGEST_JSON, infinite=True, repeated=True)
    files = [folder / _WEIGHTS]
    if (folder / _INDEX).is_file():
        told = json_file(folder / _INDEX, LARGEST_JSON, repeated=True)
        places = told.get("weight_map") if isinstance(told, dict) else None
        if not isinstance(places, dict) or not all(isinstance(one, str) for one in places.values()):
            raise Refused(f"{folder / _INDEX} has no weight_map of names: expected what transformers writes.")
        if odd := next((one for one in places.values() if Path(one).name != one), None):
            raise Refused(f"{folder / _INDEX} names {odd[:80]!a}: expected files of this folder.")
        files = [folder / name for name in sorted(set(places.values()))]
    elif not files[0].is_file():
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        why = " Its pickled weights (.bin, .pt) may run code: expected them converted." if pickled else ""
        if (folder / "adapter_config.json").is_file():
            why = f" It holds an adapter: load_model(BASE, adapter={str(folder)!r}), BASE what it was trained on."
        raise FileNotFoundError(f"{folder} has no {_WEIGHTS}: expected weights as .safetensors.{why}")
    return {name: shape for file in files for name, (_, shape) in header_of(file).items()}


def check_config(name: str, config: Any, trusted: bool) -> None:
    """Raises Refused for settings that fetch and run code (kernels from a hub) unless it is trusted, and for numbers of
    layers that no model has. `config` is transformers' own, or a dict."""
    for key, value in _settings(config):
        if "implementation" in key and isinstance(value, str) and "/" in value and not trusted:
            raise Refused(
                f"the config of {name} says {key}={value[:80]!a}, which fetches and runs code of others: expected a "
                "plain name such as 'sdpa', or load_model(..., trust_remote_code=True)."
            )
        if key in _LAYERS and isinstance(value, int) and not 0 <= value <= MOST_LAYERS:
            raise Refused(f"the config of {name} says {key}={value}: expected at most {MOST_LAYERS} layers.")


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    """Every setting with its name, those of configs inside the config too. (`to_dict` leaves out some that count.)"""
    waiting = [config]
    while waiting:
        one = waiting.pop()
        for key, value in (one if isinstance(one, Mapping) else vars(one)).items():
            yield str(key), value
            if isinstance(value, Mapping) or hasattr(value, "to_dict"):
                waiting.append(value)


def check_size(name: str, kind: Any, config: Any, stored: Mapping[str, tuple[int, ...]], trusted: bool) -> None:
    """Raises Refused for a config whose model has more numbers than the weights could fill: those that are missing
    would be made, whatever memory it takes. The model is built without memory to count them."""
    layers = [value for key, value in _settings(config) if key in _LAYERS and isinstance(value, int)]
    if max(layers, default=0) > len(stored):
        raise Refused(
            f"the config of {name} has {max(layers)} layers, its files {len(stored)} weights: expected both whole."
        )
    try:
        with torch.device("meta"):
            asked = sum(weight.numel() for weight in kind.from_config(config, trust_remote_code=trusted).parameters())
    except Exception:  # whatever it is, transformers says it when it loads the model
        return
    held = sum(math.prod(shape) for shape in stored.values())
    if asked > ROOM * held:
        raise Refused(
            f"the config of {name} describes a model of {asked:,} numbers, and its files hold {held:,}: expected whole "
            ".safetensors files that fit its config.json."
        )
