"""A cache of fixed size and the masks that belong to it, so that every decoding step is the same operations on the same
memory.

Every layer keeps all columns; a sliding window is a mask. It is filled from the cache of an ordinary prefill, so that
what a prefill does (pictures that attend to themselves, windows) is the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from hooks.decoding import NotStatic

KINDS = ("full_attention", "sliding_attention")
ALIGNED = 64  # columns: attention kernels copy a mask whose rows are not aligned


class FixedLayer(StaticLayer):
    """Keys and values [row, head, room, d], filled up to `columns` from a growing layer. What comes is written at
    `column`, which all layers share and the step that owns it moves on."""

    def __init__(self, grown: DynamicLayer, columns: int, room: int, column: Int[Tensor, " 1"]) -> None:
        super().__init__(max_cache_len=room)
        self.keys, self.values = (_roomy(part, columns, room) for part in (grown.keys, grown.values))
        self.dtype, self.device = self.keys.dtype, self.keys.device
        self.cumulative_length = column
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        self.keys.index_copy_(2, self.cumulative_length, key_states)
        self.values.index_copy_(2, self.cumulative_length, value_states)
        return self.keys, self.values


class FixedCache:
    """The cache of a step and its masks. `column` is the number of columns read so far; `room` bounds it."""

    def __init__(self, config: Any, grown: Any, mask: Tensor | None, new: int) -> None:
        """From the cache `grown` and the mask [row, column] of the step that comes next; `new` columns will be written.
        Raises NotStatic for caches and attention of other kinds."""
        config = config.get_text_config()
        self.windows = _windows(config, grown)
        first = grown.layers[0].keys
        self.columns = int(grown.get_seq_length())
        self.room = -(-(self.columns + new) // ALIGNED) * ALIGNED
        self.column = torch.full((1,), self.columns, dtype=torch.long, device=first.device)
        self.cache = Cache(layers=[FixedLayer(layer, self.columns, self.room, self.column) for layer in grown.layers])
        self._real = _real(mask, len(first), self.columns, self.room, first.device)
        self._places = torch.arange(self.room, device=first.device)
        self.dtype: torch.dtype = first.dtype
        self._adds = first.dtype if _attention(config) == "eager" else None
        self._by_kind = hasattr(config, "layer_types")

    def masks(self) -> Tensor | Mapping[str, Tensor]:
        """The masks of the step at `column`, as transformers passes those of its own static caches: by kind of layer
        where the config names kinds."""
        seen = self._real & (self._places <= self.column)
        masks = {
            kind: self._as_attention_reads(seen if window is None else seen & (self._places > self.column - window))
            for kind, window in self.windows.items()
        }
        return masks if self._by_kind else next(iter(masks.values()))

    def _as_attention_reads(self, seen: Bool[Tensor, "row room"]) -> Tensor:
        mask = seen[:, None, None]
        if self._adds is None:
            return mask
        hidden = torch.full((), torch.finfo(self._adds).min, dtype=self._adds, device=mask.device)
        return torch.where(mask, torch.zeros_like(hidden), hidden)


def _roomy(part: Float[Tensor, "row head column d"] | None, columns: int, room: int) -> Tensor:
    assert part is not None
    whole = part.new_zeros(*part.shape[:2], room, part.shape[3])  # masked columns count zero times what stands in them
    whole[:, :, columns - part.shape[2] : columns] = part  # a window has kept its newest columns alone
    return whole


def _real(mask: Tensor | None, rows: int, columns: int, room: int, device: torch.device) -> Bool[Tensor, "row room"]:
    real = torch.ones(rows, room, dtype=torch.bool, device=device)
    if mask is not None:
        if mask.shape != (rows, columns + 1):
            raise NotStatic(f"the model makes a mask {tuple(mask.shape)} of its own", lasting=True)
        real[:, : columns + 1] = mask.bool()
    return real


def _attention(config: Any) -> str:
    """The attention that the model runs: "sdpa" or "eager"; others read masks of their own form."""
    found = getattr(config, "_attn_implementation", None)
    if found not in ("sdpa", "eager"):
        raise NotStatic(f"attention {found!r} reads masks of its own form", lasting=True)
    return found


def _windows(config: Any, grown: Any) -> dict[str, int | None]:
    """The window of every kind of layer, None for full attention."""
    layers = getattr(grown, "layers", None) or []
    windows: dict[str, int | None] = {}
    for layer in layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise NotStatic(f"its cache has layers of type {type(layer).__name__}", lasting=True)
        if not layer.is_initialized:
            raise NotStatic("its cache has layers that keep nothing", lasting=True)
        kind, window = KINDS[layer.is_sliding], getattr(layer, "sliding_window", None)
        if windows.setdefault(kind, window) != window:
            raise NotStatic("its layers have windows of several sizes", lasting=True)
    other = set(getattr(config, "layer_types", None) or ()) - set(KINDS)
    if other or not layers or getattr(config, "attention_chunk_size", None):
        raise NotStatic(f"its layers are of kinds {', '.join(sorted(other)) or 'unknown'}", lasting=True)
    return windows
