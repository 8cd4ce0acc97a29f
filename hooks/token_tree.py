"""TokenTree: short continuations that share beginnings, and the masks under which one row reads all of them at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks.recording import CannotReplay


@dataclass(frozen=True)
class TokenTree:
    """A node for every distinct beginning of some token sequences, parents in front of their children."""

    paths: tuple[tuple[int, ...], ...]  # node -> its tokens from the root

    @staticmethod
    def of(sequences: Iterable[tuple[int, ...]]) -> TokenTree:
        beginnings = {one[:n] for one in sequences for n in range(1, len(one) + 1)}
        return TokenTree(tuple(sorted(beginnings, key=lambda path: (len(path), path))))

    def __len__(self) -> int:
        return len(self.paths)

    def under(self, first: Collection[int]) -> TokenTree:
        """The branches that begin with these tokens."""
        return TokenTree(tuple(path for path in self.paths if path[0] in first))

    @cached_property
    def node(self) -> dict[tuple[int, ...], int]:
        return {path: n for n, path in enumerate(self.paths)}

    @property
    def tokens(self) -> list[int]:
        """Each node's own token."""
        return [path[-1] for path in self.paths]

    @property
    def depth(self) -> Int[Tensor, " node"]:
        """Tokens between the prompt and each node."""
        return torch.tensor([len(path) - 1 for path in self.paths])

    @cached_property
    def leaves(self) -> list[tuple[int, ...]]:
        inner = {path[:-1] for path in self.paths}
        return [path for path in self.paths if path not in inner]

    def sees(self) -> Bool[Tensor, "node node"]:
        """[reader, read]: a node reads itself and what leads to it."""
        out = torch.zeros(len(self), len(self), dtype=torch.bool)
        for n, path in enumerate(self.paths):
            out[n, [self.node[path[:length]] for length in range(1, len(path) + 1)]] = True
        return out


def tree_masks(
    config: Any, cache: Any, position: Int[Tensor, "row pos"], tree: TokenTree, dtype: torch.dtype
) -> Float[Tensor, "row 1 node key"] | dict[str, Float[Tensor, "row 1 node _"]]:
    """What each node reads: the real tokens of its row (`position`, -1 at pads) and its own ancestors; 0 where it does,
    the dtype's lowest number where not. One mask a kind of layer, where the model has several. Raises CannotReplay for
    kinds that no mask describes."""
    text = config.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None) or ["full_attention"]
    masks = {kind: _mask(kind, cache.layers[kinds.index(kind)], position, tree, dtype) for kind in dict.fromkeys(kinds)}
    return next(iter(masks.values())) if len(masks) == 1 else masks


def _mask(kind: str, layer: Any, position: Tensor, tree: TokenTree, dtype: torch.dtype) -> Tensor:
    if kind not in ("full_attention", "sliding_attention"):
        raise CannotReplay(f"layers of {kind} read no tree")
    device, rows, n = position.device, len(position), len(tree)
    stands = position.amax(dim=1, keepdim=True) + 1 + tree.depth.to(device)  # [row, node]
    reads = torch.cat([(position >= 0)[:, None].expand(-1, n, -1), tree.sees().to(device).expand(rows, -1, -1)], dim=2)
    if getattr(layer, "is_sliding", False):
        reads &= stands[:, :, None] - torch.cat([position, stands], dim=1)[:, None] < layer.sliding_window
    held, first = layer.get_mask_sizes(n)
    if first + held != reads.shape[2]:
        raise CannotReplay(f"{type(layer).__name__} holds {held} keys from {first} on, not those of the prompt")
    low = torch.zeros(rows, 1, n, held, dtype=dtype, device=device)
    return low.masked_fill_(~reads[:, None, :, first:], torch.finfo(dtype).min)
