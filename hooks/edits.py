"""LowRankEdit: every linear intervention as data, `h <- carry·h + Σ_j (gain_j·(h·read_j) + shift_j)·write_j`.

A `cell` is one intervention; a bank holds many, and `row_cell` says which one acts on each row of a batch, so that a
whole grid of interventions is rows of one forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from hooks.kernels import lowrank
from hooks.model import Where
from hooks.positions import Scope, checked_scope


@dataclass(frozen=True, eq=False)
class LowRankEdit:
    """A bank of linear edits of rank k, one per cell; a single edit is a bank of one.

    `scopes` has one scope per cell. `row_cell[row]` is the row's cell, -1 for a row that stays as it is; None means
    that cell 0 acts on every row. `shift` may instead be [row, pos, k]: patching in another run's components. A
    `threshold` gates cell by cell on `h·read_0 > t·‖h‖^power`. `centre`, where given, turns on the tally of removed
    energy and of what is left along `read`; `remaining` is the component that should be left there (None: not a
    removal).
    """

    read: Float[Tensor, "cell k d_model"]
    write: Float[Tensor, "cell k d_model"]
    gain: Float[Tensor, "cell k"]
    shift: Float[Tensor, "cell k"] | Float[Tensor, "row pos k"]
    carry: Float[Tensor, " cell"]
    scopes: tuple[Scope, ...]
    row_cell: Int[Tensor, " row"] | None = None
    threshold: float | None = None
    power: int = 0
    centre: Float[Tensor, "cell d_model"] | None = None
    remaining: Float[Tensor, "cell k"] | None = None

    def __post_init__(self) -> None:
        if len(self.scopes) != len(self.read):
            raise ValueError(
                f"LowRankEdit has {len(self.read)} cells but {len(self.scopes)} scopes: expected one scope a cell."
            )
        for scope in self.scopes:
            checked_scope(scope)

    @property
    def cells(self) -> int:
        return len(self.read)

    @property
    def rank(self) -> int:
        return self.read.shape[1]

    def __call__(self, resid: Float[Tensor, "row pos d_model"], where: Where) -> Float[Tensor, "row pos d_model"]:
        rows, device = len(resid), resid.device
        cell = torch.zeros(rows, dtype=torch.long, device=device) if self.row_cell is None else self.row_cell.to(device)
        if self.row_cell is not None and where.tokens.owner is not None:
            cell = cell[where.tokens.owner]  # inside a vision tower: a prompt's cell acts on all of its images
        if len(cell) != rows:
            raise ValueError(
                f"the edit at {where.site} assigns {len(cell)} rows to cells, but the batch has {rows} rows."
            )
        if self.shift.dim() == 3 and self.shift.shape[:2] != resid.shape[:2]:
            raise ValueError(
                f"the edit at {where.site} has a shift for {tuple(self.shift.shape[:2])} rows and positions, but this "
                f"forward has {tuple(resid.shape[:2])}: expected the batch that the shift was taken from, padded right "
                "(a shift per position acts in run, not in generate)."
            )
        mask = torch.zeros(resid.shape[:2], dtype=torch.bool, device=device)
        for scope in dict.fromkeys(self.scopes):
            in_scope = torch.tensor([one == scope for one in self.scopes], device=device)[cell.clamp_min(0)] & (
                cell >= 0
            )
            mask |= where.mask(scope) & in_scope[:, None]
        cell = cell.clamp_min(0)
        bank = [tensor.to(device)[cell] for tensor in (self.read, self.write, self.gain, self.carry)]
        read, write, gain, carry = bank
        shift = self.shift.to(device) if self.shift.dim() == 3 else self.shift.to(device)[cell][:, None]
        edited = lowrank(resid, mask, read, write, gain, shift, carry, self.threshold, self.power)
        if where.tally is not None:
            self._count(where, resid, edited, mask, cell)
        return edited

    def _count(self, where: Where, resid: Tensor, edited: Tensor, mask: Tensor, cell: Tensor) -> None:
        assert where.tally is not None
        if self.threshold is not None:
            mask = mask & (edited != resid).any(dim=-1)
        if self.centre is None:
            where.tally.add(mask.sum(dim=1))
            return
        # Position 0 counts as edited but not for energy: in many models its norm drowns all others.
        before, after, on = resid.float(), edited.float(), (mask & where.tokens.measured).float()
        removed = ((after - before).square().sum(-1) * on).sum(1)
        energy = ((before - self.centre.to(before)[cell][:, None]).square().sum(-1) * on).sum(1)
        leftover = None
        if self.remaining is not None:
            component = einsum(after, self.read.to(after)[cell], "row pos d, row k d -> row pos k")
            off = (component - self.remaining.to(after)[cell][:, None]).norm(dim=-1)
            share = off / after.norm(dim=-1).clamp_min(torch.finfo(after.dtype).tiny)
            leftover = torch.where(mask, share, 0.0).amax(dim=1)  # a pad may have no length, and no share
        where.tally.add(mask.sum(dim=1), removed, energy, leftover)

    def for_rows(self, row_cell: Sequence[int] | Int[Tensor, " row"]) -> LowRankEdit:
        """The same bank, its cells given out to the rows of a batch (-1: the row stays as it is)."""
        return replace(self, row_cell=torch.as_tensor(row_cell, dtype=torch.long))


def bank(edits: Sequence[LowRankEdit | None], d_model: int) -> LowRankEdit:
    """Single edits of one site as the cells of one bank, padded to the largest rank with terms that do nothing; None is
    a cell without an edit here. Edits with a gate, or with a shift per position, cannot share a bank (ValueError)."""
    present = [edit for edit in edits if edit is not None]
    if any(edit.threshold is not None or edit.shift.dim() == 3 or edit.cells != 1 for edit in present):
        raise ValueError(
            "a bank takes single edits without a gate and without a shift per position; run the others one by one."
        )
    k = max(edit.rank for edit in present)
    nothing = identity(k, d_model)
    padded = [nothing if edit is None else _widened(edit, k) for edit in edits]

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(edit, name) for edit in padded])

    measured = any(edit.centre is not None for edit in present)
    centre = (
        torch.cat([torch.zeros(1, d_model) if edit.centre is None else edit.centre for edit in padded])
        if measured
        else None
    )
    removes = measured and all(edit.remaining is not None for edit in present)
    remaining = (
        torch.cat([torch.zeros(1, k) if edit.remaining is None else edit.remaining for edit in padded])
        if removes
        else None
    )
    scopes = tuple(edit.scopes[0] for edit in padded)
    return LowRankEdit(
        joined("read"),
        joined("write"),
        joined("gain"),
        joined("shift"),
        joined("carry"),
        scopes,
        centre=centre,
        remaining=remaining,
    )


def identity(k: int, d_model: int, scope: Scope = "all") -> LowRankEdit:
    """The edit of rank k that changes nothing."""
    zeros = torch.zeros(1, k, d_model)
    return LowRankEdit(zeros, zeros, torch.zeros(1, k), torch.zeros(1, k), torch.ones(1), (scope,))


def _widened(edit: LowRankEdit, k: int) -> LowRankEdit:
    def wide(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor.new_zeros(1, k - edit.rank, *tensor.shape[2:])], dim=1)

    remaining = None if edit.remaining is None else wide(edit.remaining)
    return replace(
        edit,
        read=wide(edit.read),
        write=wide(edit.write),
        gain=wide(edit.gain),
        shift=wide(edit.shift),
        remaining=remaining,
    )


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
