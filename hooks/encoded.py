"""Encoded: one prompt as token ids, spans and the inputs of its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """One prompt as the model reads it. The response's ids come after the prompt's: both stay what they were."""

    id: str
    input_ids: Int[Tensor, " pos"]
    prompt_length: int
    instruction_end: int
    response_length: int
    per_token: dict[str, Tensor] = field(default_factory=dict)  # name -> [pos, ...]
    images: dict[str, Tensor] = field(default_factory=dict)  # pixel_values and its kin
    n_images: int = 0
    continued: dict[str, Tensor] = field(default_factory=dict)  # per_token's entry for each token that comes after

    def __len__(self) -> int:
        return len(self.input_ids)

    def __repr__(self) -> str:
        return (
            f"Encoded({self.id!r}: {self.prompt_length} prompt tokens, {self.response_length} of a response, "
            f"{self.n_images} images)"
        )

    def prompt_only(self) -> Encoded:
        """The same prompt without its response."""
        if not self.response_length:
            return self
        p = self.prompt_length
        per_token = {name: values[:p] for name, values in self.per_token.items()}
        return replace(self, input_ids=self.input_ids[:p], response_length=0, per_token=per_token)

    def extended(self, ids: Sequence[int]) -> Encoded:
        """The same prompt with more tokens after it, its response still open."""
        more = torch.as_tensor(list(ids), dtype=self.input_ids.dtype)
        longer = {
            name: torch.cat([kept, self.continued[name].expand(len(more), *kept.shape[1:])])
            for name, kept in self.per_token.items()
        }
        return replace(self, input_ids=torch.cat([self.input_ids, more]), response_length=0, per_token=longer)
