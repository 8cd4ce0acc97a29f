"""Inputs for the models of the zoo: text alone, made by hand."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

LENGTH = 10


def text_inputs(model: nn.Module, seed: int = 0, length: int = LENGTH) -> dict[str, Any]:
    """One row of ordinary tokens. Encoder-decoders read the same encoder tokens for every seed: the seed is the
    decoder's prompt, whose stream is the one that is looked at."""
    accepted = inspect.signature(model.forward).parameters
    inputs: dict[str, Any] = {"input_ids": tokens(seed, length)}
    if getattr(model.config, "is_encoder_decoder", False) and "decoder_input_ids" in accepted:
        inputs = {"input_ids": tokens(99, length), "decoder_input_ids": tokens(seed, length)}
    if (codebooks := getattr(model.config, "num_codebooks", None)) and len(inputs) == 1:
        # Music models read one row of tokens a codebook, and sum their embeddings.
        inputs["input_ids"] = torch.cat([tokens(seed + 10 * n, length) for n in range(codebooks)])
        return inputs
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    return {name: value for name, value in inputs.items() if name in accepted}


def tokens(seed: int, length: int) -> torch.Tensor:
    """[1, length] ordinary tokens: no special ones, no padding."""
    return torch.randint(10, 200, (1, length), generator=torch.Generator().manual_seed(seed))
