"""What a model says of itself before anything runs: its decoder and image encoder, their module lists and depth."""

from __future__ import annotations

from types import SimpleNamespace
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
    vision, model_is_tower = vision_config(model.config), False
    if vision is None and _is_image_encoder(model):
        vision, model_is_tower = model.config, True
    if vision is None:
        raise UnsupportedArchitecture(
            f"{type(model).__name__} has no vision tower: expected a vision_config in its config."
        )
    for name in ("hidden_sizes", "depths"):
        stages = getattr(vision, name, None)
        if isinstance(stages, list | tuple) and len(stages) > 1:
            raise UnsupportedArchitecture(
                f"{type(model).__name__}: its image encoder has stages ({name} {list(stages)}: convolutions or a "
                "hierarchy), between which the width changes: there is no single residual stream."
            )
    depth = _stated(vision)
    if model_is_tower:
        return model, depth
    encoder = model.get_encoder(modality="image") if hasattr(model, "get_encoder") else model
    if encoder is model or not isinstance(encoder, nn.Module) or depth not in _lengths(encoder):
        # get_encoder() may be a text encoder, or the whole model: then the module that bears a tower's usual name.
        named = [part for name, part in model.named_modules() if name.rpartition(".")[2] in _VISION_NAMES]
        encoder = next((part for part in named if depth in _lengths(part)), encoder)
    return encoder, depth


_VISION_CONFIGS = ("vision_config", "vision_encoder_config", "visual_config")
_VISION_NAMES = ("vision_tower", "vision_model", "visual", "vision_encoder", "vision_embed_tokens", "encoder")
_DEEPEST = 2  # configs in configs: a policy around a vision-language model around its tower


def vision_config(config: Any, deep: int = 0) -> Any:
    """The config of the image encoder: stated by name, at most two configs down; None where there is none."""
    for name in _VISION_CONFIGS:
        found = getattr(config, name, None)
        if found is not None:
            return SimpleNamespace(**found) if isinstance(found, dict) else found
    parts = [part for value in vars(config).values() if hasattr(part := value, "model_type")]
    if deep < _DEEPEST:
        inner = next((found for part in parts if (found := vision_config(part, deep + 1)) is not None), None)
        if inner is not None:
            return inner
    # An encoder beside a text decoder that states a size of pictures is an image encoder.
    return next((part for part in parts if hasattr(part, "image_size") and hasattr(part, "patch_size")), None)


def _is_image_encoder(model: Any) -> bool:
    """True for a vision tower that was taken out of its model, and for an encoder that never was in one."""
    inside = getattr(type(model.config), "base_config_key", "") == "vision_config"
    return inside or getattr(model, "main_input_name", "") == "pixel_values"


def has_vision(config: Any) -> bool:
    return vision_config(config) is not None


def _lengths(module: nn.Module) -> set[int]:
    return {len(blocks) for blocks in module_lists(module)}


def image_token_id(config: Any) -> int | None:
    """The id of the tokens that carry image features, by the config; a processor's own attribute may differ."""
    for name in ("image_token_id", "image_token_index"):
        if isinstance(value := getattr(config, name, None), int):
            return value
    return None


def windows(config: Any) -> dict[str, Any]:
    """Which layers see how far back, as a model's identity states it; empty where every layer sees everything. What a
    last token can know of an early one depends on it, and by layer type, not by depth."""
    text = config.get_text_config(decoder=True)
    window, kinds = getattr(text, "sliding_window", None), getattr(text, "layer_types", None)
    if not isinstance(window, int) or (kinds is not None and "sliding_attention" not in kinds):
        return {}
    return {"sliding_window": window, "layer_types": list(kinds or [])}


def refuse_two_streams(config: Any) -> None:
    """Raises UnsupportedArchitecture for encoder-decoders, whose prompts stand in one stream and answers in another."""
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedArchitecture(
            f"{type(config).__name__} is an encoder-decoder: prompts pass the encoder and answers the decoder, so no "
            "token scope covers both. hooks.blocks.find_blocks finds the decoder's blocks for hooks of your own."
        )


def refuse_packed(module: nn.Module) -> None:
    """Raises ValueError for quantised weights, several numbers to a byte: hashes, factors and dtypes read off them
    would be nonsense."""
    for name, weight in module.named_parameters():
        if not weight.is_floating_point():
            raise ValueError(
                f"the weight {name} is packed ({str(weight.dtype).removeprefix('torch.')}, {tuple(weight.shape)}): "
                "expected floating-point weights. Load the checkpoint dequantised (dtype='bfloat16')."
            )


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
