"""Finds the residual stream of a model: the public door to `hooks.stream`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch import nn

from hooks.stream import Example, ResidualStream, find_stream
from hooks.structure import UnsupportedArchitecture, has_vision, image_token_id, unwrapped

__all__ = ["UnsupportedArchitecture", "find_blocks", "image_token_id", "towers_of", "unwrapped"]


def find_blocks(model: Any, tower: str = "language", example: Example | None = None) -> list[nn.Module]:
    """The blocks of one tower, in the order in which the residual stream passes them.

    `tower` is `"language"` (the decoder) or `"vision"` (the image encoder). The language blocks are proved by a short
    forward, on text, or on what `example(rows, about_length)` gives for a model that cannot run on text alone. Raises
    UnsupportedArchitecture, with the reason, where there is no single residual stream.
    """
    return list(find_stream(model, tower, example).blocks)


def towers_of(
    model: nn.Module, example: Example | None = None, pictures: Example | None = None
) -> dict[str, ResidualStream]:
    """The residual stream of every tower that the model has: always `"language"`, and `"vision"` where one is
    found. `example` is for the language stream, `pictures` for the tower."""
    towers = {"language": find_stream(model, "language", example)}
    if has_vision(unwrapped(model).config):
        # Convolutional or token-based encoders have no residual stream; asking for a vision site says so.
        with suppress(UnsupportedArchitecture):
            towers["vision"] = find_stream(model, "vision", pictures)
    return towers
