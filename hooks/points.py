"""Points: which vectors of a forward a statistic counts, whose they are, and their sums as one indicator product."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.positions import Scope, Tokens


@dataclass(frozen=True)
class Run:
    """The points and the prompts of one group, which lie next to each other."""

    group: int
    points: slice
    prompts: slice


@dataclass(frozen=True, eq=False)
class Points:
    """The counted vectors of one forward, sorted by group and prompt. A point is one position of the scope, or with
    `mean` the average of one row's positions. `prompts` are the batch rows that have points, `counts` how many."""

    flat: Int[Tensor, " n"]  # places in the residual seen as [row * pos, d_model]
    row_of: Int[Tensor, " n"] | None  # the point that each vector is averaged into; None: every vector is a point
    sizes: Int[Tensor, " point"] | None  # how many vectors are averaged into each
    prompt_of: Int[Tensor, " point"] | None  # its place in `prompts`; None: every prompt has one point
    group_of: Int[Tensor, " point"]
    prompts: Int[np.ndarray, " prompt"]
    counts: Int[np.ndarray, " prompt"]
    runs: tuple[Run, ...]
    _memo: dict[object, Tensor] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.group_of)

    def of(self, resid: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "point d_model"]:
        """The points of a residual; averages are float32, positions keep their dtype."""
        chosen = resid.reshape(-1, resid.shape[-1]).index_select(0, self.flat)
        if self.row_of is None or self.sizes is None:
            return chosen
        return summed(self._indicator("rows", self.row_of, len(self), chosen), chosen) / self.sizes[:, None]

    def by_prompt(self, points: Float[Tensor, "point d_model"]) -> Float[Tensor, "prompt d_model"]:
        """Float32 sums over the points of each prompt: one product with a matrix of zeros and ones, which gives the
        same bits on every run (index_add on CUDA does not), and from which every class and every split half follow."""
        if self.prompt_of is None:
            return points.float()
        return summed(self._indicator("prompts", self.prompt_of, len(self.prompts), points), points)

    def _indicator(self, name: str, index: Tensor, size: int, like: Tensor) -> Tensor:
        if name not in self._memo:  # built once a forward, for all of its sites
            places = torch.arange(size, device=index.device)
            self._memo[name] = (index[None] == places[:, None]).to(like.dtype if like.is_cuda else torch.float32)
        return self._memo[name]


def points_of(
    scope: Scope,
    tokens: Tokens,
    group: Sequence[int] | Int[np.ndarray, " row"],
    *,
    mean: bool = False,
    device: torch.device | None = None,
) -> Points | None:
    """The points, on `device`, of a forward whose batch rows (prompts) belong to these groups; None when the scope has
    none. Reads the mask: for tokens that are on a GPU (a tower's), the host waits for it.

    Position 0 is left out under the scope `all`, whose other positions its norm would drown. Rows of a vision tower
    belong to the prompts in `tokens.owner`.
    """
    mask = tokens.mask(scope)
    marked = (mask & tokens.measured if scope == "all" else mask).cpu().numpy()
    row, column = np.nonzero(marked)
    if not len(row):
        return None
    prompt = row if tokens.owner is None else tokens.owner.cpu().numpy()[row]
    order = np.lexsort((column, row, prompt, np.asarray(group)[prompt]))
    row, column, prompt = row[order], column[order], prompt[order]
    flat, row_of, sizes = row * marked.shape[1] + column, None, None
    if mean:
        row_of, first = _numbered(row)
        prompt, sizes = prompt[first], np.diff(first, append=len(row))
    place, first = _numbered(prompt)
    prompts, counts = prompt[first], np.diff(first, append=len(prompt))
    groups = np.asarray(group)[prompts]

    def there(index: np.ndarray) -> Tensor:
        return moved(torch.from_numpy(index.astype(np.int64)), device or mask.device)

    return Points(
        there(flat),
        None if row_of is None else there(row_of),
        None if sizes is None else there(sizes),
        None if len(prompts) == len(prompt) else there(place),
        there(np.repeat(groups, counts)),
        prompts,
        counts,
        tuple(_runs(groups.tolist(), counts)),
    )


def moved(index: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for it."""
    return index.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else index.to(device)


def _numbered(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For keys of which equal ones lie together: the number of each one's key, and where each key begins."""
    begins = np.diff(keys, prepend=-1) != 0
    return np.cumsum(begins) - 1, np.flatnonzero(begins)


def _runs(groups: Sequence[int], counts: np.ndarray) -> Iterator[Run]:
    ends, start = np.concatenate([[0], np.cumsum(counts)]), 0
    for group, members in groupby(groups):
        stop = start + len(list(members))
        yield Run(group, slice(int(ends[start]), int(ends[stop])), slice(start, stop))
        start = stop


def summed(weight: Float[Tensor, "k n"], values: Float[Tensor, "n d_model"]) -> Float[Tensor, "k d_model"]:
    """weight @ values in float32. On CUDA, half-precision values enter as they are and are added up in float32; on a
    CPU, where torch has no such product, they are converted first. Never in TF32, which rounds to 10 bits."""
    if values.is_cuda and values.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(weight.to(values.dtype), values, out_dtype=torch.float32)
    with ieee_products():
        return weight.float() @ values.float()


@contextmanager
def ieee_products() -> Iterator[None]:
    """float32 matrix products in full, whatever the process has allowed itself (TF32, bfloat16 passes)."""
    kinds = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # pyright: ignore[reportAttributeAccessIssue]
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, was in zip(kinds, before, strict=True):
            kind.fp32_precision = was
