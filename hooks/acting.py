"""Acting: which cell of a bank acts where in one forward, computed once for all the sites that share it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FEW = 2**18  # elements of a residual of few tokens, a decoding step's: above, the kernels' blocks are faster


@dataclass(frozen=True, eq=False)
class Acting:
    """`mask` is where a cell acts at all, `counts` at how many positions of each row; `table` is the cell at each
    position, -1 where none acts, or None for a bank of one. Where the host may look (on a CPU), `only` is the one cell
    that acts, -1 where none does, None where several do or nobody looked; `everywhere`: at every position."""

    mask: Bool[Tensor, "row pos"]
    counts: Int[Tensor, " row"]
    table: Int[Tensor, "row pos"] | None = None
    only: int | None = None
    everywhere: bool = False
    looked: bool = False

    @staticmethod
    def of_one(mask: Bool[Tensor, "row pos"], *, looks: bool) -> Acting:
        """Of a bank of one."""
        counts = mask.sum(dim=1)
        if not looks:
            return Acting(mask, counts)
        total = sum(counts.tolist())
        return Acting(mask, counts, only=0 if total else -1, everywhere=total == mask.numel(), looked=True)

    @staticmethod
    def of_several(table: Int[Tensor, "row pos"], *, looks: bool) -> Acting:
        mask = table >= 0
        acting = Acting(mask, mask.sum(dim=1), table, looked=looks)
        if not looks:
            return acting
        found = set(table.unique().tolist()) - {-1}
        if len(found) > 1:
            return acting
        return replace(acting, only=min(found, default=-1), everywhere=bool(mask.all()))

    @cached_property
    def cell(self) -> Int[Tensor, "row pos"]:
        """The cell at each position, -1 where none acts."""
        return self.table if self.table is not None else torch.where(self.mask, 0, -1).int()

    @cached_property
    def index(self) -> Int[Tensor, "row pos"]:
        """The cell at each position as an index, 0 where none acts."""
        return self.cell.clamp_min(0).long()

    @cached_property
    def of_row(self) -> Int[Tensor, " row"]:
        """The cell that each row has somewhere, 0 where it has none."""
        return self.cell.amax(dim=1).clamp_min(0)


@dataclass(frozen=True, eq=False)
class OneCell:
    """One cell of a bank as few operations as it takes: what it adds to any residual, or, where it reads, its terms."""

    write: Float[Tensor, "k d_model"]
    gain: Float[Tensor, " k"]
    shift: Float[Tensor, " k"]
    carry: float
    read: Float[Tensor, "d_model k"] | None
    step: Float[Tensor, " d_model"]

    @staticmethod
    def of(
        read: Float[Tensor, "k d_model"],
        write: Float[Tensor, "k d_model"],
        gain: Float[Tensor, " k"],
        shift: Float[Tensor, " k"],
        carry: Float[Tensor, ""],
    ) -> OneCell:
        reads = bool((gain != 0).any())
        return OneCell(write, gain, shift, float(carry), read.T.contiguous() if reads else None, shift @ write)

    def __call__(self, resid: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """As the kernels' reference where this cell acts everywhere, to rounding."""
        if self.read is None:
            edited = (resid if self.carry == 1.0 else self.carry * resid.to(self.step.dtype)) + self.step
            return edited.to(resid.dtype)
        h = resid.reshape(-1, resid.shape[-1]).to(self.step.dtype)
        amount = torch.addcmul(self.shift, h @ self.read, self.gain)
        return torch.addmm(h, amount, self.write, beta=self.carry).to(resid.dtype).view(resid.shape)
