"""LowRankEdit: every linear intervention as data, `h <- carry·h + Σ_j (gain_j·(h·read_j) + shift_j)·write_j`.

A `cell` is one intervention; a bank holds many, and `row_cell` says which one acts on each row of a batch, so that a
whole grid of interventions is rows of one forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks.acting import FEW, Acting, OneCell
from hooks.kernels import implementation_for, lowrank
from hooks.model import Where
from hooks.positions import Scope, checked_scope


@dataclass(frozen=True, eq=False)
class LowRankEdit:
    """A bank of linear edits of rank k, one per cell; a single edit is a bank of one.

    `scopes` has one scope per cell. `row_cell[row]` is the row's cell, -1 for a row that stays as it is; None means
    that cell 0 acts on every row. `shift` may instead be [row, pos, k]: patching in another run's components. A
    `threshold` (a number, or one a cell, -inf for no gate) gates on `h·read_0 > t·‖h‖^power`. `centre`, where given,
    turns on the tally of removed energy and of what is left along `read`; `remaining` is the component that should be
    left there (None: not a removal).
    """

    read: Float[Tensor, "cell k d_model"]
    write: Float[Tensor, "cell k d_model"]
    gain: Float[Tensor, "cell k"]
    shift: Float[Tensor, "cell k"] | Float[Tensor, "row pos k"]
    carry: Float[Tensor, " cell"]
    scopes: tuple[Scope, ...]
    row_cell: Int[Tensor, " row"] | None = None
    threshold: Float[Tensor, " cell"] | float | None = None
    power: int = 0
    centre: Float[Tensor, "cell d_model"] | None = None
    remaining: Float[Tensor, "cell k"] | None = None
    _made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)  # from these tensors, when first asked

    def __post_init__(self) -> None:
        if len(self.scopes) != len(self.read):
            raise ValueError(
                f"LowRankEdit has {len(self.read)} cells but {len(self.scopes)} scopes: expected one scope a cell."
            )
        object.__setattr__(self, "scopes", tuple(checked_scope(scope) for scope in self.scopes))
        if isinstance(self.threshold, float | int):
            object.__setattr__(self, "threshold", torch.full((len(self.read),), float(self.threshold)))

    def __repr__(self) -> str:
        gate = "" if self.threshold is None else f", gated by |h|^{self.power}"
        scopes = ", ".join(map(repr, dict.fromkeys(self.scopes)))
        return f"LowRankEdit({self.cells} cells of rank {self.rank}, d_model {self.read.shape[2]}, at {scopes}{gate})"

    @property
    def cells(self) -> int:
        return len(self.read)

    @property
    def rank(self) -> int:
        return self.read.shape[1]

    def __call__(self, resid: Float[Tensor, "row pos d_model"], where: Where) -> Float[Tensor, "row pos d_model"]:
        here = self.on(resid.device)
        if here.shift.dim() == 3 and here.shift.shape[:2] != resid.shape[:2]:
            raise ValueError(
                f"the edit at {where.site} has a shift for {tuple(here.shift.shape[:2])} rows and positions, but this "
                f"forward has {tuple(resid.shape[:2])}: expected the batch that the shift was taken from, padded right "
                "(a shift per position acts in run, not in generate)."
            )
        acting = here.acting(where)
        if acting.only == -1:
            return resid
        edited = here._edited(resid, acting)
        if where.tally is not None:
            here._count(where, resid, edited, acting)
        return edited

    def _edited(self, resid: Tensor, acting: Acting) -> Tensor:
        gated = self.threshold is not None or self.shift.dim() == 3
        few = not gated and resid.numel() <= FEW and not torch.is_grad_enabled()
        if few and acting.only is None and acting.looked and (steps := self._steps(resid.dtype)) is not None:
            edited = (resid.to(steps.dtype) + steps[acting.index]).to(resid.dtype)
            return torch.where(acting.mask[..., None], edited, resid)
        if acting.only is None or not few:
            gate = self.threshold
            assert not isinstance(gate, float | int)
            bank = (self.read, self.write, self.gain, self.shift, self.carry)
            return lowrank(resid, acting.cell, *bank, gate, self.power)
        edited = self._one_cell(acting.only, resid.dtype)(resid)
        return edited if acting.everywhere else torch.where(acting.mask[..., None], edited, resid)

    def on(self, device: torch.device) -> LowRankEdit:
        """The same edit with its tensors on `device`; moved once."""
        if self.read.device == device:
            return self
        if device not in self._made:
            tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
            moved = self._made[device] = replace(self, **tensors)
            moved._made["key"] = self._key()
        return self._made[device]

    def acting(self, where: Where) -> Acting:
        """The cell that acts on each position; computed once a forward for all sites of edits that act alike."""
        memo, key = where.tokens.memo, self._made.get("key") or self._key()
        if key not in memo:
            # On a GPU nobody waits for the table; other kernels than the eager one were asked for by name.
            looks = self.read.device.type == "cpu" and not torch.compiler.is_compiling()
            looks = looks and implementation_for(self.read, self.rank) == "eager"
            if self.row_cell is None:
                memo[key] = Acting.of_one(where.mask(self.scopes[0]), looks=looks)
            else:
                memo[key] = Acting.of_several(self._table(self.row_cell, where), looks=looks)
        return memo[key]

    def _key(self) -> Any:
        """What edits that act alike have in common; made before the edit moves, since a GPU would be waited for."""
        if "key" not in self._made:
            self._made["key"] = self.scopes, None if self.row_cell is None else tuple(self.row_cell.tolist())
        return self._made["key"]

    def _table(self, row_cell: Int[Tensor, " prompt"], where: Where) -> Int[Tensor, "row pos"]:
        """The cell at each position, -1 where none acts."""
        tokens = where.tokens
        rows, device = len(tokens.position), tokens.position.device
        row_cell = row_cell.to(device)
        if tokens.owner is not None:
            row_cell = row_cell[tokens.owner]  # inside a vision tower: a prompt's cell acts on all of its images
        if tokens.whole == len(row_cell):
            row_cell = row_cell[:rows]
        if len(row_cell) != rows:
            raise ValueError(
                f"the edit at {where.site} assigns {len(row_cell)} rows to cells: expected {rows}, the rows "
                "of the batch."
            )
        cell = torch.full(tokens.position.shape, -1, dtype=torch.int32, device=device)
        for scope, of_scope in self._cells_by_scope(device).items():
            acts = of_scope[row_cell.clamp_min(0)] & (row_cell >= 0)
            cell = torch.where(where.mask(scope) & acts[:, None], row_cell[:, None].int(), cell)
        return cell

    def _cells_by_scope(self, device: torch.device) -> dict[Scope, Bool[Tensor, " cell"]]:
        """Made once: a decoding step that is captured as a CUDA graph may not copy anything from the host."""
        if ("scopes", device) not in self._made:
            self._made["scopes", device] = {
                scope: torch.tensor([one == scope for one in self.scopes], device=device)
                for scope in dict.fromkeys(self.scopes)
            }
        return self._made["scopes", device]

    def _one_cell(self, c: int, dtype: torch.dtype) -> OneCell:
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        if (c, exact) not in self._made:
            parts = (part[c].to(exact) for part in (self.read, self.write, self.gain, self.shift, self.carry))
            self._made[c, exact] = OneCell.of(*parts)
        return self._made[c, exact]

    def _steps(self, dtype: torch.dtype) -> Float[Tensor, "cell d_model"] | None:
        """What each cell adds, whatever the residual; None for a bank that reads it."""
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        if ("steps", exact) not in self._made:
            adds = not bool((self.gain != 0).any()) and bool((self.carry == 1).all())
            shift, write = self.shift.to(exact), self.write.to(exact)
            self._made["steps", exact] = einsum(shift, write, "cell k, cell k d -> cell d") if adds else None
        return self._made["steps", exact]

    def _count(self, where: Where, resid: Tensor, edited: Tensor, acting: Acting) -> None:
        assert where.tally is not None
        if self.centre is None and self.threshold is None:
            where.tally.add(acting.counts)
            return
        mask = acting.mask
        if self.threshold is not None:
            mask = mask & (edited != resid).any(dim=-1)
        counts = acting.counts if self.threshold is None else mask.sum(dim=1)
        if self.centre is None:
            where.tally.add(counts)
            return
        # One cell a row: what it measures against is read by row. Position 0 counts as edited but not for energy: in
        # many models its norm drowns all others.
        own = 0 if self.cells == 1 else acting.of_row
        centre, read = self.centre[own].float().unsqueeze(-2), self.read[own].float()
        before, after, on = resid.float(), edited.float(), mask & where.tokens.measured
        removed = ((after - before).square().sum(-1) * on).sum(1)
        energy = ((before - centre).square().sum(-1) * on).sum(1)
        leftover = None
        if self.remaining is not None:
            off = (after @ read.mT - self.remaining[own].float().unsqueeze(-2)).norm(dim=-1)
            share = off / after.norm(dim=-1).clamp_min(torch.finfo(after.dtype).tiny)
            leftover = torch.where(mask, share, 0.0).amax(dim=1)  # a pad may have no length, and no share
        where.tally.add(counts, removed, energy, leftover)

    def for_rows(self, row_cell: Sequence[int] | Int[Tensor, " row"]) -> LowRankEdit:
        """The same bank, its cells given out to the rows of a batch (-1: the row stays as it is)."""
        return replace(self, row_cell=torch.as_tensor(row_cell, dtype=torch.long))


def bank(edits: Sequence[LowRankEdit | None], d_model: int) -> LowRankEdit:
    """Single edits of one site as the cells of one bank, padded to the largest rank with terms that do nothing; None is
    a cell without an edit here. Edits with a shift per position, or gates of different powers, cannot share a bank
    (ValueError)."""
    if len(edits) == 1 and edits[0] is not None:
        return edits[0]
    present = [edit for edit in edits if edit is not None]
    gated = [edit for edit in present if edit.threshold is not None]
    if any(edit.shift.dim() == 3 or edit.cells != 1 for edit in present) or len({edit.power for edit in gated}) > 1:
        raise ValueError(
            "a bank takes single edits without a shift per position, whose gates have one power: run the others one by "
            "one."
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
    never = torch.full((1,), -torch.inf)
    gates = [never if edit.threshold is None else torch.as_tensor(edit.threshold) for edit in padded]
    return LowRankEdit(
        joined("read"),
        joined("write"),
        joined("gain"),
        joined("shift"),
        joined("carry"),
        scopes,
        threshold=torch.cat(gates) if gated else None,
        power=gated[0].power if gated else 0,
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
