"""One sealed activation shard, read back chunk by chunk with the hash of each chunk checked.

Values are read as raw chunks, past HDF5's type conversion (bfloat16 through it is about 13 times slower) and past its
filters. Their integrity is a table of xxh3-128 hashes inside the shard. Once a shard's index has been read through the
safe door, values are plain reads at known offsets: libhdf5 takes no part.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import xxhash
from h5py import h5d  # pyright: ignore[reportAttributeAccessIssue]
from jaxtyping import Float, Int64, Integer, Shaped, UInt8

from stores import safe_h5, schema
from stores.errors import NotFinite, StoreCorrupted, UnsafeFile
from stores.plan import Stream
from stores.safe_h5 import MEND, SafeFile
from stores.seals import Span

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


def index_hash(columns: Sequence[np.ndarray]) -> str:
    """One hash over all index columns: fletcher32 alone takes 0x0000 for 0xFFFF."""
    state = xxhash.xxh3_128()
    for column in columns:
        state.update(f"{column.dtype.str}{column.shape};".encode())
        state.update(np.ascontiguousarray(column).tobytes())
    return state.hexdigest()


def read_index(file: SafeFile, stream: Stream) -> StreamIndex:
    """The index of one stream of an opened shard. Raises StoreCorrupted when anything in it differs from the schema."""
    at = f"/{schema.ACTIVATIONS}/{stream.name}"
    columns = {name: file.array(f"{at}/{name}", (-1,), kinds="S") for name in _TEXT_COLUMNS}
    columns |= {name: file.array(f"{at}/{name}", (-1,), kinds="iu") for name in _NUMBER_COLUMNS}
    layers = file.array(f"{at}/{schema.LAYER}", (len(stream.layers),), kinds="iu")
    if file.text(schema.A_INDEX_HASH, at) != index_hash([layers, *columns.values()]):
        raise StoreCorrupted(f"{file.path}: the row index of {stream.name} does not fit its hash. {MEND}")
    if tuple(layers.tolist()) != stream.layers:
        raise StoreCorrupted(
            f"{file.path}: {stream.name} has layers {layers.tolist()}, expected {stream.layers}. {MEND}"
        )
    rows = len(columns[schema.PROMPT_ID])
    if any(len(column) != rows for column in columns.values()):
        raise StoreCorrupted(f"{file.path}: the index columns of {stream.name} differ in length. {MEND}")
    chunk_rows = schema.chunk_rows(rows)
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
        hashes=file.array(
            f"/{schema.CHUNK_HASHES}/{stream.name}", (len(stream.layers), chunks, schema.HASH_BYTES), kinds="u"
        ),
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
    if offsets.size * size > file.size:  # before each of them is asked for
        raise StoreCorrupted(f"{file.path}: {at} has {offsets.size} chunks of {size} bytes in {file.size}. {MEND}")

    def note(info: h5d.StoreInfo) -> None:
        layer, row, _ = info.chunk_offset
        if info.size == size:
            offsets[layer, row // chunk_rows] = info.byte_offset

    with file.guarded(at):
        dataset.chunk_iter(note)
    _check_apart(file, at, np.sort(offsets[offsets >= 0]), size)
    return offsets


def _check_apart(file: SafeFile, at: str, offsets: Int64[np.ndarray, " chunk"], size: int) -> None:
    if (np.diff(offsets) < size).any():
        raise UnsafeFile(f"{file.path}: chunks of {at} share their bytes: a small file would fill the memory.")


def read_rows(
    index: StreamIndex,
    stream: Stream,
    layer: int,
    rows: Integer[np.ndarray, " n"],
    out: Float[np.ndarray, "n d_model"],
) -> None:
    """Values of these rows (of this shard) at the layer with this index into `out`, in the order asked for, as numbers
    of its dtype.

    Reads only the chunks that hold them, each once, and checks each against its hash. Raises StoreCorrupted, naming
    file and chunk; `out` is then worthless.
    """
    descriptor = safe_h5.open_descriptor(index.path)
    try:
        scratch = _scratch(index, stream)
        for chunk, places in grouped(rows // index.chunk_rows):
            local = _within(rows[places], chunk * index.chunk_rows)
            into = out[places] if isinstance(places, slice) else None
            if into is not None and isinstance(local, slice) and _as_stored(into, stream, index.chunk_rows):
                _read_chunk(descriptor, index, stream, layer, chunk, into)
                continue
            plane = _read_chunk(descriptor, index, stream, layer, chunk, scratch)[local]
            if into is not None:
                _as_numbers(plane, stream.dtype, into)
            else:
                out[places] = _as_numbers(plane, stream.dtype, np.empty(plane.shape, dtype=out.dtype))
    finally:
        os.close(descriptor)


def check_chunks(index: StreamIndex, stream: Stream, finite: bool = False) -> list[Span]:
    """Every chunk of one stream of a shard against its hash: returns where they lie. Raises StoreCorrupted; where
    values are to be `finite`, NotFinite with how many are not."""
    descriptor = safe_h5.open_descriptor(index.path)
    try:
        scratch, stored, strange = _scratch(index, stream), schema.DTYPES[stream.dtype], 0
        for layer, chunk in np.ndindex(index.offsets.shape):
            bits = _read_chunk(descriptor, index, stream, layer, chunk, scratch).view(stored.bits)
            if finite:
                strange += int(np.count_nonzero((bits & stored.exponent) == stored.exponent))
    finally:
        os.close(descriptor)
    if strange:
        raise NotFinite(
            f"{index.path}: {strange} values of {stream.name} are NaN or infinite, expected none: their writer did not "
            "look. Mend: delete this shard and capture its unit anew, or allow_nonfinite=True in the spec."
        )
    return [(offset, scratch.nbytes) for offset in index.offsets.ravel().tolist()]


Places = slice | Int64[np.ndarray, " m"]


def grouped(keys: Integer[np.ndarray, " n"]) -> Iterator[tuple[int, Places]]:
    """(key, where it stands) for each distinct key, in rising order: as slices where the keys rise already, as those of
    a whole layer do; no index array is then made of it."""
    order = None if (np.diff(keys) >= 0).all() else np.argsort(keys, kind="stable")
    rising = keys if order is None else keys[order]
    edges = [*np.flatnonzero(np.diff(rising, prepend=-1)).tolist(), len(keys)]
    for start, stop in pairwise(edges):
        yield int(rising[start]), slice(start, stop) if order is None else order[start:stop]


def _within(rows: Integer[np.ndarray, " m"], first: int) -> Places:
    """Which rows of a chunk that begins at row `first`: as a slice where they lie side by side."""
    local = rows - first
    side_by_side = local[-1] - local[0] == len(local) - 1 and (np.diff(local) == 1).all()
    return slice(int(local[0]), int(local[-1]) + 1) if side_by_side else local


def _as_stored(into: np.ndarray, stream: Stream, chunk_rows: int) -> bool:
    """Whether a chunk can be read straight into `into`: all its rows (distinct ones, so in order), the same bits."""
    same = into.dtype == schema.DTYPES[stream.dtype].raw
    return same and len(into) == chunk_rows and into.flags.c_contiguous


def _as_numbers(
    raw: Shaped[np.ndarray, "n d_model"], dtype: str, out: Float[np.ndarray, "n d_model"]
) -> Float[np.ndarray, "n d_model"]:
    """Stored bits as numbers, into `out`; bfloat16 is exact in float32 (its bits are the upper half of a float32's)."""
    if dtype != "bfloat16":
        out[...] = raw
        return out
    exact = out if out.dtype == np.dtype("<f4") else np.empty(raw.shape, dtype="<f4")
    bits = exact.view("<u4")
    bits[...] = raw
    bits <<= 16
    if exact is not out:
        out[...] = exact
    return out


def _scratch(index: StreamIndex, stream: Stream) -> Shaped[np.ndarray, "chunk_rows d_model"]:
    return np.empty((index.chunk_rows, stream.d_model), dtype=schema.DTYPES[stream.dtype].raw)


def _read_chunk(
    descriptor: int,
    index: StreamIndex,
    stream: Stream,
    layer: int,
    chunk: int,
    into: Shaped[np.ndarray, "chunk_rows d_model"],
) -> Shaped[np.ndarray, "chunk_rows d_model"]:
    """One whole chunk, its padding included, into an array of its size; checked before anyone looks at it."""
    offset = int(index.offsets[layer, chunk])
    buffer = into.reshape(-1).view(np.uint8).data
    got = os.preadv(descriptor, [buffer], offset) if offset >= 0 else 0
    if got != len(buffer) or xxhash.xxh3_128_digest(buffer) != index.hashes[layer, chunk].tobytes():
        raise StoreCorrupted(
            f"{index.path}: chunk {chunk} (rows {chunk * index.chunk_rows}..) of "
            f"{stream.name}:{stream.layers[layer]} does not "
            f"fit its hash: its bytes are not those that were committed. {MEND}"
        )
    return into
