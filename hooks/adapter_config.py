"""The settings of an adapter folder, judged before peft acts on them: peft imports modules that they name, runs
patterns that they hold, and makes matrices of the rank that they state."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hooks.plain_files import Refused, json_file, nearest
from hooks.weight_files import header_of

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
LARGEST_SETTINGS = 2**20  # bytes
LONGEST_PATTERN, MOST_REPEATS = 4096, 8
# What would run a module of the folder's choosing, or build layers that no stored tensor asks for.
_NEVER = ("megatron_config", "layer_replication")


def adapter_config(folder: Path) -> dict[str, Any]:
    """What adapter_config.json says. Raises FileNotFoundError where the folder is no adapter with safetensors weights,
    and Refused for settings that are no JSON object, name modules to import, hold patterns that may take for ever, or
    ranks above every side of the stored tensors."""
    if not (folder / SETTINGS).is_file() or not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = " Its adapter_model.bin is a pickle, which may run code: expected it converted." if pickled else ""
        if not folder.is_dir():
            why = f" There is no such folder.{nearest(folder)} (A name of the hub is not looked up: download it first.)"
        elif (folder / "config.json").is_file():
            why = " It holds a whole model: load_model loads it by itself, without adapter=."
        raise FileNotFoundError(f"{folder} is no adapter: expected {SETTINGS} and {WEIGHTS} in it.{why}")
    said = json_file(folder / SETTINGS, LARGEST_SETTINGS)
    if not isinstance(said, dict) or not isinstance(said.get("peft_type", "LORA"), str):
        raise Refused(f"{folder / SETTINGS} is no JSON object of an adapter's settings: expected what peft writes.")
    for name in _NEVER:
        if said.get(name):
            raise Refused(f"{folder / SETTINGS}: {name} is {said[name]!r:.80}; expected an adapter without it.")
    for pattern in _patterns(said):
        if why := _why_slow(pattern):
            raise Refused(f"{folder / SETTINGS}: the pattern {pattern[:60]!a} {why}")
    _refuse_ranks(folder, said)
    return said


def _patterns(said: Mapping[str, Any]) -> Iterator[str]:
    """Everything that peft reads as a regular expression."""
    for name in ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save"):
        given = said.get(name)
        yield from (str(one) for one in (given if isinstance(given, list) else [given]) if one is not None)
    for name in ("rank_pattern", "alpha_pattern"):
        given = said.get(name) or {}
        if not isinstance(given, dict):
            raise Refused(f"{name} is {type(given).__name__}: expected an object of patterns and numbers.")
        yield from given


def _why_slow(pattern: str) -> str:
    """Why a search for the pattern may take for ever; "" for what peft and its users write."""
    if len(pattern) > LONGEST_PATTERN:
        return f"has {len(pattern):,} characters: expected at most {LONGEST_PATTERN:,}."
    plain = re.sub(r"\\.|\[[^\]]*\]", "x", pattern)
    if re.search(r"\)\s*[*+{]", plain):
        return "repeats a group, which may take for ever: expected names, or a pattern without repeated groups."
    if len(re.findall(r"[*+]|\{\d*,", plain)) > MOST_REPEATS:
        return f"has more than {MOST_REPEATS} open repeats, which may take for ever: expected at most that."
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is no regular expression ({error})."
    return ""


def _refuse_ranks(folder: Path, said: Mapping[str, Any]) -> None:
    """Of LoRA: other kinds have other words for their sizes, and their own checks."""
    sides = [side for _, shape in header_of(folder / WEIGHTS).values() for side in shape]
    if said.get("peft_type", "LORA") != "LORA":
        return
    ranks = [said.get("r"), *(said.get("rank_pattern") or {}).values()]
    alphas = [said.get("lora_alpha"), *(said.get("alpha_pattern") or {}).values()]
    for one in ranks:
        if type(one) is not int or not 1 <= one <= max(sides, default=0):
            raise Refused(
                f"{folder / SETTINGS}: rank {one!r:.40} came, and the largest side of a stored tensor is "
                f"{max(sides, default=0)}: expected the rank of these tensors."
            )
    if not all(type(one) in (int, float) for one in alphas):
        raise Refused(f"{folder / SETTINGS}: alpha {alphas!r:.60} came: expected numbers.")
