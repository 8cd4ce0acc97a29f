"""Image inputs for the models of the zoo: rows of words with one picture of noise each.

How many tokens a picture takes is asked of the model's own `get_image_features`; what families want in a form of their
own is in `zoo_scenes.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from zoo_scenes import OWN, Inputs, Scene, pixels


def image_inputs(model: Any, name: str, picture: int = 0, words: int = 1, length: int = 8) -> Inputs:
    """One row with one picture; `picture` and `words` are the seeds of its pixels and of its `length` words."""
    scene = Scene(model, picture, words, length)
    inputs = OWN.get(name, pixels)(scene)
    encoder_decoder = "decoder_input_ids" in scene.accepted and getattr(model.config, "is_encoder_decoder", False)
    if "input_ids" not in inputs:
        count = inputs.pop("count", None) or _token_count(model, inputs)
        inputs |= scene.text(_image_id(model), count)
    inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
    marks = (inputs["input_ids"] == _image_id(model)).long()
    for kind in ("token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids"):
        inputs.setdefault(kind, marks)
    if encoder_decoder:
        inputs["decoder_input_ids"] = scene.words
        inputs |= {"input_ids": image_text_of(model, inputs)} if "input_ids" in scene.accepted else {}
    return {key: value for key, value in inputs.items() if key in scene.accepted}


def image_text_of(model: Any, inputs: Inputs) -> Tensor:
    """The encoder's tokens with the words of one seed for all: the decoder's prompt is what differs."""
    ids = inputs["input_ids"].clone()
    words = ids != _image_id(model)
    ids[words] = Scene(model, 0, 1, int(words.sum())).words[0]
    return ids


def example(model: Any, name: str) -> Callable[[int, int], Inputs]:
    """`example(rows, length)`: forward arguments for that many rows, each of other words and with another picture."""

    def made(rows: int, length: int) -> Inputs:
        parts = [image_inputs(model, name, row, 1 + row, length) for row in range(rows)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    return made


def _image_id(model: Any) -> int:
    for field in ("image_token_id", "image_token_index"):
        if isinstance(value := getattr(model.config, field, None), int):
            return value
    return 300


def _token_count(model: Any, inputs: Inputs) -> int:
    inner = getattr(model, "model", model)
    holder = inner if hasattr(inner, "get_image_features") else model
    accepted = inspect.signature(holder.get_image_features).parameters
    with torch.no_grad():
        found = holder.get_image_features(**{key: value for key, value in inputs.items() if key in accepted})
    features = getattr(found, "pooler_output", found)
    features = features if isinstance(features, list | tuple) else [features]
    return sum(one.numel() for one in features) // model.config.get_text_config().hidden_size
