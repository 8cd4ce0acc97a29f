"""The kind of block that a family has, read off one forward: where its norms stand, and what it is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from zoo_checks import called, tensors

_PARTS = {
    "MoE": r"experts|moe",
    "MLA": r"kv_a_proj|kv_b_proj|kv_a_layernorm|latent",
    "state space or linear attention": r"mamba|ssm|conv1d|linear_attn|recurrent|rwkv|[xm]lstm|lightning|short_conv|kda",
    "cross-attention": r"cross_attn|crossattention|cross_attention|encoder_attn",
}


def kind_of(model: nn.Module, blocks: Sequence[nn.Module], inputs: Mapping[str, Any]) -> str:
    """For example "pre-norm, MoE, MLA": the place of the norms in the blocks that fire, and their parts."""
    places = [place for block in blocks if (place := _norms(model, block, inputs))]
    placed = max(set(places), key=places.count) if places else ""
    names = " ".join(name for block in blocks for name, _ in block.named_modules())
    return ", ".join([placed, *(part for part, pattern in _PARTS.items() if re.search(pattern, names))]).strip(", ")


def _norms(model: nn.Module, block: nn.Module, inputs: Mapping[str, Any]) -> str:
    """Where one block's norms of the stream's width stand; "" when the block does not fire."""
    norms: list[tuple[Tensor, Tensor]] = []
    ends: list[tuple[Tensor, Tensor]] = []

    def norm(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        norms.extend(zip((tensors(args) + tensors(kwargs))[:1], tensors(output)[:1], strict=False))

    def whole(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        ends.append(((tensors(args) + tensors(kwargs))[0], tensors(output)[0]))

    leaves = [part for part in block.modules() if not list(part.children())]
    is_norm = [part for part in leaves if re.search("norm", type(part).__name__, re.IGNORECASE)]
    handles = [part.register_forward_hook(norm, with_kwargs=True) for part in is_norm]
    handles.append(block.register_forward_hook(whole, with_kwargs=True))
    try:
        called(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not ends:
        return ""
    start, end = ends[0]
    norms = [(read, gave) for read, gave in norms if read.shape == start.shape]
    if not norms:
        return "several streams" if start.dim() > 3 else "norm inside the sublayers"
    reading = [gave for read, gave in norms if torch.equal(read, start)]
    others = [(read, gave) for read, gave in norms if not torch.equal(read, start)]
    if any(gave.shape == end.shape and torch.equal(gave, end) for _, gave in norms):
        return "post-norm"
    if reading and any(_near(read, start + gave) for read, _ in others for _, gave in others):
        return "sandwich-norm"
    if not reading and any(_near(end, start + a + b) for (_, a), (_, b) in combinations(others, 2)):
        return "norm after the sublayers"
    return "parallel" if len(reading) > 1 or _parallel(block, norms) else "pre-norm"


def _near(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def _parallel(block: nn.Module, norms: Sequence[Any]) -> bool:
    """One norm for attention and MLP together."""
    names = [name for name, _ in block.named_children()]
    both = any(re.search("attn|attention|mixer", name) for name in names) and any(
        re.search("mlp|ffn|feed_forward", name) for name in names
    )
    return both and len(norms) == 1
