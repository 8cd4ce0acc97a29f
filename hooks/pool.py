"""Pool: the Keep that selects or averages the positions of a scope, on the device, before anything crosses the bus."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from hooks.model import Where
from hooks.positions import Scope, Tokens

REDUCTIONS = ("none", "mean")


@dataclass(frozen=True)
class Pool:
    """Keeps the residuals at a scope: [n, d_model], rows in order. `reduce="none"` keeps every position of the scope;
    `"mean"` one float32 average a row (position 0 left out under the scope `all`: its norm drowns the others)."""

    scope: Scope
    reduce: str = "none"

    def __post_init__(self) -> None:
        if self.reduce not in REDUCTIONS:
            raise ValueError(f"pool {self.reduce!r} is unknown: expected one of {', '.join(REDUCTIONS)}.")

    def mask(self, tokens: Tokens) -> Tensor:
        mask = tokens.mask(self.scope)
        return mask & tokens.measured if self.reduce == "mean" and self.scope == "all" else mask

    def __call__(self, resid: Float[Tensor, "row pos d_model"], where: Where) -> Float[Tensor, "n d_model"] | None:
        mask = self.mask(where.tokens)
        if self.reduce == "none":
            return resid[mask]
        counted = mask.any(dim=1)
        weight = mask.float() / mask.sum(dim=1, keepdim=True).clamp_min(1)
        return einsum(weight, resid.float(), "row pos, row pos d -> row d")[counted]

    def index(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """(row, position, token id) of every kept vector, in the order of `__call__`; a mean has position and token
        -1."""
        mask = self.mask(tokens)
        if self.reduce == "none":
            row, column = mask.nonzero(as_tuple=True)
            return row, tokens.position[row, column], tokens.input_ids[row, column]
        row = mask.any(dim=1).nonzero().flatten()
        return row, torch.full_like(row, -1), torch.full_like(row, -1)
