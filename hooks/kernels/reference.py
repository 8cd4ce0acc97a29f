"""The specification of the one linear edit, in a few lines of torch; every faster kernel must agree with it."""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor


def lowrank(
    resid: Float[Tensor, "row pos d_model"],
    cell: Int[Tensor, "row pos"],
    read: Float[Tensor, "cell k d_model"],
    write: Float[Tensor, "cell k d_model"],
    gain: Float[Tensor, "cell k"],
    shift: Float[Tensor, "cell k"] | Float[Tensor, "row pos k"],
    carry: Float[Tensor, " cell"],
    threshold: Float[Tensor, " cell"] | None = None,
    power: int = 0,
) -> Float[Tensor, "row pos d_model"]:
    """`carry·h + Σ_j (gain_j·(h·read_j) + shift_j)·write_j` with the terms of cell c where `cell` is c, h bit for bit
    where it is -1.

    With thresholds a position is edited only where `h·read_0 > t_c·‖h‖^power`; a cell without a gate has t = -inf.
    Computed in float32 (float64 for float64 residuals) and rounded once to the residual's dtype; out of place.
    """
    exact = resid.double() if resid.dtype == torch.float64 else resid.float()
    chosen, c = cell >= 0, cell.clamp_min(0).long()
    component = einsum(exact, read.to(exact)[c], "row pos d, row pos k d -> row pos k")
    if threshold is not None:
        t = threshold.to(exact)[c]
        chosen = chosen & ((component[..., 0] > t * exact.norm(dim=-1) ** power) | (t == -torch.inf))
    amount = gain.to(exact)[c] * component + (shift if shift.dim() == 3 else shift[c]).to(exact)
    added = einsum(amount, write.to(exact)[c], "row pos k, row pos k d -> row pos d")
    edited = carry.to(exact)[c][..., None] * exact + added
    return torch.where(chosen[..., None], edited.to(resid.dtype), resid)
