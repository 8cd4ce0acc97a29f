"""Examples for models that cannot run on text alone: prompts with a picture of noise, through the model's own
processor."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hooks.blocks import UnsupportedArchitecture, towers_of
from hooks.encode import Batch, Encoder
from hooks.prompt import Message, Prompt, PromptError
from hooks.stream import ResidualStream


def picture_batches(encoder: Encoder, texts: Sequence[str], *, seeds: Sequence[int]) -> list[Batch]:
    """One batch a seed: the texts, each with a picture of noise in front of it; other noise for every seed."""
    from PIL import Image

    batches = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            noise = torch.Generator().manual_seed(seed)
            path = Path(folder) / f"{seed}.png"
            Image.fromarray(torch.randint(0, 256, (64, 64, 3), generator=noise, dtype=torch.uint8).numpy()).save(path)
            batches.append(encoder([_prompt(encoder, str(n), path, text) for n, text in enumerate(texts)]))
    return batches


def _prompt(encoder: Encoder, identifier: str, picture: Path, text: str) -> Prompt:
    chat = Prompt(identifier, (Message("user", (picture, text)),))
    try:
        encoder.rendered(chat)
    except PromptError:  # no chat template: raw text with pictures
        return Prompt(identifier, text=text, pictures=(picture,))
    return chat


def towers_with(module: nn.Module, encoder: Encoder) -> dict[str, ResidualStream]:
    """The towers of a model that comes with its processor: proved on text, and where that cannot run, on pictures."""
    pictures = with_pictures(module, encoder) if encoder.processor is not None else None
    try:
        return towers_of(module, pictures=pictures)
    except UnsupportedArchitecture:
        if pictures is None:
            raise
        return towers_of(module, pictures, pictures)


def with_pictures(model: Any, encoder: Encoder) -> Any:
    """`example(rows, about_length)` for `find_blocks`: rows of equal length, a picture in each."""

    def example(rows: int, about_length: int) -> Mapping[str, Any]:
        weight = next(model.parameters())
        batch = picture_batches(encoder, ["a" * about_length] * rows, seeds=[0])[0]
        inputs = {name: value.to(weight.device) for name, value in batch.inputs.items()}
        return {name: _typed(value, weight) for name, value in inputs.items()}

    return example


def _typed(value: Tensor, weight: Tensor) -> Tensor:
    return value.to(weight.dtype) if value.is_floating_point() else value
