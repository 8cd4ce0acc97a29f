"""B8: the linear edit against the torch code that a user would write for it.

The eager code, in a user's few lines: a row of the bank gathered for every token, float32, a mask, and back to the
residual's dtype: 6 kernels for the masked add, 8 for the projection, 11 for the cosine-gated add, 5 for the subspace
(`speed.md` 3.1 counts their bytes). Prompts have their own cell and their own length, padded on the right.

On a CPU: ours compiled for add, projection and gate, ours as it starts for subspaces. On a GPU: the Triton kernel,
against the eager code, against torch.compile of it, and against copying the residual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from measure import SETTING, Line, main, paired  # first: it puts the checkout on the path

# isort: split
import torch
from torch import Tensor

from hooks.kernels import lowrank, lowrank_, reference
from hooks.kernels.choice import implementation_for

CELLS, POS = 16, 128


@dataclass(frozen=True)
class Problem:
    """One edit of a batch: what a user's code takes, and what our kernel takes."""

    name: str
    rank: int
    eager: Callable[[], Tensor]
    arguments: tuple
    gate: float | None
    goal: float | None
    of_copy: float  # the least share of copy bandwidth, on a GPU


def masked_add(h: Tensor, token_cell: Tensor, bank: Tensor, coefficient: Tensor, mask: Tensor) -> Tensor:
    added = h.float() + coefficient[token_cell][:, None] * bank[token_cell]
    return torch.where(mask[:, None], added.to(h.dtype), h)


def masked_projection(h: Tensor, token_cell: Tensor, bank: Tensor, mask: Tensor) -> Tensor:
    x, v = h.float(), bank[token_cell]
    return torch.where(mask[:, None], (x - (x * v).sum(-1, keepdim=True) * v).to(h.dtype), h)


def gated_add(
    h: Tensor, token_cell: Tensor, bank: Tensor, coefficient: Tensor, mask: Tensor, threshold: float
) -> Tensor:
    x, v = h.float(), bank[token_cell]
    on = mask & ((x * v).sum(-1) > threshold * x.norm(dim=-1))
    return torch.where(on[:, None], (x + coefficient[token_cell][:, None] * v).to(h.dtype), h)


def subspace(h: Tensor, basis: Tensor) -> Tensor:
    x = h.float()
    return (x - (x @ basis) @ basis.T).to(h.dtype)


