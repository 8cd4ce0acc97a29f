"""Pool: the Keep that selects or averages the positions of a scope, on the device, before anything crosses the bus."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.model import Where
from hooks.positions import Scope, Tokens

REDUCTIONS = ("none", "mean")


@dataclass(frozen=True)
class Picked:
    """The positions that a pool keeps of one forward, as indices: found once, then used at every site.

    `weight` is None for positions that are kept as they are; for means it has 1/n at the n positions of each row.
    """

    row: Int[Tensor, " n"]
    position: Int[Tensor, " n"]  # counted from each row's first token; -1 for a mean, as the token
    token: Int[Tensor, " n"]
    flat: Int[Tensor, " n"]  # places in the residual's rows and positions, read as one axis; for means, the rows
    weight: Float[Tensor, "row pos"] | None = None

    def __len__(self) -> int:
        return len(self.row)

    def to(self, device: torch.device) -> Picked:
        """The indices on `device`, without waiting for it."""
        if device == self.row.device:
            return self
        moved = {
            name: value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def of(
        self, resid: Float[Tensor, "row pos d_model"], out: Float[Tensor, "n d_model"] | None = None
    ) -> Float[Tensor, "n d_model"]:
        """The kept vectors, in order; written into `out`, which has their dtype, where it is given. Nothing here waits
        for the device."""
        rows, length = resid.shape[:2]
        if self.weight is None:
            if not resid.is_contiguous():  # streams with positions first: flattened, all of them would be copied
                vectors = resid[self.flat // length, self.flat % length]
                return vectors if out is None else out.copy_(vectors)
            return torch.index_select(resid.flatten(0, 1), 0, self.flat, out=out)
        # One product a row; in float32, where means of bfloat16 would lose what distinguishes them.
        direct = out[:, None] if out is not None and len(self) == rows else None
        means = torch.bmm(self.weight[:, None], resid.float(), out=direct)[:, 0]
        return means if len(self) == rows else torch.index_select(means, 0, self.flat, out=out)


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
        return self.picked(where.tokens).of(resid)

    def picked(self, tokens: Tokens) -> Picked:
        """What is kept of a forward with these tokens. Computed once a forward, for all of its sites: to know how many
        there are a GPU must be waited for."""
        if self not in tokens.memo:
            tokens.memo[self] = self._picked(tokens)
        return tokens.memo[self]

    def _picked(self, tokens: Tokens) -> Picked:
        mask = self.mask(tokens)
        if self.reduce == "none":
            row, column = mask.nonzero(as_tuple=True)
            flat = row * mask.shape[1] + column
            return Picked(row, tokens.position[row, column], tokens.input_ids[row, column], flat)
        row = mask.any(dim=1).nonzero().flatten()
        absent = torch.full_like(row, -1)
        return Picked(row, absent, absent, row, mask.float() / mask.sum(dim=1, keepdim=True).clamp_min(1))

    def index(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """(row, position, token id) of every kept vector, in the order of `__call__`; a mean has position and token
        -1."""
        picked = self.picked(tokens)
        return picked.row, picked.position, picked.token
