"""The specification of the one linear edit, in a few lines of torch; every faster kernel must agree with it."""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor


def lowrank(
    resid: Float[Tensor, "row pos d_model"],
    mask: Bool[Tensor, "row pos"],
    read: Float[Tensor, "#row k d_model"],
    write: Float[Tensor, "#row k d_model"],
    gain: Float[Tensor, "#row k"],
    shift: Float[Tensor, "#row #pos k"],
    carry: Float[Tensor, "#row"],
    threshold: float | None = None,
    power: int = 0,
) -> Float[Tensor, "row pos d_model"]:
    """`carry·h + Σ_j (gain_j·(h·read_j) + shift_j)·write_j` where the mask is True, h bit for bit elsewhere.

    With a threshold t only positions where `h·read_0 > t·‖h‖^power` are edited. Computed in float32 (float64 for
    float64 residuals) and rounded once to the residual's dtype; out of place.
    """
    exact = resid.double() if resid.dtype == torch.float64 else resid.float()
    component = einsum(exact, read.to(exact).expand(len(resid), -1, -1), "row pos d, row k d -> row pos k")
    if threshold is not None:
        mask = mask & (component[..., 0] > threshold * exact.norm(dim=-1) ** power)
    amount = gain.to(exact)[:, None] * component + shift.to(exact)
    added = einsum(amount, write.to(exact).expand(len(resid), -1, -1), "row pos k, row k d -> row pos d")
    edited = carry.to(exact)[:, None, None] * exact + added
    return torch.where(mask[..., None], edited.to(resid.dtype), resid)
