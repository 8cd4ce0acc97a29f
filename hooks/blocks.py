"""Finds the residual stream of a model by structure: the list of blocks that the stream passes through, one tower at a
time.

The only file that knows where modules are. A PEFT wrapper is unwrapped; the decoder (or image encoder) is asked of the
model itself; among its module lists the outermost one with the config's number of layers is the stream.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch import nn


class UnsupportedArchitecture(ValueError):
    """The model's residual stream was not found; the message says what was looked for."""


def unwrapped(model: Any) -> Any:
    """The Hugging Face model inside a PEFT wrapper; its adapters stay injected, and active."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def find_blocks(model: Any, tower: str = "language") -> list[nn.Module]:
    """The blocks of one tower, in the order in which the residual stream passes them.

    `tower` is `"language"` (the decoder) or `"vision"` (the image encoder). Raises UnsupportedArchitecture when no
    module list has the number of layers that the config states.
    """
    model = unwrapped(model)
    config = model.config
    if tower == "language":
        root, depth = _decoder(model), _layers_in(config.get_text_config(decoder=True))
    elif tower == "vision":
        vision = getattr(config, "vision_config", None)
        if vision is None:
            raise UnsupportedArchitecture(
                f"{type(model).__name__} has no vision tower: its config has no vision_config."
            )
        root, depth = model.get_encoder(modality="image"), _layers_in(vision)
    else:
        raise ValueError(f"tower {tower!r} is unknown: expected 'language' or 'vision'.")
    lists = [blocks for blocks in _outermost_lists(root) if len(blocks) == depth]
    if not lists:
        raise UnsupportedArchitecture(
            f"{type(model).__name__}: no module list of {depth} blocks (the {tower} config's layer count) under "
            f"{type(root).__name__}; found lists of {sorted(len(blocks) for blocks in _outermost_lists(root))}."
        )
    return list(max(lists, key=lambda blocks: sum(weight.numel() for weight in blocks.parameters())))


def towers_of(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The blocks of every tower that the model has: always `"language"`, and `"vision"` where one is found."""
    towers = {"language": find_blocks(model)}
    if getattr(unwrapped(model).config, "vision_config", None) is not None:
        # Convolutional or token-based encoders have no residual stream; asking for a vision site says so.
        with suppress(UnsupportedArchitecture):
            towers["vision"] = find_blocks(model, "vision")
    return towers


def image_token_id(config: Any) -> int | None:
    """The id of the tokens that carry image features, by the config; a processor's own attribute may differ."""
    for name in ("image_token_id", "image_token_index"):
        if isinstance(value := getattr(config, name, None), int):
            return value
    return None


def _decoder(model: Any) -> nn.Module:
    # get_decoder() is best effort: on some classes it returns the LM head. It counts only if it holds a module list.
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    return decoder if isinstance(decoder, nn.Module) and _outermost_lists(decoder) else model


def _layers_in(config: Any) -> int:
    for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth"):
        if isinstance(value := getattr(config, name, None), int):
            return value
    raise UnsupportedArchitecture(f"{type(config).__name__} states no number of layers.")


def _outermost_lists(root: nn.Module) -> list[nn.ModuleList]:
    found: list[nn.ModuleList] = []
    for child in root.children():
        found += [child] if isinstance(child, nn.ModuleList) and len(child) > 0 else _outermost_lists(child)
    return found
