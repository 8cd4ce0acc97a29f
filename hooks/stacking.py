"""stacked: edits of one site that act one after the other, fused where one edit does exactly the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import einsum

from hooks.edits import LowRankEdit


def stacked(edits: Sequence[LowRankEdit]) -> list[LowRankEdit]:
    """The fewest edits that do, in one pass each, exactly what `edits` do one after the other.

    Two neighbours fuse when both are single cells over the same scope without a gate (the composition of two affine
    maps is one); anything else stays where it is in the order. What is fused no longer measures removed energy.
    """
    fused: list[LowRankEdit] = []
    for edit in edits:
        if fused and _composable(fused[-1], edit):
            fused[-1] = _composed(fused[-1], edit)
        else:
            fused.append(edit)
    return fused


def _composable(first: LowRankEdit, second: LowRankEdit) -> bool:
    plain = all(
        edit.cells == 1 and edit.threshold is None and edit.shift.dim() == 2 and edit.row_cell is None
        for edit in (first, second)
    )
    return plain and first.scopes == second.scopes


def _composed(first: LowRankEdit, second: LowRankEdit) -> LowRankEdit:
    # second reads h' = c1·h + Σ_i a_i·w1_i with a_i = g1_i·(h·r1_i) + s1_i; collect the terms that h and 1 multiply.
    seen = einsum(first.write[0], second.read[0], "i d, j d -> i j")
    read = first.carry * second.read[0] + einsum(first.gain[0], seen, first.read[0], "i, i j, i d -> j d")
    shift = second.shift[0] + second.gain[0] * einsum(first.shift[0], seen, "i, i j -> j")
    carry = second.carry
    return LowRankEdit(
        read=torch.cat([first.read[0], read])[None],
        write=torch.cat([carry * first.write[0], second.write[0]])[None],
        gain=torch.cat([first.gain[0], second.gain[0]])[None],
        shift=torch.cat([first.shift[0], shift])[None],
        carry=first.carry * carry,
        scopes=first.scopes,
    )
