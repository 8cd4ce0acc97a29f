"""One dispatch for the linear edit. `reference` is the specification; `eager` (CPU), `compiled` (CPU, when asked for)
and `triton_lowrank` (CUDA) agree with it to rounding; `op` makes it an operator that torch.compile keeps whole.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.kernels import choice, op, reference
from hooks.kernels.choice import IMPLEMENTATIONS, implementation_for

__all__ = ["IMPLEMENTATIONS", "implementation_for", "lowrank", "lowrank_"]


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
    *,
    implementation: str | None = None,
) -> Float[Tensor, "row pos d_model"]:
    """`carry·h + Σ_j (gain_j·(h·read_j) + shift_j)·write_j` with the terms of cell c where `cell` is c, h bit for bit
    where it is -1; out of place.

    With thresholds a position is edited only where `h·read_0 > t_c·‖h‖^power`, power 0 or 1; a cell without a gate has
    t = -inf. Accumulated in float32 (float64 for float64 residuals) and rounded once. A cell number that the bank does
    not have is not noticed on a GPU: nothing here waits for the device.

    `implementation` names one of `IMPLEMENTATIONS` instead of the device's own. Where gradients are wanted the
    reference runs; under torch.compile the edit is one operator.
    """
    _check_power(power)
    given = (resid, cell, read, write, gain, shift, carry, threshold, power)
    if _wants_gradient(*given[:-1]):
        return reference.lowrank(*given)
    if torch.compiler.is_compiling():
        return op.lowrank(*given, implementation)
    return choice.run(*given, implementation)


def lowrank_(
    resid: Float[Tensor, "row pos d_model"],
    cell: Int[Tensor, "row pos"],
    read: Float[Tensor, "cell k d_model"],
    write: Float[Tensor, "cell k d_model"],
    gain: Float[Tensor, "cell k"],
    shift: Float[Tensor, "cell k"] | Float[Tensor, "row pos k"],
    carry: Float[Tensor, " cell"],
    threshold: Float[Tensor, " cell"] | None = None,
    power: int = 0,
    *,
    implementation: str | None = None,
) -> None:
    """`lowrank` written into `resid`; on a GPU positions without a cell are neither read nor written.

    For inference alone, when nothing that was kept shares the residual's storage. Raises ValueError where gradients are
    wanted, and for an expanded view.
    """
    _check_power(power)
    given = (resid, cell, read, write, gain, shift, carry, threshold, power)
    if _wants_gradient(*given[:-1]):
        raise ValueError("lowrank_ has no gradient: run it under torch.inference_mode(), or use lowrank.")
    if torch.compiler.is_compiling():
        op.lowrank_(*given, implementation)
    else:
        choice.run_in_place(*given, implementation)


def _check_power(power: int) -> None:
    if power not in (0, 1):
        raise ValueError(f"the gate compares h·read_0 with t·‖h‖^power: expected power 0 or 1, {power} came.")


def _wants_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in tensors)
