"""The linear edit on a CPU: the tokens of one cell at a time, in blocks that stay in the cache.

The reference gathers a bank row for every token. Here the tokens of a cell are two matrix products with that cell's own
[k, d_model] bank, and tokens without a cell are skipped. It reads the cell table on the host, which costs nothing on a
CPU and would make a GPU wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hooks.kernels import reference

BLOCK = 2**19  # elements of a block and thread: 2 MB in float32; twice and half of it were slower on 1 MB of cache
RUN = 64  # tokens: runs that are shorter on average are gathered cell by cell, longer ones are slices of the residual


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
    in_place: bool = False,
) -> Tensor:
    """As `reference.lowrank`, to rounding; `in_place` writes into `resid`, and only where it edits."""
    table, k = cell.reshape(-1), read.shape[1]
    runs = _runs(table)
    edited = [length for c, length in runs if c >= 0]
    if len(edited) > 1 and len(table) * k <= min(4 * len(edited), 256):
        # A decoding step whose rows are cells: so few tokens that taking them cell by cell costs more than the gather.
        result = reference.lowrank(resid, cell, read, write, gain, shift, carry, threshold, power)
        return resid.copy_(result) if in_place else result.contiguous()
    tokens = resid.reshape(-1, resid.shape[-1])  # a view where it can be
    target = tokens if in_place else torch.empty(tokens.shape, dtype=resid.dtype, device=resid.device)
    if not in_place and (len(edited) < len(runs) or threshold is not None):
        target.copy_(tokens)

    exact = torch.float64 if resid.dtype == torch.float64 else torch.float32
    read, write, gain, shift = (part.to(exact).contiguous() for part in (read, write, gain, shift))
    by_token = shift.reshape(len(table), k) if shift.dim() == 3 else None
    block = max(16, BLOCK * torch.get_num_threads() // resid.shape[-1])
    for c, rows in _blocks(_groups(table, runs, edited), block):
        h = tokens[rows].to(exact, copy=True)
        component = h @ read[c].T
        amount = torch.addcmul(shift[c] if by_token is None else by_token[rows], component, gain[c])
        limit = -torch.inf if threshold is None else float(threshold[c])
        if limit > -torch.inf:
            on = component[:, 0] > (limit * h.norm(dim=-1) if power else limit)
            passed = on.nonzero()[:, 0]
            if len(passed) < len(h):
                h, amount = h[passed], amount[passed]
                rows = passed + rows.start if isinstance(rows, slice) else rows[passed]
        target[rows] = h.addmm_(amount, write[c], beta=float(carry[c])).to(resid.dtype)
    if in_place and tokens.data_ptr() != resid.data_ptr():
        resid.copy_(target.view(resid.shape))
    return resid if in_place else target.view(resid.shape)


def _runs(table: Tensor) -> list[tuple[int, int]]:
    """Cell and length of every maximal run of tokens with one cell."""
    values, lengths = torch.unique_consecutive(table, return_counts=True)
    return list(zip(values.tolist(), lengths.tolist(), strict=True))


def _groups(
    table: Tensor, runs: Sequence[tuple[int, int]], edited: Sequence[int]
) -> Iterator[tuple[int, slice | Tensor]]:
    """Which tokens each cell edits."""
    if len(edited) == 1 or sum(edited) >= RUN * len(edited):
        start = 0
        for c, length in runs:
            if c >= 0:
                yield c, slice(start, start + length)
            start += length
    else:
        for c in sorted({c for c, _ in runs if c >= 0}):
            yield c, (table == c).nonzero()[:, 0]


def _blocks(groups: Iterator[tuple[int, slice | Tensor]], size: int) -> Iterator[tuple[int, slice | Tensor]]:
    for c, rows in groups:
        if isinstance(rows, slice):
            for start in range(rows.start, rows.stop, size):
                yield c, slice(start, min(start + size, rows.stop))
        else:
            yield from ((c, part) for part in rows.split(size))
