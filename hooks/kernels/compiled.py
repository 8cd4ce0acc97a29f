"""The linear edit as one loop a token, written by torch.compile: for long runs on a CPU whose host has a compiler.

The first call of a process compiles (about ten seconds cold, about one from inductor's cache; other sizes compile
nothing anew), which only pays where thousands of large calls follow. So nothing chooses it but the user, and it is
left alone where it would not win: small residuals, larger ranks, no compiler.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from typing import no_type_check

import torch
from torch import Tensor

MAX_RANK = 4  # above, two matrix products in cache-sized blocks are faster than k dot products a token

LEAST = 2**20  # elements of a residual: what is smaller costs less than calling compiled code
VARIANTS = 64  # dtypes, ranks, gates and banks of one cell are compiled apart; torch gives up at 8 unless told


def wins(resid: Tensor, rank: int) -> bool:
    """Whether a call of this size is one for compiled code, on this host."""
    return rank <= MAX_RANK and resid.numel() >= LEAST and available()


def available() -> bool:
    """Whether inductor finds a C++ compiler on this host."""
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++"))


def lowrank(
    resid: Tensor,
    cell: Tensor,
    read: Tensor,
    write: Tensor,
    gain: Tensor,
    shift: Tensor,
    carry: Tensor,
    threshold: Tensor | None = None,
    power: int = 0,
) -> Tensor:
    """As `reference.lowrank`, to rounding. Where nothing is edited every bit stays, but for the payload of a NaN."""
    # The fewer kinds of arguments, the fewer variants to compile: always a threshold, always a row of shifts a token.
    tokens, table = resid.reshape(-1, resid.shape[-1]).contiguous(), cell.reshape(-1).long()
    c = table.clamp_min(0)
    gate = torch.full_like(carry, -torch.inf) if threshold is None else threshold
    shifts, row = shift, c
    if shift.dim() == 3:
        shifts, row = shift.flatten(0, 1), torch.arange(len(table), device=table.device)
    relative = bool(power) and threshold is not None
    bank = (part.contiguous() for part in (read, write, gain, shifts, carry, gate))
    with torch._dynamo.config.patch(recompile_limit=VARIANTS):
        return _compiled()(tokens, table >= 0, c, row, *bank, relative).view(resid.shape)


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_by_token, dynamic=True, fullgraph=True)


@no_type_check
def _by_token(tokens, chosen, c, row, read, write, gain, shift, carry, threshold, relative):
    # No einsum: it would become a batched product over a bank row gathered for every token. A product that is summed
    # becomes one loop, which reads the bank through the table.
    h = tokens.to(torch.float64 if tokens.dtype == torch.float64 else torch.float32)
    component = [(h * read[c, j].to(h)).sum(-1) for j in range(read.shape[1])]
    t = threshold.to(h)[c]
    bound = t * h.square().sum(-1).sqrt() if relative else t
    chosen = chosen & ((component[0] > bound) | (t == -torch.inf))
    edited = carry.to(h)[c][:, None] * h
    for j, one in enumerate(component):
        amount = gain[c, j].to(h) * one + shift[row, j].to(h)
        edited = edited + amount[:, None] * write[c, j].to(h)
    # Inductor moves bfloat16 through float32. Moved as integers NaNs would keep their payload, but the loop would not
    # vectorise (73 ms instead of 30, 16384 tokens of 2560).
    return torch.where(chosen[:, None], edited.to(tokens.dtype), tokens)
