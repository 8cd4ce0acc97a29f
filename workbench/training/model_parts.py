"""The parts of an image-text model that an adapter may act on: language model, vision tower, and what joins them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import nn

from hooks.adapter_rows import lora_layers
from hooks.structure import UnsupportedArchitecture, decoder_of, has_vision, image_encoder_of, unwrapped

Part = Literal["language", "vision", "projector"]
# The word of `train_lora` that asks for a part.
ASKED_AS: Mapping[str, Part] = {"tower": "vision", "projector": "projector"}
# Qwen-VL and its kin keep what leads into the language model inside the tower's module.
_JOINT_IN_TOWER = re.compile(r"merger|projector|connector")


def model_parts(model: Any) -> dict[str, Part]:
    """The part that each module without children belongs to, by its path. A model that reads text only is all
    `language`; in others the `projector` is what is neither in the decoder nor in the tower, and a tower's own
    merger."""
    model = unwrapped(model)
    leaves = [name for name, module in model.named_modules() if not any(True for _ in module.children())]
    if not has_vision(model.config):
        return dict.fromkeys(leaves, "language")
    try:
        tower = _path_of(model, image_encoder_of(model)[0])
    except UnsupportedArchitecture:  # stages instead of blocks: a tower all the same
        tower = _path_of(model, model.get_encoder(modality="image"))
    decoder = _path_of(model, decoder_of(model))
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    heads = [_path_of(model, one) for one in ends if one is not None]

    def part_of(name: str) -> Part:
        if _inside(name, tower):
            return "projector" if _JOINT_IN_TOWER.search(name[len(tower) :]) else "vision"
        return "language" if any(_inside(name, one) for one in (decoder, *heads)) else "projector"

    return {name: part_of(name) for name in leaves}


def left_out(model: Any, settings: Mapping[str, Any]) -> str | None:
    """The regex over module paths of all that stays frozen (peft's `exclude_modules`), None where nothing does, by the
    settings `tower` and `projector`. Raises ValueError for a model that has no such part."""
    asked = _asked(settings)
    if not asked:
        return None
    for name, wish in asked.items():
        if wish not in ("frozen", "trained"):
            raise ValueError(f"{name}={wish!r}: expected 'frozen', 'trained', or None (what the targets say).")
    parts = model_parts(model)
    for name in asked:
        if ASKED_AS[name] not in parts.values():
            raise ValueError(
                f"{name}={asked[name]!r}, but {type(unwrapped(model)).__name__} has no {_spoken(ASKED_AS[name])}: "
                f"expected an image-text model, or a call without {name}."
            )
    frozen: set[Part] = {ASKED_AS[name] for name, wish in asked.items() if wish == "frozen"}
    roots = _roots(parts, frozen)
    return f"({'|'.join(map(re.escape, roots))})(\\..*)?" if roots else None


def adapted_parts(model: Any, settings: Mapping[str, Any]) -> dict[str, int]:
    """How many modules of each part have an adapter in them. Raises ValueError where a part that is to be trained has
    none."""
    module = unwrapped(model)
    parts = model_parts(module)
    # An adapted module has children now (its base layer, the factors), all of its own part.
    found = Counter(next(part for name, part in parts.items() if _inside(name, path)) for path in lora_layers(module))
    for name, wish in _asked(settings).items():
        if wish == "trained" and not found[ASKED_AS[name]]:
            raise ValueError(
                f"{name}='trained', but targets={_short(settings.get('targets'))} hit nothing in the "
                f"{_spoken(ASKED_AS[name])}: expected targets among its linear layers, which are "
                f"{_linear(module, parts, ASKED_AS[name])}."
            )
        assert wish != "frozen" or not found[ASKED_AS[name]], "the regex of left_out let an adapter in"
    names: tuple[Part, ...] = ("language", "vision", "projector")
    return {part: found[part] for part in names if part in parts.values()}


def refuse_unmoved(model: Any, moved: Iterable[str], settings: Mapping[str, Any]) -> None:
    """Raises ValueError when a part was to be trained and none of its adapters moved. `moved` are the names of the
    PeftModel's parameters that did."""
    parts = model_parts(model)
    moving = {parts.get(name.removeprefix("base_model.model.").rpartition(".")[0]) for name in moved}
    for name, wish in _asked(settings).items():
        if wish == "trained" and ASKED_AS[name] not in moving:
            raise ValueError(
                f"{name}='trained', but no adapter in the {_spoken(ASKED_AS[name])} moved: no gradient came there. "
                "Expected training rows with pictures, which are all that passes it."
            )


def _asked(settings: Mapping[str, Any]) -> dict[str, str]:
    return {name: settings[name] for name in ASKED_AS if settings.get(name) is not None}


def _path_of(model: nn.Module, module: Any) -> str:
    return next(name for name, part in model.named_modules() if part is module)


def _inside(name: str, path: str) -> bool:
    return not path or name == path or name.startswith(f"{path}.")


def _roots(parts: Mapping[str, Part], wanted: set[Part]) -> list[str]:
    """The shortest paths below which everything belongs to the wanted parts."""
    mixed = {at for name, part in parts.items() if part not in wanted for at in _above(name)}
    roots = [next(at for at in _above(name) if at not in mixed) for name, part in parts.items() if part in wanted]
    return list(dict.fromkeys(roots))


def _above(name: str) -> list[str]:
    """The paths of the module and of all that hold it, the longest last."""
    steps = name.split(".")
    return [".".join(steps[: n + 1]) for n in range(len(steps))]


def _linear(module: nn.Module, parts: Mapping[str, Part], part: Part) -> str:
    linear = [name for name, one in parts.items() if one == part and isinstance(module.get_submodule(name), nn.Linear)]
    names = sorted({name.rpartition(".")[2] for name in linear})
    return ", ".join(names) or "none (its weights are plain parameters, which LoRA does not adapt)"


def _spoken(part: Part) -> str:
    return {"vision": "vision tower", "projector": "projector", "language": "language model"}[part]


def _short(targets: Any) -> str:
    said = repr(targets)
    return said if len(said) <= 80 else said[:77] + "..."
