"""Attention of few queries on a CPU: two matrix products in place of torch's kernel for long rows of queries.

In bfloat16, with one query a row (every step of a generation), torch's CPU kernel takes 2.2 ms for 32 rows of 8 heads
over 104 keys, and these two products 0.15 ms, softmax in float32 (torch 2.13, one core). With more queries, in float32
and on other devices torch's own runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

_SLOW = (torch.bfloat16, torch.float16)
_FEW = 8  # queries a head; transformers puts the query heads of one key head side by side as such


@contextmanager
def quick_few_queries(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """While the body runs, attention of few queries is computed by `few_queries` where that is the quicker."""
    if device.type != "cpu" or dtype not in _SLOW:
        yield
        return
    own: Callable[..., Tensor] = functional.scaled_dot_product_attention

    def attention(*args: Any, **kwargs: Any) -> Tensor:
        taken = _taken(*args, **kwargs)
        return own(*args, **kwargs) if taken is None else few_queries(*taken)

    # The name that transformers looks up at each call; a torch function mode would cost 3 us at every torch call.
    functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = own


def _taken(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, float] | None:
    """The arguments of `few_queries`, or None where the call has more queries, or asks for something else."""
    heads = query.dim() == 4 and (query.shape[1] == key.shape[1] or (enable_gqa and not query.shape[1] % key.shape[1]))
    if not heads or query.shape[2] > _FEW or query.dtype not in _SLOW or dropout_p or is_causal:
        return None
    return query, key, value, attn_mask, query.shape[-1] ** -0.5 if scale is None else scale


def few_queries(
    query: Float[Tensor, "row head pos d"],
    key: Float[Tensor, "row group key d"],
    value: Float[Tensor, "row group key e"],
    mask: Bool[Tensor, "#row #head #pos key"] | Float[Tensor, "#row #head #pos key"] | None,
    scale: float,
) -> Float[Tensor, "row head pos e"]:
    """softmax(scale·q·kᵀ + mask)·v, heads in as many groups as there are keys' heads; softmax in float32. A query whose
    keys are all masked gives zeros, as torch's kernel does."""
    rows, heads, queries, _ = query.shape
    groups = key.shape[1]
    weight = (query.reshape(rows, groups, -1, query.shape[-1]) @ key.transpose(-1, -2)).float() * scale
    weight = weight.view(rows, heads, queries, -1)
    if mask is not None:
        weight = weight.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else weight + mask
    share = weight.softmax(dim=-1).nan_to_num(0.0) if mask is not None else weight.softmax(dim=-1)
    share = share.to(value.dtype).view(rows, groups, -1, share.shape[-1])
    return (share @ value).view(rows, heads, queries, -1)
