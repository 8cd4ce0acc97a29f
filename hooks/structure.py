"""What a model says of itself before anything runs: its decoder and image encoder, their module lists and depth."""

from __future__ import annotations

from typing import Any

from torch import nn

_DEPTH_NAMES = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "depth")


class UnsupportedArchitecture(ValueError):
    """The model has no single residual stream, or it was not found; the message says what was looked for."""


def unwrapped(model: Any) -> Any:
    """The Hugging Face model inside a PEFT wrapper; its adapters stay injected, and active."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def decoder_of(model: Any) -> nn.Module:
    """The module whose lists are searched for the language stream."""
    # get_decoder() is best effort: on some classes it returns the LM head. It counts only if it holds a module list.
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    return decoder if isinstance(decoder, nn.Module) and module_lists(decoder) else model


def text_depth(model: Any) -> int | None:
    """The number of decoder blocks that the config states."""
    return _stated(model.config.get_text_config(decoder=True))


def image_encoder_of(model: Any) -> tuple[nn.Module, int | None]:
    """The module that holds the vision blocks, and the number of blocks that its config states."""
    config = model.config
    vision = next((found for name in _VISION_CONFIGS if (found := getattr(config, name, None)) is not None), None)
    if vision is None and getattr(model, "main_input_name", "") == "pixel_values":
        return model, _stated(config)  # an image encoder by itself
    if vision is None:
        raise UnsupportedArchitecture(f"{type(model).__name__} has no vision tower: its config has no vision_config.")
    depth = _stated(vision) if not isinstance(vision, dict) else None
    encoder = model.get_encoder(modality="image") if hasattr(model, "get_encoder") else model
    if encoder is model or not isinstance(encoder, nn.Module) or not module_lists(encoder):
        named = [part for name, part in model.named_modules() if name.rpartition(".")[2] in _VISION_NAMES]
        encoder = next((part for part in named if module_lists(part)), encoder)
    return encoder, depth


_VISION_CONFIGS = ("vision_config", "vision_encoder_config", "visual_config")
_VISION_NAMES = ("vision_tower", "vision_model", "visual", "vision_encoder", "vision_embed_tokens")


def has_vision(config: Any) -> bool:
    return any(getattr(config, name, None) is not None for name in _VISION_CONFIGS)


def image_token_id(config: Any) -> int | None:
    """The id of the tokens that carry image features, by the config; a processor's own attribute may differ."""
    for name in ("image_token_id", "image_token_index"):
        if isinstance(value := getattr(config, name, None), int):
            return value
    return None


def module_lists(root: nn.Module) -> list[nn.ModuleList]:
    """The outermost module lists under `root`, in order; lists inside a block are its own business."""
    found: list[nn.ModuleList] = []
    for child in root.children():
        found += [child] if isinstance(child, nn.ModuleList) and len(child) > 0 else module_lists(child)
    return found


def parameter_count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _stated(config: Any) -> int | None:
    for name in _DEPTH_NAMES:
        if isinstance(value := getattr(config, name, None), int):
            return value
    return None
