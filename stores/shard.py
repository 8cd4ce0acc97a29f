"""One sealed activation shard: built in memory, and read back chunk by chunk with the hash of each chunk checked.

Values are written and read as raw chunks, past HDF5's type conversion (bfloat16 through it is about 13 times slower)
and past its filters (a direct write into a checksummed dataset gives an unreadable file). Their integrity is a table
of xxh3-128 hashes inside the shard. Once a shard's index has been read through the safe door, values are plain reads
at known offsets: libhdf5 takes no part.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import xxhash
from h5py import h5d, h5p, h5s  # pyright: ignore[reportAttributeAccessIssue]
from jaxtyping import Int64, Integer, Shaped, UInt8

from stores import safe_h5, schema
from stores.block import Block
from stores.errors import StoreCorrupted
from stores.plan import Stream
from stores.safe_h5 import MEND, SafeFile

_TEXT_COLUMNS = (schema.PROMPT_ID, schema.VARIANT)
_NUMBER_COLUMNS = (schema.POSITION, schema.TOKEN_ID)


@dataclass(frozen=True, eq=False)
class StreamIndex:
    """The row index of one stream in one shard, and where its chunks lie. Small: kept after the first read."""

    path: Path
    prompt_id: list[str]
    variant: list[str]
    position: Int64[np.ndarray, " row"]
    token_id: Int64[np.ndarray, " row"]
    chunk_rows: int
    offsets: Int64[np.ndarray, "layer chunk"]
    hashes: UInt8[np.ndarray, "layer chunk 16"]
    status: tuple[int, int]
    """(size, mtime in ns) of the file that was read: another file under this name has other offsets"""


def build_shard(attributes: Mapping[str, str], streams: Sequence[Stream], blocks: Mapping[str, Block]) -> memoryview:
    """The bytes of one shard. In memory first: a full disk then raises a clean OSError, where libhdf5 would crash."""
    buffer = io.BytesIO()
    # "latest" gives every metadata block a checksum: with it, a flipped bit outside the data never passed unnoticed.
    with h5py.File(buffer, "w", libver="latest") as file:
        for name, text in attributes.items():
            schema.write_text(file, name, text)
        schema.write_encoding(file, "activation-shard")
        for stream in streams:
            group = file.create_group(f"{schema.ACTIVATIONS}/{stream.name}")
            schema.write_encoding(group, "residual-stream")
            _write_stream(group, stream, blocks[stream.name])
    return buffer.getbuffer()


def _write_stream(group: h5py.Group, stream: Stream, block: Block) -> None:
    rows = block.values.shape[1]
    sizes = {schema.LAYER: len(stream.layers), schema.ROW: rows, schema.D_MODEL: stream.d_model}
    layers = _column(group, schema.LAYER, np.array(stream.layers, dtype="<i4"))
    layers.make_scale(schema.LAYER)
    for name in (schema.ROW, schema.D_MODEL):
        scale = group.create_dataset(name, shape=(sizes[name],), dtype="<f4", track_times=False)
        scale.make_scale(schema.DIMENSION_ONLY.format(size=sizes[name]))
    values, hashes = _write_values(group, stream, block.values)
    for axis, name in enumerate(sizes):
        values.dims[axis].attach_scale(group[name])
    columns = {
        schema.PROMPT_ID: _fixed_text(block.prompt_id),
        schema.VARIANT: _fixed_text(block.variant),
        schema.POSITION: np.asarray(block.position),
        schema.TOKEN_ID: np.asarray(block.token_id),
    }
    for name, column in columns.items():
        _column(group, name, column).dims[0].attach_scale(group[schema.ROW])
    _column(group.file.require_group(schema.CHUNK_HASHES), stream.name, hashes)
    hashed = [np.array(stream.layers, dtype="<i4"), *columns.values()]
    schema.write_text(group, schema.A_INDEX_HASH, _index_hash(hashed))


def _write_values(
    group: h5py.Group, stream: Stream, values: Shaped[np.ndarray, "layer row d_model"]
) -> tuple[h5py.Dataset, UInt8[np.ndarray, "layer chunk 16"]]:
    layers, rows, d_model = values.shape
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)
    chunk_rows = _chunk_rows(rows)
    if rows:
        plist.set_chunk((1, chunk_rows, d_model))
        plist.set_fill_time(h5d.FILL_TIME_NEVER)
    space = h5s.create_simple(values.shape)
    dataset = h5d.create(group.id, schema.VALUES.encode(), schema.DTYPES[stream.dtype].file_type, space, plist)
    starts = range(0, rows, chunk_rows)
    hashes = np.zeros((layers, len(starts), schema.HASH_BYTES), dtype=np.uint8)
    for layer in range(layers):
        for chunk, start in enumerate(starts):
            data = values[layer, start : start + chunk_rows]
            if len(data) < chunk_rows:  # HDF5 stores edge chunks whole
                data = np.concatenate([data, np.zeros((chunk_rows - len(data), d_model), dtype=data.dtype)])
            dataset.write_direct_chunk((layer, start, 0), data)
            hashes[layer, chunk] = np.frombuffer(xxhash.xxh3_128_digest(data.data), dtype=np.uint8)
    out = h5py.Dataset(dataset)
    schema.write_encoding(out, "residuals")
    schema.write_text(out, schema.A_TORCH_DTYPE, stream.dtype)
    return out, hashes


def _chunk_rows(rows: int) -> int:
    """At most 128, and chunks of nearly equal height, so that the padding of the last one stays below their number."""
    chunks = max(1, -(-rows // schema.CHUNK_ROWS))
    return max(1, -(-rows // chunks))


def _column(group: h5py.Group, name: str, data: np.ndarray) -> h5py.Dataset:
    options = {"chunks": data.shape, "fletcher32": True} if data.size else {}
    dataset = group.create_dataset(name, data=data, track_times=False, **options)
    schema.write_encoding(dataset, "array")
    return dataset


def _fixed_text(texts: Sequence[str]) -> np.ndarray:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max([1, *map(len, encoded)])))


def _index_hash(columns: Sequence[np.ndarray]) -> str:
    """One hash over all index columns: fletcher32 alone takes 0x0000 for 0xFFFF."""
    state = xxhash.xxh3_128()
    for column in columns:
        state.update(f"{column.dtype.str}{column.shape};".encode())
        state.update(np.ascontiguousarray(column).tobytes())
    return state.hexdigest()


def read_index(file: SafeFile, stream: Stream) -> StreamIndex:
    """The index of one stream of an opened shard. Raises StoreCorrupted when anything in it differs from the schema."""
    at = f"/{schema.ACTIVATIONS}/{stream.name}"
    columns = {name: file.array(f"{at}/{name}", (-1,)) for name in (*_TEXT_COLUMNS, *_NUMBER_COLUMNS)}
    layers = file.array(f"{at}/{schema.LAYER}", (len(stream.layers),))
    if file.text(schema.A_INDEX_HASH, at) != _index_hash([layers, *columns.values()]):
        raise StoreCorrupted(f"{file.path}: the row index of {stream.name} does not fit its hash. {MEND}")
    if tuple(layers.tolist()) != stream.layers:
        raise StoreCorrupted(
            f"{file.path}: {stream.name} has layers {layers.tolist()}, expected {stream.layers}. {MEND}"
        )
    rows = len(columns[schema.PROMPT_ID])
    if any(len(column) != rows for column in columns.values()):
        raise StoreCorrupted(f"{file.path}: the index columns of {stream.name} differ in length. {MEND}")
    chunk_rows = _chunk_rows(rows)
    chunks = -(-rows // chunk_rows)
    status = os.fstat(file.descriptor)
    with file.guarded(f"the row index of {stream.name}"):
        texts = {name: [bytes(t).decode("utf-8", "surrogatepass") for t in columns[name]] for name in _TEXT_COLUMNS}
    return StreamIndex(
        path=file.path,
        prompt_id=texts[schema.PROMPT_ID],
        variant=texts[schema.VARIANT],
        position=columns[schema.POSITION].astype(np.int64),
        token_id=columns[schema.TOKEN_ID].astype(np.int64),
        chunk_rows=chunk_rows,
        offsets=_chunk_offsets(file, stream, rows, chunk_rows),
        hashes=file.array(f"/{schema.CHUNK_HASHES}/{stream.name}", (len(stream.layers), chunks, schema.HASH_BYTES)),
        status=(status.st_size, status.st_mtime_ns),
    )


def _chunk_offsets(file: SafeFile, stream: Stream, rows: int, chunk_rows: int) -> Int64[np.ndarray, "layer chunk"]:
    """Where each chunk of the values lies in the file; -1 for none, which the read then reports."""
    at = f"/{schema.ACTIVATIONS}/{stream.name}/{schema.VALUES}"
    dataset, stored = file.dataset(at), schema.DTYPES[stream.dtype]
    plist, shape = dataset.get_create_plist(), (len(stream.layers), rows, stream.d_model)
    if dataset.shape != shape or not dataset.get_type().equal(stored.file_type):
        raise StoreCorrupted(f"{file.path}: {at} has shape {dataset.shape}, expected {shape} of {stream.dtype}. {MEND}")
    offsets = np.full((len(stream.layers), -(-rows // chunk_rows)), -1, dtype=np.int64)
    if rows == 0:
        return offsets
    if (
        plist.get_layout() != h5d.CHUNKED
        or plist.get_nfilters()
        or plist.get_chunk() != (1, chunk_rows, stream.d_model)
    ):
        raise StoreCorrupted(
            f"{file.path}: {at} is not in unfiltered chunks of (1, {chunk_rows}, {stream.d_model}). {MEND}"
        )
    size = chunk_rows * stream.d_model * stored.raw.itemsize

    def note(info: h5d.StoreInfo) -> None:
        layer, row, _ = info.chunk_offset
        if info.size == size:
            offsets[layer, row // chunk_rows] = info.byte_offset

    with file.guarded(at):
        dataset.chunk_iter(note)
    return offsets


def read_rows(
    index: StreamIndex, stream: Stream, layer: int, rows: Integer[np.ndarray, " n"]
) -> Shaped[np.ndarray, "n d_model"]:
    """Raw values of these rows (of this shard) at the layer with this index, in the order asked for.

    Reads only the chunks that hold them, and checks each against its hash. Raises StoreCorrupted, naming file and
    chunk.
    """
    raw = schema.DTYPES[stream.dtype].raw
    out = np.empty((len(rows), stream.d_model), dtype=raw)
    descriptor = safe_h5.open_descriptor(index.path)
    try:
        chunk_of = rows // index.chunk_rows
        for chunk in np.unique(chunk_of):
            here = np.flatnonzero(chunk_of == chunk)
            data = _read_chunk(descriptor, index, stream, layer, int(chunk))
            plane = np.frombuffer(data, dtype=raw).reshape(index.chunk_rows, stream.d_model)
            out[here] = plane[rows[here] - chunk * index.chunk_rows]
    finally:
        os.close(descriptor)
    return out


def _read_chunk(descriptor: int, index: StreamIndex, stream: Stream, layer: int, chunk: int) -> bytes:
    size = index.chunk_rows * stream.d_model * schema.DTYPES[stream.dtype].raw.itemsize
    offset = int(index.offsets[layer, chunk])
    data = os.pread(descriptor, size, offset) if offset >= 0 else b""
    if len(data) != size or xxhash.xxh3_128_digest(data) != index.hashes[layer, chunk].tobytes():
        raise StoreCorrupted(
            f"{index.path}: chunk {chunk} (rows {chunk * index.chunk_rows}..) of "
            f"{stream.name}:{stream.layers[layer]} does not "
            f"fit its hash: its bytes are not those that were committed. {MEND}"
        )
    return data
