"""StreamTable: the rows of one stream over all shards, in plan order, as columns in memory and values on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64

from stores.plan import Stream
from stores.shard import StreamIndex, grouped, read_rows


@dataclass(frozen=True, eq=False)
class StreamTable:
    """Row r of the stream is row `local[r]` of shard `shard[r]`; prompts and variants are codes into their lists."""

    stream: Stream
    shards: tuple[StreamIndex, ...]
    variants: tuple[str, ...]
    prompt: Int64[np.ndarray, " row"]
    variant: Int64[np.ndarray, " row"]
    position: Int64[np.ndarray, " row"]
    token_id: Int64[np.ndarray, " row"]
    shard: Int64[np.ndarray, " row"]
    local: Int64[np.ndarray, " row"]

    @classmethod
    def joined(cls, stream: Stream, shards: Sequence[StreamIndex], prompt_codes: Mapping[str, int]) -> StreamTable:
        """The shards' indexes, one behind the other."""
        variants: dict[str, int] = {}
        for index in shards:
            for name in index.variant:
                variants.setdefault(name, len(variants))
        sizes = [len(index.prompt_id) for index in shards]
        return cls(
            stream=stream,
            shards=tuple(shards),
            variants=tuple(variants),
            prompt=np.array([prompt_codes[name] for index in shards for name in index.prompt_id], dtype=np.int64),
            variant=np.array([variants[name] for index in shards for name in index.variant], dtype=np.int64),
            position=_concatenated([index.position for index in shards]),
            token_id=_concatenated([index.token_id for index in shards]),
            shard=np.repeat(np.arange(len(shards), dtype=np.int64), sizes),
            local=_concatenated([np.arange(size, dtype=np.int64) for size in sizes]),
        )

    def read(self, layer: int, rows: Int[np.ndarray, " n"], dtype: np.dtype) -> Float[np.ndarray, "n d_model"]:
        """Values of these rows at one layer (its 0-based number), in the order asked for, as `dtype`.

        Every chunk touched is read once and checked against its hash. Memory: the result, and one shard's share of it.
        """
        place = self.stream.layer_index(layer)
        out = np.empty((len(rows), self.stream.d_model), dtype=dtype)
        for shard, places in grouped(self.shard[rows]):
            found = out[places] if isinstance(places, slice) else np.empty((len(places), self.stream.d_model), dtype)
            read_rows(self.shards[shard], self.stream, place, self.local[rows[places]], found)
            if not isinstance(places, slice):
                out[places] = found
        return out


def _concatenated(parts: Sequence[np.ndarray]) -> Int64[np.ndarray, " row"]:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])
