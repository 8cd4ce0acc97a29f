"""Runs the Triton kernels under Triton's interpreter and prints what came out, as JSON; the tests start it as a process
of its own (`TRITON_INTERPRET` is read when triton is imported).

Every output starts as NaN, so that a place that is not written shows. The interpreter cuts float32 off to bfloat16
where a GPU rounds, so the error of one rounding is up to a whole unit there.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
from dataclasses import replace

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
from kernel_cases import INTERVENTIONS, Case, intervention, mixture, tolerance

from hooks.kernels import lowrank, lowrank_
from hooks.kernels import triton_lowrank as kernels

np.seterr(invalid="ignore")  # -inf · 0 is a NaN that the kernel means to leave out
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

KERNELS = ("rows, several a program", "rows, d_model by loop", "tiles")
HARDEST = ("cosine gate", "a shift a position", "rank 5", "rank 64")  # in every dtype and by every kernel


def cases() -> dict[str, Case]:
    """Small and odd; at most 64 tokens each, 10 ms a program."""
    by_name = {name: intervention(name, 2, 7, 37, seed=1) for name in INTERVENTIONS}
    by_name["mixed cells"] = mixture(3, 9, 37, 3, 2, power=0, seed=1)
    by_name["a shift a position"] = mixture(3, 9, 37, 3, 3, per_position=True, seed=2)
    by_name["d_model of one"] = mixture(2, 3, 1, 2, 1, gated=False, seed=3)
    by_name["rank 5"] = mixture(2, 17, 70, 2, 5, seed=4)
    by_name["rank 20, rows as cells"] = mixture(6, 1, 130, 6, 20, power=0, seed=5)
    by_name["rank 64"] = mixture(2, 16, 70, 2, 64, per_position=True, runs=True, seed=7)
    nothing = mixture(2, 5, 37, 1, 1, gated=False)
    by_name["no token with a cell"] = replace(nothing, cell=nothing.cell * 0 - 1, expected=nothing.resid)
    return by_name


def forced(kernel: str):
    """`settings` as a launch of many tokens would have them, at sizes that the interpreter can afford."""

    def settings(tokens, pos, cells, k, d_model, dtype):
        padded = max(16 if kernel == "tiles" else 1, 1 << (k - 1).bit_length())
        blocks = dict(KP=padded, num_warps=4, num_stages=2, **kernels.FUSED)
        match kernel:
            case "tiles":
                return True, dict(ROWS=16, BD=32, PRECISION="ieee", **blocks)
            case "rows, several a program":
                return False, dict(ROWS=4, BD=128, **blocks)
            case _:  # rows, d_model by loop
                return False, dict(ROWS=8, BD=32, **blocks)

    return settings


def limit_of(case: Case, dtype: torch.dtype) -> float:
    return tolerance(case, dtype) * (2 if dtype == torch.bfloat16 else 1)


def measured(case: Case, dtype: torch.dtype) -> dict[str, float | bool]:
    expected, limit = case.expected, limit_of(case, dtype)
    case = case.rounded(dtype)
    stays = case.cell < 0
    before = case.resid.clone()
    out = torch.full_like(case.resid, float("nan"))
    kernels.launch(*case.arguments, out=out)
    untouched = torch.equal(case.resid, before)

    # In place, in a view with gaps that holds NaN wherever nothing may be read or written.
    rows, pos, d_model = case.resid.shape
    wide = torch.full((rows, 2 * pos, d_model + 3), float("nan"), dtype=dtype)
    view = wide[:, ::2, 1 : d_model + 1]
    view.copy_(case.resid)
    view[stays] = float("nan")
    kernels.launch(view, *case.arguments[1:], out=view)
    gaps = wide.clone()
    gaps[:, ::2, 1 : d_model + 1] = float("nan")
    # A residual whose last axis has steps, and a bank that is a view.
    turned = case.resid.transpose(1, 2).contiguous().transpose(1, 2)
    spread = torch.stack([case.read, case.read + 1], dim=-1)[..., 0]
    again = torch.full_like(out, float("nan"))
    kernels.launch(turned, case.cell, spread, *case.arguments[3:], out=again)
    return {
        "error / tolerance": float((out.double() - expected).abs().max()) / limit,
        "in place equals out of place": torch.equal(view[~stays], out[~stays]),
        "in place leaves the rest": bool(view[stays].isnan().all() and gaps.isnan().all()),
        "kept bits": torch.equal(out[stays], case.resid[stays]),
        "out of place leaves its input": untouched,
        "strides make no difference": torch.equal(again, out),
        "edited": bool((out != case.resid).any()),
    }


def bits_kept(kernel_settings) -> bool:
    """Signalling NaNs, negative zeros and subnormal numbers pass where there is no cell, and behind a shut gate."""
    kernels.settings = kernel_settings
    case = mixture(2, 9, 37, 1, 2, power=0).rounded(torch.bfloat16)
    bits = torch.randint(-(2**15), 2**15, case.resid.shape, dtype=torch.int16)
    shut = torch.full((1,), torch.inf)
    results = []
    for cell, threshold in ((torch.full_like(case.cell, -1), None), (torch.zeros_like(case.cell), shut)):
        for out in (torch.full_like(case.resid, float("nan")), bits.clone().view(torch.bfloat16)):
            resid = bits.clone().view(torch.bfloat16)
            kernels.launch(resid, cell, *case.arguments[2:7], threshold, 0, out=out)
            results.append(torch.equal(out.view(torch.int16), bits))
    return all(results)


def forbidden_pages_untouched(kernel: str) -> bool:
    """In place, tokens without a cell lie in memory that may be neither read nor written: touching it ends the process.
    A token is a page of memory."""
    kernels.settings = forced(kernel)
    page = mmap.PAGESIZE
    case = mixture(1, 6, page // 4, 2, 2).rounded(torch.float32)
    cell = torch.tensor([[0, -1, 1, -1, -1, 0]])
    expected = lowrank(case.resid, cell, *case.arguments[2:], implementation="reference")
    memory = mmap.mmap(-1, 6 * page)
    resid = torch.frombuffer(memory, dtype=torch.float32).view(1, 6, page // 4)
    resid.copy_(case.resid)

    def protect(rights: int) -> None:
        for token in (1, 3, 4):
            place = ctypes.c_void_p(resid.data_ptr() + token * page)
            assert ctypes.CDLL(None).mprotect(place, page, rights) == 0

    protect(0)
    kernels.launch(resid, cell, *case.arguments[2:], out=resid)
    protect(mmap.PROT_READ | mmap.PROT_WRITE)
    return torch.allclose(resid, expected, rtol=1e-4, atol=1e-4)


def main() -> None:
    chosen, found = kernels.settings, {}
    for kernel in KERNELS:
        kernels.settings = forced(kernel)
        for dtype in DTYPES:
            for name, case in cases().items():
                if name in HARDEST or (dtype == "bfloat16" and kernel != "rows, d_model by loop"):
                    found[f"{kernel} | {dtype} | {name}"] = measured(case, DTYPES[dtype])
    found["pages"] = {kernel: forbidden_pages_untouched(kernel) for kernel in KERNELS}
    found["bits"] = {kernel: bits_kept(forced(kernel)) for kernel in ("rows, several a program", "tiles")}
    kernels.settings = chosen
    case = mixture(3, 9, 37, 3, 2).rounded(torch.bfloat16)
    out = lowrank(*case.arguments, implementation="triton")
    resid = case.resid.clone()
    lowrank_(resid, *case.arguments[1:], implementation="triton")
    zero = lowrank(torch.zeros(1, 3, 37), torch.zeros(1, 3).int(), *case.arguments[2:], implementation="triton")
    found["dispatch"] = {
        "error / tolerance": float((out.double() - case.expected).abs().max()) / limit_of(case, torch.bfloat16),
        "in place": torch.equal(resid, out),
        "a residual of length zero": torch.allclose(zero, (case.shift[0] @ case.write[0]).expand(1, 3, 37)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
