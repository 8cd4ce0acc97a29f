"""What the hooks wrote for one unit becomes the blocks of a store: values as they arrive, and the prompt, variant,
position and token of every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hooks.encode import Batch
from hooks.host_copy import Arriving
from hooks.slab import Slab
from stores import Block, Stream, Unit


@dataclass(frozen=True)
class Index:
    """One entry a row."""

    prompt_id: list[str]
    variant: list[str]
    position: np.ndarray
    token_id: np.ndarray

    @staticmethod
    def nothing() -> Index:
        return Index([], [], np.zeros(0, np.int64), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Captured:
    """One unit whose forwards were queued: its values may still be on their way."""

    unit: Unit
    arriving: Arriving
    index: Mapping[str, Index]
    answers: Sequence[Mapping[str, Any]] = ()  # what was written, where the model wrote
    note: str = ""

    def blocks(self, streams: Sequence[Stream]) -> dict[str, Block]:
        """A block a stream, once the values are there; without rows where the unit has none (text, in a tower)."""
        values = self.arriving.wait()
        return {stream.name: self._block(stream, values.get(stream.name)) for stream in streams}

    def _block(self, stream: Stream, values: Tensor | None) -> Block:
        index = self.index.get(stream.name, Index.nothing())
        if values is None:
            values = torch.empty(len(stream.layers), 0, stream.d_model, dtype=getattr(torch, stream.dtype))
        bits = values.view(torch.uint16) if values.dtype == torch.bfloat16 else values
        return Block(bits.numpy(), index.prompt_id, index.variant, index.position, index.token_id)


def index_of(slab: Slab, batch: Batch, variants: Sequence[str]) -> Index:
    """The rows of a slab: those of a pass for each of its variants, or the rows of one batch in which each prompt
    stands once a variant."""
    assert slab.picked is not None and slab.tokens is not None
    picked, tokens = slab.picked, slab.tokens
    row, position = picked.row.cpu(), picked.position.cpu()
    # In a tower rows are pictures, each of a row of the batch.
    owner = torch.arange(len(tokens.position)) if tokens.owner is None else tokens.owner.cpu()
    if tokens.patches:
        position = _counted_on(position, row, owner, (tokens.position >= 0).sum(dim=1).cpu())
    of_batch: list[int] = owner[row].tolist()
    passes = slab.passes
    per_pass = len(variants) // passes
    named = [variants[p * per_pass + r // len(batch)] for p in range(passes) for r in of_batch]
    return Index(
        [batch.ids[r % len(batch)] for r in of_batch] * passes,
        named,
        np.tile(position.numpy(), passes),
        np.tile(picked.token.cpu().numpy(), passes),
    )


def _counted_on(position: Tensor, row: Tensor, owner: Tensor, patches: Tensor) -> Tensor:
    """Positions in which a prompt's second picture goes on counting where its first one ended; of pooled pictures
    (position -1) the pictures themselves are counted."""
    size = patches if bool((position >= 0).all()) else torch.ones_like(patches)
    before = torch.tensor([int(size[:r][owner[:r] == owner[r]].sum()) for r in range(len(owner))])
    return before[row] + position.clamp_min(0)
