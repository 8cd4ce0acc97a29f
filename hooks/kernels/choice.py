"""Which implementation of the linear edit runs: by device, dtype and rank, or the one that was asked for by name."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from hooks.kernels import compiled, eager, reference

IMPLEMENTATIONS = ("reference", "eager", "compiled", "triton")
GATHERED = 2**27  # elements of the bank that the reference may gather at once off the CPU: 512 MB in float32


def implementation_for(resid: Tensor, rank: int, asked: str | None = None) -> str:
    """The name of the implementation for this residual: `asked`, else the environment's `WORKBENCH_KERNEL`, else the
    fastest one that starts at once; instead of "compiled" another where compiling would not win. Raises ValueError for
    a name that is none."""
    name = asked or os.environ.get("WORKBENCH_KERNEL")
    if name and name not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation {name!r} is unknown: expected one of {', '.join(IMPLEMENTATIONS)} "
            "(the argument, or WORKBENCH_KERNEL in the environment)."
        )
    without_compiling = "eager" if resid.device.type == "cpu" else "reference"
    if name == "compiled" and not compiled.wins(resid, rank):
        return without_compiling
    if name:
        return name
    small = resid.dtype in (torch.bfloat16, torch.float16, torch.float32) and rank <= 64
    return "triton" if resid.device.type == "cuda" and small and _has_triton() else without_compiling


def run(
    resid: Tensor,
    cell: Tensor,
    read: Tensor,
    write: Tensor,
    gain: Tensor,
    shift: Tensor,
    carry: Tensor,
    threshold: Tensor | None,
    power: int,
    implementation: str | None = None,
) -> Tensor:
    """The edited residual, contiguous and new."""
    given = (resid, cell, read, write, gain, shift, carry, threshold, power)
    match implementation_for(resid, read.shape[1], implementation):
        case "triton":
            from hooks.kernels import triton_lowrank

            out = resid.new_empty(resid.shape)
            triton_lowrank.launch(*given, out=out)
            return out
        case "eager":
            return eager.lowrank(*given)
        case "compiled":
            return compiled.lowrank(*given)
        case _:
            return _reference_by_rows(*given)


def run_in_place(
    resid: Tensor,
    cell: Tensor,
    read: Tensor,
    write: Tensor,
    gain: Tensor,
    shift: Tensor,
    carry: Tensor,
    threshold: Tensor | None,
    power: int,
    implementation: str | None = None,
) -> None:
    """The edit written into `resid`; ValueError where several of its elements are one place in memory."""
    if any(step == 0 and size > 1 for step, size in zip(resid.stride(), resid.shape, strict=True)):
        raise ValueError("lowrank_ writes in place, but the residual is an expanded view: expected resid.clone().")
    given = (resid, cell, read, write, gain, shift, carry, threshold, power)
    match implementation_for(resid, read.shape[1], implementation):
        case "triton":
            from hooks.kernels import triton_lowrank

            triton_lowrank.launch(*given, out=resid)
        case "eager":
            eager.lowrank(*given, in_place=True)
        case name:
            resid.copy_(run(*given, name))


def _reference_by_rows(
    resid: Tensor,
    cell: Tensor,
    read: Tensor,
    write: Tensor,
    gain: Tensor,
    shift: Tensor,
    carry: Tensor,
    threshold: Tensor | None,
    power: int,
) -> Tensor:
    """The reference, as many rows at a time as keep the bank rows that it gathers within bounds; waits for nothing."""
    size = max(1, GATHERED // max(1, resid.shape[1] * read[0].numel()))
    parts = []
    for start in range(0, max(1, len(resid)), size):
        rows = slice(start, start + size)
        own = shift[rows] if shift.dim() == 3 else shift
        parts.append(reference.lowrank(resid[rows], cell[rows], read, write, gain, own, carry, threshold, power))
    return torch.cat(parts)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
