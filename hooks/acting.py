"""Acting: which cell of a bank acts where in one forward, computed once for all the sites that share it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FEW = 2**18  # elements of a residual of few tokens, a decoding step's: above, the kernels' blocks are faster


@dataclass(frozen=True, eq=False)
class Acting:
    """`cell` is the bank's cell at each position, -1 where none acts; `counts` are the positions of each row where one
    does. Where the host may look at them (on a CPU), `only` is the one cell that acts at all, -1 where none does, None
    where several do or nobody looked; and `everywhere` says that it acts at every position."""

    cell: Int[Tensor, "row pos"]
    counts: Int[Tensor, " row"]
    only: int | None = None
    everywhere: bool = False

    @staticmethod
    def of(cell: Int[Tensor, "row pos"], *, looks: bool) -> Acting:
        counts = (cell >= 0).sum(dim=1)
        if not looks or not cell.numel():
            return Acting(cell, counts)
        low, high = (int(end) for end in cell.aminmax())
        if low == high:
            return Acting(cell, counts, only=high, everywhere=True)
        alone = low == -1 and bool(((cell == -1) | (cell == high)).all())
        return Acting(cell, counts, only=high if alone else None)

    @cached_property
    def mask(self) -> Bool[Tensor, "row pos"]:
        return self.cell >= 0

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
