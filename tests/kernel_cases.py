"""The currency's interventions as arguments of the kernel, each with what it must give, written without the kernel.

Everything is drawn and expected in float64; `rounded` gives a case to a kernel of another dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hooks.kernels import lowrank


@dataclass(frozen=True)
class Case:
    """Arguments of `lowrank` in float64, and the residual that must come out."""

    resid: Tensor
    cell: Tensor
    read: Tensor
    write: Tensor
    gain: Tensor
    shift: Tensor
    carry: Tensor
    threshold: Tensor | None
    power: int
    expected: Tensor

    @property
    def arguments(self) -> tuple:
        return tuple(value for name, value in vars(self).items() if name != "expected")

    def rounded(self, dtype: torch.dtype) -> Case:
        """The residual in `dtype` and the bank in float32, as edits hold it (float64 stays)."""
        bank = torch.float64 if dtype == torch.float64 else torch.float32
        parts = {
            name: value.to(bank)
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and name not in ("resid", "cell", "expected")
        }
        return replace(self, resid=self.resid.to(dtype), **parts)


def draw(seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def basis(randn: Callable[..., Tensor], k: int, d_model: int) -> Tensor:
    """Orthonormal rows [k, d_model]."""
    return torch.linalg.qr(randn(d_model, k))[0].T.contiguous()


def intervention(name: str, rows: int = 3, pos: int = 7, d_model: int = 33, seed: int = 0) -> Case:
    """One of `INTERVENTIONS`, by one cell; about a third of the positions stay as they are."""
    randn = draw(seed)
    resid = randn(rows, pos, d_model)
    # Rounded first, so that float64 and bfloat16 kernels are given the same numbers and the same gate decisions.
    resid = resid.bfloat16().double()
    cell = torch.where(randn(rows, pos) < 0.4, 0, -1).int()
    v, k = basis(randn, 1, d_model), 3
    V, other = basis(randn, k, d_model), basis(randn, k, d_model)
    mean, patch = randn(d_model), randn(rows, pos, k)
    none, zero, one = torch.zeros(1, 1).double(), torch.zeros(1, k).double(), torch.ones(1).double()
    along, inside = resid @ v.T, resid @ V.T
    threshold, power = None, 0
    match name:
        case "ablation to zero":
            bank, new = (v, v, none - 1, none, one), resid - along * v
        case "ablation to the mean":
            bank, new = (v, v, none - 1, (mean @ v.T)[None], one), resid - along * v + (mean @ v.T) * v
        case "steer":
            bank, new = (v, v, none, none + 1.5, one), resid + 1.5 * v
        case "clamp":
            bank, new = (v, v, none - 1, none + 0.7, one), resid + (0.7 - along) * v
        case "subspace":
            bank, new = (V, V, zero - 1, zero, one), resid - inside @ V
        case "keep only":
            bank, new = (V, V, zero + 1, zero, one * 0), inside @ V
        case "oblique":
            bank, new = (V, other, zero - 1, (mean @ V.T)[None], one), resid - (inside - mean @ V.T) @ other
        case "patch":
            bank, new = (V, V, zero - 1, patch, one), resid + (patch - inside) @ V
        case "gate":
            threshold = torch.tensor([0.2], dtype=torch.float64)
            bank, new = (v, v, none, none + 2, one), torch.where(along > 0.2, resid + 2 * v, resid)
        case "cosine gate":
            threshold, power = torch.tensor([0.05], dtype=torch.float64), 1
            on = along / resid.norm(dim=-1, keepdim=True) > 0.05
            bank, new = (v, v, none - 1, none, one), torch.where(on, resid - along * v, resid)
        case _:
            raise KeyError(name)
    expected = torch.where((cell >= 0)[..., None], new, resid)
    read, write, gain, shift, carry = bank
    return Case(resid, cell, read[None], write[None], gain, shift, carry, threshold, power, expected)


INTERVENTIONS = (
    "ablation to zero", "ablation to the mean", "steer", "clamp", "subspace", "keep only", "oblique", "patch", "gate",
    "cosine gate",
)  # fmt: skip


def mixture(
    rows: int = 4,
    pos: int = 9,
    d_model: int = 33,
    cells: int = 3,
    k: int = 2,
    *,
    gated: bool = True,
    power: int = 1,
    per_position: bool = False,
    runs: bool = False,
    seed: int = 0,
) -> Case:
    """A full bank: cells with and without a gate drawn token by token (`runs`: row by row), and tokens without one."""
    randn, generator = draw(seed), torch.Generator().manual_seed(seed)
    resid = randn(rows, pos, d_model).bfloat16().double()
    cell = torch.randint(-1, cells, (rows, 1 if runs else pos), generator=generator).expand(rows, pos).clone().int()
    read, write = (randn(cells, k, d_model) / d_model**0.5 for _ in "rw")
    gain, carry = randn(cells, k), randn(cells)
    shift = randn(rows, pos, k) if per_position else randn(cells, k)
    threshold = 0.1 * randn(cells) if gated else None
    if threshold is not None:
        threshold[0] = -torch.inf
    expected = resid.clone()
    for row in range(rows):
        for p in range(pos):
            h, c = resid[row, p], int(cell[row, p])
            if c < 0 or (threshold is not None and c > 0 and not h @ read[c, 0] > threshold[c] * h.norm() ** power):
                continue
            amount = gain[c] * (read[c] @ h) + (shift[row, p] if per_position else shift[c])
            expected[row, p] = carry[c] * h + write[c].T @ amount
    return Case(resid, cell, read, write, gain, shift, carry, threshold, power, expected)


def tolerance(case: Case, dtype: torch.dtype) -> float:
    """What rounding alone explains: one rounding of the result to `dtype`, and d_model + k independent roundings of the
    inner products, each relative to the longest that they can be, four times over."""
    unit = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}[dtype]
    inner = 2.0**-53 if dtype == torch.float64 else 2.0**-24
    largest = max(float(case.expected.abs().max()), float(case.resid.double().abs().max()))
    component = float(case.resid.double().norm(dim=-1).max() * case.read.double().norm(dim=-1).max())
    amount = component * float(case.gain.abs().max()) + float(case.shift.abs().max())
    terms, k = case.read.shape[-1] + case.read.shape[1], case.read.shape[1]
    return unit * largest + 4 * (terms**0.5) * inner * (largest + amount * k**0.5 * float(case.write.abs().max()))


def decided(case: Case) -> Tensor:
    """[row, pos]: whether the gate's comparison is further from its threshold than rounding could carry it."""
    h, c = case.resid.double(), case.cell.clamp_min(0).long()
    if case.threshold is None:
        return torch.ones_like(c, dtype=torch.bool)
    first, length = case.read.double()[c, 0], h.norm(dim=-1)
    distance = (h * first).sum(-1) - case.threshold.double()[c] * length**case.power
    return distance.abs() > 1e-4 * length * first.norm(dim=-1)


def checked(case: Case, dtype: torch.dtype, implementation: str, resid: Tensor | None = None) -> None:
    """Asserts what every edit of the case must keep: out of place, bits without a cell, the expected numbers."""
    case = case.rounded(dtype)
    given = case.arguments if resid is None else (resid, *case.arguments[1:])
    before = given[0].clone()
    out = lowrank(*given, implementation=implementation)
    assert torch.equal(given[0], before), "out of place"
    assert out.dtype == dtype and out.is_contiguous() and out.data_ptr() != given[0].data_ptr()
    assert torch.equal(out[case.cell < 0], case.resid[case.cell < 0]), "positions without a cell keep their bits"
    assert (out.double() - case.expected).abs().max() <= tolerance(case, dtype)