def problems(tokens: int, d_model: int) -> Iterator[Problem]:
    torch.manual_seed(0)
    on = dict(device=SETTING.device)
    pos = min(POS, tokens)
    h = torch.randn(tokens, d_model, **on).bfloat16()
    resid = h.view(-1, pos, d_model)
    rows = len(resid)
    length = torch.randint(pos // 2, pos + 1, (rows,), **on)
    row_cell = torch.arange(rows, **on) % CELLS
    cell = torch.where(torch.arange(pos, **on) < length[:, None], row_cell[:, None], -1).int()
    mask, token_cell = (cell >= 0).flatten(), cell.clamp_min(0).flatten().long()
    bank = torch.nn.functional.normalize(torch.randn(CELLS, d_model, **on), dim=-1)
    coefficient, threshold = torch.linspace(-2, 2, CELLS, **on), 0.005
    v, none, one = bank[:, None], torch.zeros(CELLS, 1, **on), torch.ones(CELLS, **on)

    eager = partial(masked_add, h, token_cell, bank, coefficient, mask)
    yield Problem("add", 1, eager, (resid, cell, v, v, none, coefficient[:, None], one), 5, 8, 0.8)
    eager = partial(masked_projection, h, token_cell, bank, mask)
    yield Problem("projection", 1, eager, (resid, cell, v, v, none - 1, none, one), 5, 8, 0.8)
    eager = partial(gated_add, h, token_cell, bank, coefficient, mask, threshold)
    gate = (torch.full((CELLS,), threshold, **on), 1)
    yield Problem("cosine gate", 1, eager, (resid, cell, v, v, none, coefficient[:, None], one, *gate), 5, 8, 0.8)
    for k, least in ((16, 1.2), (64, None)):
        k = min(k, d_model)
        basis = torch.linalg.qr(torch.randn(d_model, k, **on))[0]
        V = basis.T[None].contiguous()
        everywhere, terms = torch.zeros(rows, pos, dtype=torch.int32, **on), torch.zeros(1, k, **on)
        given = (resid, everywhere, V, V, terms - 1, terms, torch.ones(1, **on))
        yield Problem(f"rank {k}", k, partial(subspace, h, basis), given, least, None, 0.6)


def check(problem: Problem, ours: Callable[[], Tensor]) -> None:
    """Against the reference in float64, and the bits of what is not edited; in place too; every time a new output."""
    resid, cell, read, *_ = problem.arguments
    threshold, power = [*problem.arguments, None, 0][7:9]
    arguments = (resid.double(), *problem.arguments[1:])
    expected = torch.cat(
        [reference.lowrank(row[None], cell[n : n + 1], *arguments[2:]) for n, row in enumerate(arguments[0])]
    )
    clear = torch.ones_like(cell, dtype=torch.bool)
    if threshold is not None:  # a component within rounding of its threshold may fall on either side
        component = torch.einsum("rpd,rpd->rp", arguments[0], read.double()[cell.clamp_min(0).long(), 0])
        length = arguments[0].norm(dim=-1)
        clear = (component - threshold[0].double() * length**power).abs() > 1e-5 * length
    # One rounding to bfloat16, and products whose bank is rounded to 16 bits or better.
    within = 2.0**-8 * expected.abs() + 2.0**-14 * arguments[0].norm(dim=-1, keepdim=True)
    in_place = resid.clone()
    name = implementation_for(resid, problem.rank)
    lowrank_(in_place, *problem.arguments[1:], implementation=name)
    for out in (ours(), ours(), in_place, problem.eager().view_as(resid)):
        assert torch.equal(out[cell < 0], resid[cell < 0]), f"{problem.name}: a position without a cell changed"
        assert bool(((out.double() - expected).abs() <= within)[clear].all()), f"{problem.name}: wrong numbers"
        assert not torch.equal(out, resid), f"{problem.name}: nothing was edited"


def on_cpu(problem: Problem, size: str) -> Iterator[Line]:
    compiles = problem.rank == 1
    fused = partial(lowrank, *problem.arguments, implementation="compiled" if compiles else "eager")
    default = partial(lowrank, *problem.arguments, implementation="eager")
    check(problem, fused)
    check(problem, default)
    kind = "compiled" if compiles else "two products in blocks"
    ratio = paired(fused, problem.eager)
    yield Line("B8", f"{problem.name}, {size}, {kind}", ratio, problem.gate, problem.goal, peer="eager code")
    if compiles:
        ratio = paired(default, problem.eager)
        yield Line("B8", f"{problem.name}, {size}, as it starts", ratio, peer="eager code")


def on_gpu(problem: Problem, size: str) -> Iterator[Line]:
    kernel = partial(lowrank, *problem.arguments, implementation="triton")
    check(problem, kernel)
    resid = problem.arguments[0]
    other, scratch = torch.empty_like(resid), resid.clone()
    in_place = partial(lowrank_, scratch, *problem.arguments[1:], implementation="triton")
    also = {"compiled": torch.compile(problem.eager), "copy": partial(other.copy_, resid), "in place": in_place}
    ratio = paired(kernel, problem.eager, also=also)
    what = f"{problem.name}, {size}, kernel"
    note = "gates on the share of copy bandwidth: time of copying the residual over time of the edit"
    yield Line("B8", what, ratio.also["copy"], problem.of_copy, peer="copy", note=note)
    yield Line("B8", what, ratio, 6, peer="eager code")
    note = "a compiled reference within 10 % everywhere would make the kernel superfluous"
    yield Line("B8", what, ratio.also["compiled"], peer="torch.compile", note=note)
    yield Line("B8", what, ratio.also["in place"], peer="kernel, in place")


def lines(quick: bool) -> Iterator[Line]:
    sizes = [(2048, 2560), (1024, 8192)] if quick else [(16384, 2560), (16384, 8192)]
    if SETTING.tiny:
        sizes = [(256, 96)]
    with torch.inference_mode():
        for tokens, d_model in sizes:
            for problem in problems(tokens, d_model):
                yield from (on_gpu if SETTING.device == "cuda" else on_cpu)(problem, f"{tokens} x {d_model}")


if __name__ == "__main__":
    main("kernels", lines)
