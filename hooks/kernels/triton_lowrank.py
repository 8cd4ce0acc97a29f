"""The linear edit in Triton: one launch for all cells of a hook, positions without a cell neither read nor written.

Two kernels, chosen by shape alone, so that nothing waits for the device. `edit_rows` gives a program one token (several
where d_model is small) and one pass over its residual; every token may have a cell of its own. `edit_tiles` gives a
program a tile of neighbouring tokens and the tensor cores: for ranks whose bank would otherwise be read from the cache
again for every token. It edits the tile's cells one after the other, so any table is right, and long runs are fast.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

MAX_RANK = 64
ONE_PASS = 8192  # elements of a row that a program holds at once: 32 registers a thread of eight warps
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
FUSED = dict(enable_fp_fusion=True)  # multiply-adds round once; Triton's default is about to change


@triton.jit(do_not_specialize=["tokens", "pos"])  # other batch sizes and lengths compile nothing anew
@no_type_check
def edit_rows(
    resid, out, cell, read, write, gain, shift, carry, threshold,
    tokens, pos, resid_row, resid_pos, resid_d, out_row, out_pos, out_d,
    D: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, KP: tl.constexpr, BD: tl.constexpr,
    GATED: tl.constexpr, POWER: tl.constexpr, SHIFT_PER_POSITION: tl.constexpr, IN_PLACE: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = token < tokens
    c = tl.load(cell + token, mask=inside, other=-1).to(tl.int64)
    if IN_PLACE and tl.max(c, 0) < 0:
        return
    chosen = c >= 0
    touched = chosen if IN_PLACE else inside  # out of place, the other positions are copied
    c = tl.where(chosen, c, 0)
    j = tl.arange(0, KP)
    term = chosen[:, None] & (j < K)[None, :]
    index = c[:, None] * K + j[None, :]
    source = resid + (token // pos).to(tl.int64) * resid_row + (token % pos).to(tl.int64) * resid_pos
    target = out + (token // pos).to(tl.int64) * out_row + (token % pos).to(tl.int64) * out_pos

    partial = tl.zeros([ROWS, KP, BD], tl.float32)
    square = tl.zeros([ROWS, 1, BD], tl.float32)  # three axes as well: Triton 3.6 gives two a layout that spills
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        h = tl.load(source[:, None] + d[None, :] * resid_d, mask=touched[:, None] & (d < D)[None, :], other=0.0)
        h = h.to(tl.float32)[:, None, :]
        at = term[:, :, None] & (d < D)[None, None, :]
        r = tl.load(read + (index * D)[:, :, None] + d[None, None, :], mask=at, other=0.0)
        partial += h * r.to(tl.float32)
        if GATED and POWER == 1:
            square += h * h
    component = tl.sum(partial, 2)
    amount = tl.load(gain + index, mask=term, other=0.0).to(tl.float32) * component
    shifts = token[:, None].to(tl.int64) * K + j[None, :] if SHIFT_PER_POSITION else index
    amount += tl.load(shift + shifts, mask=term, other=0.0).to(tl.float32)
    kept = tl.load(carry + c, mask=chosen, other=1.0).to(tl.float32)
    if GATED:
        limit = tl.load(threshold + c, mask=chosen, other=0.0).to(tl.float32)
        first = tl.sum(tl.where((j == 0)[None, :], component, 0.0), 1)
        bound = limit * tl.sqrt(tl.sum(tl.sum(square, 2), 1)) if POWER == 1 else limit
        chosen = chosen & ((first > bound) | (limit == -float("inf")))

    for start in range(0, D, BD):  # one pass where BD covers D: the compiler keeps the first load
        d = start + tl.arange(0, BD)
        here = touched[:, None] & (d < D)[None, :]
        h = tl.load(source[:, None] + d[None, :] * resid_d, mask=here, other=0.0)
        at = term[:, :, None] & (d < D)[None, None, :]
        w = tl.load(write + (index * D)[:, :, None] + d[None, None, :], mask=at, other=0.0)
        edited = kept[:, None] * h.to(tl.float32) + tl.sum(amount[:, :, None] * w.to(tl.float32), 1)
        edited = tl.where(chosen[:, None], edited.to(h.dtype), h)
        tl.store(target[:, None] + d[None, :] * out_d, edited, mask=here)


@triton.jit(do_not_specialize=["tokens", "pos"])
@no_type_check
def edit_tiles(
    resid, out, cell, read, write, gain, shift, carry, threshold,
    tokens, pos, resid_row, resid_pos, resid_d, out_row, out_pos, out_d,
    D: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, KP: tl.constexpr, BD: tl.constexpr,
    GATED: tl.constexpr, POWER: tl.constexpr, SHIFT_PER_POSITION: tl.constexpr, IN_PLACE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = token < tokens
    cells = tl.load(cell + token, mask=inside, other=-1).to(tl.int64)
    j = tl.arange(0, KP)
    source = resid + (token // pos).to(tl.int64) * resid_row + (token % pos).to(tl.int64) * resid_pos
    target = out + (token // pos).to(tl.int64) * out_row + (token % pos).to(tl.int64) * out_pos
    if not IN_PLACE:
        for start in range(0, D, BD):
            d = start + tl.arange(0, BD)
            here = (inside & (cells < 0))[:, None] & (d < D)[None, :]
            h = tl.load(source[:, None] + d[None, :] * resid_d, mask=here)
            tl.store(target[:, None] + d[None, :] * out_d, h, mask=here)

    c = tl.max(cells, 0)
    while c >= 0:
        mine = cells == c
        component = tl.zeros([ROWS, KP], tl.float32)
        square = tl.zeros([ROWS], tl.float32)
        for start in range(0, D, BD):
            d = start + tl.arange(0, BD)
            here = mine[:, None] & (d < D)[None, :]
            h = tl.load(source[:, None] + d[None, :] * resid_d, mask=here, other=0.0).to(tl.float32)
            at = (j < K)[:, None] & (d < D)[None, :]
            r = tl.load(read + (c * K + j)[:, None] * D + d[None, :], mask=at, other=0.0)
            component = tl.dot(h, tl.trans(r.to(tl.float32)), component, input_precision=PRECISION)
            if GATED and POWER == 1:
                square += tl.sum(h * h, 1)
        amount = tl.load(gain + c * K + j, mask=j < K, other=0.0).to(tl.float32)[None, :] * component
        if SHIFT_PER_POSITION:
            term = mine[:, None] & (j < K)[None, :]
            amount += tl.load(shift + token[:, None].to(tl.int64) * K + j[None, :], mask=term, other=0.0).to(tl.float32)
        else:
            amount += tl.load(shift + c * K + j, mask=j < K, other=0.0).to(tl.float32)[None, :]
        kept = tl.load(carry + c).to(tl.float32)
        chosen = mine
        if GATED:
            # One copy a token: the interpreter cannot join a scalar's comparison with a vector's.
            limit = tl.load(threshold + tl.where(mine, c, 0)).to(tl.float32)
            first = tl.sum(tl.where((j == 0)[None, :], component, 0.0), 1)
            bound = limit * tl.sqrt(square) if POWER == 1 else limit
            chosen = mine & ((first > bound) | (limit == -float("inf")))
        for start in range(0, D, BD):
            d = start + tl.arange(0, BD)
            here = mine[:, None] & (d < D)[None, :]
            h = tl.load(source[:, None] + d[None, :] * resid_d, mask=here, other=0.0)
            at = (j < K)[:, None] & (d < D)[None, :]
            w = tl.load(write + (c * K + j)[:, None] * D + d[None, :], mask=at, other=0.0)
            edited = tl.dot(amount, w.to(tl.float32), kept * h.to(tl.float32), input_precision=PRECISION)
            edited = tl.where(chosen[:, None], edited.to(h.dtype), h)
            tl.store(target[:, None] + d[None, :] * out_d, edited, mask=here)
        c = tl.max(tl.where(cells < c, cells, -1), 0)


def settings(tokens: int, pos: int, cells: int, k: int, d_model: int, dtype: torch.dtype) -> tuple[bool, dict]:
    """Whether a launch of this size takes `edit_tiles`, and its block sizes, warps and stages: a function of shape.

    All of them compile for sm_80 and sm_90 without spills and with 16-byte accesses (tests/test_kernels_ahead.py).
    """
    padded = triton.next_power_of_2(k)
    if k > 2 and tokens >= 256 and (cells == 1 or pos >= 16):
        # 16 bits: the residual is exact in the product, the bank and the amounts are rounded to 16 bits of mantissa.
        precision = "tf32x3" if dtype == torch.float32 else "bf16x3"
        if knobs.runtime.interpret:
            precision = "ieee"  # the interpreter multiplies in float32 and knows no split products
        rows = 64 if dtype == torch.bfloat16 else 32
        blocks = dict(ROWS=rows, KP=max(16, padded), BD=64, PRECISION=precision, num_warps=8, num_stages=3)
        return True, {**blocks, **FUSED}
    width = min(max(16, triton.next_power_of_2(d_model)), (ONE_PASS if k <= 2 else ONE_PASS // 2) // padded)
    rows = max(1, min(4, 2048 // (padded * width))) if tokens >= 2048 else 1
    warps = max(1, min(16, rows * padded * width // 512))
    return False, dict(ROWS=rows, KP=padded, BD=width, num_warps=warps, num_stages=2, **FUSED)


def launch(
    resid: Tensor,
    cell: Tensor,
    read: Tensor,
    write: Tensor,
    gain: Tensor,
    shift: Tensor,
    carry: Tensor,
    threshold: Tensor | None,
    power: int,
    out: Tensor,
) -> None:
    """Writes the edit of `resid` into `out`, which may be `resid` itself: then positions without a cell are neither
    read nor written. One launch on the current stream; never waits. Raises ValueError for what it cannot do."""
    rows, pos, d_model = resid.shape
    cells, k, _ = read.shape
    _check(resid, cell, read, write, gain, shift, carry, threshold, out)
    if rows * pos == 0:
        return
    tiled, blocks = settings(rows * pos, pos, cells, k, d_model, resid.dtype)
    per_position = shift.dim() == 3
    cell, read, write, gain, shift, carry = (part.contiguous() for part in (cell, read, write, gain, shift, carry))
    gate = carry if threshold is None else threshold.contiguous()
    kernel = edit_tiles if tiled else edit_rows
    with _on(resid.device):
        kernel[(triton.cdiv(rows * pos, blocks["ROWS"]),)](
            resid, out, cell, read, write, gain, shift, carry, gate,
            rows * pos, pos, *resid.stride(), *out.stride(),
            D=d_model, K=k, GATED=threshold is not None, POWER=power, SHIFT_PER_POSITION=per_position,
            IN_PLACE=out is resid, **blocks,
        )  # fmt: skip


def _check(resid: Tensor, cell: Tensor, read: Tensor, write: Tensor, *rest: Tensor | None) -> None:
    """A kernel reads what its shapes say, without asking: a wrong shape would be a wrong number or a fault."""
    gain, shift, carry, threshold, out = rest
    rows, pos, d_model = resid.shape
    cells, k, _ = read.shape
    expected = {
        "cell": (cell, [(rows, pos)]),
        "read": (read, [(cells, k, d_model)]),
        "write": (write, [(cells, k, d_model)]),
        "gain": (gain, [(cells, k)]),
        "shift": (shift, [(cells, k), (rows, pos, k)]),
        "carry": (carry, [(cells,)]),
        "threshold": (threshold, [(cells,)]),
        "out": (out, [(rows, pos, d_model)]),
    }
    for name, (tensor, shapes) in expected.items():
        if tensor is not None and (tensor.shape not in shapes or tensor.device != resid.device):
            raise ValueError(
                f"{name} is {tuple(tensor.shape)} on {tensor.device}: the edit of a residual {tuple(resid.shape)} on "
                f"{resid.device} by {cells} cells of rank {k} takes {' or '.join(map(str, shapes))} there."
            )
    if resid.dtype not in DTYPES or k > MAX_RANK:
        raise ValueError(
            f"the Triton kernel takes bfloat16, float16 or float32 and ranks up to {MAX_RANK}, but came {resid.dtype} "
            f'and rank {k}: use implementation="reference".'
        )


def _on(device: torch.device) -> AbstractContextManager:
    """Triton launches on the current device, whatever the tensors are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
