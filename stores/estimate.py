"""bytes_of: what a unit will take on disk, known before its first forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stores import schema
from stores.plan import Stream

_BLOCK = 4096
_SHARD_BYTES = 64 << 10  # attributes (spec and provenance up to 16 KiB each), object headers, one log line
_STREAM_BYTES = 16 << 10  # object headers, dimension scales, and the gaps of alignment


def bytes_of(streams: Sequence[Stream], rows: int | Mapping[str, int], id_bytes: int = 64) -> int:
    """Bytes on disk of one unit with these rows (by stream name; an int: of every stream), rounded up to whole blocks.

    Values are exact, the padding of edge chunks included. The rest is bounded from above, for prompt ids and variants
    of at most `id_bytes` in UTF-8: 2 · id_bytes + 16 a row, and 80 KiB a shard of one stream.
    """
    total = _SHARD_BYTES
    for stream in streams:
        count = rows if isinstance(rows, int) else rows[stream.name]
        per_chunk = schema.chunk_rows(count)
        chunks = len(stream.layers) * -(-count // per_chunk)
        total += chunks * (per_chunk * stream.d_model * schema.DTYPES[stream.dtype].raw.itemsize + schema.HASH_BYTES)
        total += count * (2 * id_bytes + 16) + _STREAM_BYTES
    return -(-total // _BLOCK) * _BLOCK
