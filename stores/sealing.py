"""One activation shard, written: libhdf5 lays the file out in memory, the values go from their arrays to the disk.

Nothing of the values is copied, and libhdf5 never touches the disk. Reserved space that is never written (the padding
of edge chunks, gaps between objects) is a hole, and reads as zeros.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import h5py
import numpy as np
import xxhash
from h5py import h5d, h5ds, h5f, h5g, h5t  # pyright: ignore[reportAttributeAccessIssue]
from jaxtyping import Shaped, UInt8

from stores import h5_write, publish, schema
from stores.block import Block, Codes
from stores.nonfinite import nonfinite
from stores.plan import Stream
from stores.seals import Seal
from stores.shard import index_hash
from stores.skeleton import Skeleton

_ALIGNED_FROM, _ALIGNED_TO = 1 << 16, 64  # so that outside readers can map the values of large shards as arrays


@dataclass(frozen=True, eq=False)
class _Values:
    """The values of one stream, where they go, and the table that their hashes go into."""

    stream: Stream
    block: Block
    known_finite: bool
    offset: int
    table_offset: int
    table: UInt8[np.ndarray, "layer chunk 16"]

    @property
    def values(self) -> Shaped[np.ndarray, "layer row d_model"]:
        return self.block.values

    @property
    def chunk_bytes(self) -> int:
        _, rows, d_model = self.values.shape
        return schema.chunk_rows(rows) * d_model * schema.DTYPES[self.stream.dtype].raw.itemsize

    @property
    def stored_bytes(self) -> int:
        return self.chunk_bytes * self.table.shape[0] * self.table.shape[1]

    def planes(self) -> Iterator[Shaped[np.ndarray, " n"]]:
        """The values of each layer, flat, as they are stored; copied only where its rows do not lie side by side."""
        for plane in self.values:
            yield np.ascontiguousarray(plane, dtype=schema.DTYPES[self.stream.dtype].raw).reshape(-1)

    def write(self, descriptor: int, where: str) -> None:
        """One pass, a chunk at a time while it is cached: looked at for NaN, hashed, written. Raises NotFinite."""
        stored, size, at, hashes = schema.DTYPES[self.stream.dtype], self.chunk_bytes, self.offset, []
        step = size // stored.raw.itemsize
        for plane in self.planes():
            codes, data = Codes(plane, stored), plane.view(np.uint8).data
            for start in range(0, len(plane), step):
                if not self.known_finite and not codes.finite(start, start + step):
                    found = nonfinite(self.block, self.stream)
                    assert found is not None
                    raise found.refusal(where)
                chunk = data[start * stored.raw.itemsize :][:size]
                # HDF5 stores edge chunks whole.
                whole = chunk if len(chunk) == size else bytes(chunk).ljust(size, b"\0")
                hashes.append(xxhash.xxh3_128_digest(whole))
                publish.write_at(descriptor, chunk, at)
                at += size
        self.table[:] = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(self.table.shape)

    def seal(self, seal: Seal) -> None:
        if not seal.needs_values:
            seal.skip(self.stored_bytes)
            return
        padding = bytes(self.stored_bytes // len(self.values) - self.values[0].nbytes)  # of a layer's last chunk
        for plane in self.planes():
            seal.update(plane.view(np.uint8).data, values=True)
            seal.update(padding, values=True)


class ActivationShard:
    """The content of one shard, ready to be written. `where` names the unit in errors."""

    def __init__(
        self,
        attributes: Mapping[str, str],
        streams: Sequence[Stream],
        blocks: Mapping[str, Block],
        allow_nonfinite: bool = False,
        where: str = "",
        also: Callable[[h5f.FileID], object] | None = None,
    ) -> None:
        """`also` writes more into the file while its metadata are made (an export's prompts)."""
        self._where = where
        skeleton, listed = Skeleton(), [blocks[stream.name] for stream in streams]
        if allow_nonfinite:
            attributes = {**attributes, schema.A_NOTE: _with_nonfinite(attributes, streams, listed)}
        # "latest" gives each metadata block a checksum: with it, a flipped bit outside the data never passed unnoticed.
        with h5py.File(
            skeleton, "w", libver="latest", alignment_threshold=_ALIGNED_FROM, alignment_interval=_ALIGNED_TO
        ) as file:
            for name, text in attributes.items():
                h5_write.write_text(file.id, name, text)
            h5_write.write_encoding(file.id, "activation-shard")
            values = [_reserve_values(file.id, *both) for both in zip(streams, listed, strict=True)]
            for (dataset, _), stream, block in zip(values, streams, listed, strict=True):
                write_index(file.id, dataset, stream, block)
            group = h5_write.group(file.id, schema.CHUNK_HASHES)
            tables = [_reserve_table(group, *both) for both in zip(streams, listed, strict=True)]
            if also is not None:
                also(file.id)
        self.size = skeleton.size
        self.metadata = skeleton.pieces()
        self.reserved = [
            _Values(stream, block, allow_nonfinite or block.finite, offset, *table)
            for stream, block, (_, offset), table in zip(streams, listed, values, tables, strict=True)
            if table[1].size
        ]

    def write(self, descriptor: int, seal: Seal) -> None:
        """The whole file into an open, empty one, and its bytes into the seal.

        Raises OSError (disk full), NotFinite; the file is then worthless.
        """
        os.ftruncate(descriptor, self.size)
        for values in self.reserved:
            values.write(descriptor, self._where)
        tables = [(values.table_offset, values.table.tobytes()) for values in self.reserved]
        outside = [*self.metadata, *tables]
        for offset, data in outside:
            publish.write_at(descriptor, data, offset)
        self._seal(outside, seal)

    def _seal(self, outside: Sequence[tuple[int, bytes]], seal: Seal) -> None:
        """In file order, as any reader will find it; what was never written reads as zeros."""
        parts: list[tuple[int, bytes | _Values]] = [*outside, *((values.offset, values) for values in self.reserved)]
        at = 0
        for offset, part in sorted(parts, key=lambda part: part[0]):
            seal.update(bytes(offset - at))
            if isinstance(part, _Values):
                part.seal(seal)
                at = offset + part.stored_bytes
            else:
                seal.update(part)
                at = offset + len(part)
        seal.update(bytes(self.size - at))


def _with_nonfinite(attributes: Mapping[str, str], streams: Sequence[Stream], blocks: Sequence[Block]) -> str:
    """The note of a shard that may hold NaN, with how many it holds and where."""
    found = [nonfinite(block, stream) for stream, block in zip(streams, blocks, strict=True) if not block.finite]
    return "; ".join(filter(None, [attributes.get(schema.A_NOTE, ""), *(str(one) for one in found if one)]))


def _reserve_values(root: h5f.FileID, stream: Stream, block: Block) -> tuple[h5d.DatasetID, int]:
    """Room for the values of one stream, and where it begins in the file."""
    rows = block.values.shape[1]
    group = h5_write.group(root, f"{schema.ACTIVATIONS}/{stream.name}")
    h5_write.write_encoding(group, "residual-stream")
    shape, chunk = (len(stream.layers), rows, stream.d_model), (1, schema.chunk_rows(rows), stream.d_model)
    values = h5_write.reserved(group, schema.VALUES, schema.DTYPES[stream.dtype].file_type, shape, chunk)
    h5_write.write_encoding(values, "residuals")
    h5_write.write_text(values, schema.A_TORCH_DTYPE, stream.dtype)
    return values, _first_byte(values, shape, chunk)


def write_index(root: h5f.FileID, values: h5d.DatasetID, stream: Stream, block: Block) -> None:
    """What the rows and axes of the values mean: the row index, and netCDF's dimension scales."""
    group = h5g.open(root, f"{schema.ACTIVATIONS}/{stream.name}".encode())
    layers = np.array(stream.layers, dtype="<i4")
    scales = [h5_write.column(group, schema.LAYER, layers)]
    h5ds.set_scale(scales[0], schema.LAYER.encode())
    for name, size in ((schema.ROW, block.values.shape[1]), (schema.D_MODEL, stream.d_model)):
        scales.append(h5_write.bare(group, name, h5t.IEEE_F32LE, (size,)))
        h5ds.set_scale(scales[-1], schema.DIMENSION_ONLY.format(size=size).encode())
    for axis, scale in enumerate(scales):
        h5ds.attach_scale(values, scale, axis)
    columns = {
        schema.PROMPT_ID: fixed_text(block.prompt_id),
        schema.VARIANT: fixed_text(block.variant),
        schema.POSITION: np.asarray(block.position),
        schema.TOKEN_ID: np.asarray(block.token_id),
    }
    for name, column in columns.items():
        h5ds.attach_scale(h5_write.column(group, name, column), scales[1], 0)
    h5_write.write_text(group, schema.A_INDEX_HASH, index_hash([layers, *columns.values()]))


def _first_byte(values: h5d.DatasetID, shape: tuple[int, ...], chunk: tuple[int, ...]) -> int:
    """Where the first chunk lies; the others must follow it without a gap, as space allocated at once does."""
    if 0 in shape:
        return 0
    height = -(-shape[1] // chunk[1])
    first = values.get_chunk_info_by_coord((0, 0, 0))
    last = values.get_chunk_info_by_coord((shape[0] - 1, (height - 1) * chunk[1], 0))
    span = (shape[0] * height - 1) * first.size
    if first.byte_offset is None or last.byte_offset != first.byte_offset + span:
        raise RuntimeError(
            f"libhdf5 {h5py.version.hdf5_version} does not lay chunks out one behind the other: "
            "expected the HDF5 of a wheel of h5py."
        )
    return first.byte_offset


def _reserve_table(group: h5g.GroupID, stream: Stream, block: Block) -> tuple[int, UInt8[np.ndarray, "layer chunk 16"]]:
    """Room for the hashes of the stream's chunks: (where, what will stand there). A checksum of its own would add
    nothing: whatever changes in it, a chunk no longer fits."""
    rows = block.values.shape[1]
    table = np.zeros((len(stream.layers), -(-rows // schema.chunk_rows(rows)), schema.HASH_BYTES), dtype=np.uint8)
    dataset = h5_write.reserved(group, stream.name, h5t.STD_U8LE, table.shape)
    h5_write.write_encoding(dataset, "array")
    return dataset.get_offset() or 0, table


def fixed_text(texts: Sequence[str]) -> np.ndarray:
    codes = {text: code for code, text in enumerate(dict.fromkeys(texts))}
    encoded = [text.encode("utf-8", "surrogatepass") for text in codes]
    distinct = np.array(encoded, dtype=h5py.string_dtype("utf-8", max([1, *map(len, encoded)])))
    return distinct if len(codes) == len(texts) else distinct[[codes[text] for text in texts]]
