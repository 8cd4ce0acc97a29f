"""Rows of activations as one sealed HDF5 file, in the layout of a shard: any HDF5 tool reads it, and xarray with named
dimensions and coordinates. The values go from shard to file a few megabytes at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xxhash
from h5py import h5d, h5ds, h5f, h5g  # pyright: ignore[reportAttributeAccessIssue]
from jaxtyping import Shaped

from stores import h5_write, publish, schema
from stores.block import Block
from stores.canonical import content_key
from stores.errors import NotFinite
from stores.part import Part
from stores.plan import Stream
from stores.sealing import ActivationShard, fixed_text
from stores.view import Rows

AS_STORED = "as stored"
LABEL, TAG, PROMPTS = "label", "tag_", "prompts"
_PIECE_ROWS = 32 * schema.CHUNK_ROWS
_SHORT = 256
"""bytes; longer tags stand in the prompt records alone, since a column has the width of its longest text"""


def file_of_rows(rows: Rows, attributes: dict[str, str], dtype: str = AS_STORED) -> ActivationShard:
    """The file of these rows, laid out in memory and not yet written; `write_rows` fills it."""
    parts = {name: rows.part(name) for name in rows.streams}
    streams = [replace(part.table.stream, dtype=exported_dtype(part, dtype)) for part in parts.values()]
    blocks = {name: _without_values(rows.at(name), part) for name, part in parts.items()}
    ids = list(dict.fromkeys(prompt for block in blocks.values() for prompt in block.prompt_id))

    def also(file: h5f.FileID) -> None:
        for name in parts:
            _write_prompt_columns(h5g.open(file, f"{schema.ACTIVATIONS}/{name}".encode()), rows.at(name))
        records = "\n".join(json.dumps(rows.record(prompt)) for prompt in ids)
        text = h5_write.column(file, PROMPTS, np.frombuffer(records.encode(), dtype=np.uint8), kind="json-lines")
        h5ds.set_scale(text, PROMPTS.encode())  # a dimension of its own: netCDF has no others

    about = {**attributes, schema.A_UNIT: "export", schema.A_UNIT_PROMPTS: content_key(ids)}
    return ActivationShard(about, streams, blocks, where="Export", also=also)


def write_rows(file: ActivationShard, rows: Rows, descriptor: int) -> None:
    """The whole file into an open, empty one. Raises OSError, StoreCorrupted (a shard that is read), NotFinite."""
    os.ftruncate(descriptor, file.size)
    for reserved in file.reserved:
        hashes, at = [], reserved.offset
        for chunk in _chunks(rows.part(reserved.stream.name), reserved.stream):
            hashes.append(xxhash.xxh3_128_digest(chunk))
            publish.write_at(descriptor, chunk, at)
            at += len(chunk)
        reserved.table[:] = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(reserved.table.shape)
        publish.write_at(descriptor, reserved.table.tobytes(), reserved.table_offset)
    for offset, data in file.metadata:
        publish.write_at(descriptor, data, offset)


def exported_dtype(part: Part, dtype: str) -> str:
    """What the values are written as: as they are stored, unless they are differences, which only numbers can be."""
    if dtype != AS_STORED:
        return dtype
    return part.table.stream.dtype if part.minus is None else "float32"


def encoded(values: Shaped[np.ndarray, "n d_model"], dtype: str, where: str) -> Shaped[np.ndarray, "n d_model"]:
    """float32 values as the bits of `dtype`. Raises NotFinite when float16 has no room for one of them."""
    if dtype == "bfloat16":  # the upper half of a float32 that was a bfloat16 before: exact
        return (values.view("<u4") >> 16).astype("<u2")
    with np.errstate(over="ignore"):
        out = values.astype(schema.DTYPES[dtype].raw)
    if lost := int(np.count_nonzero(np.isinf(out) & np.isfinite(values))):
        raise NotFinite(f"{where}: {lost} values are too large for {dtype}. Mend: export as float32.")
    return out


def pieces(part: Part, layer: int, size: int) -> Iterator[Shaped[np.ndarray, "n d_model"]]:
    """The values of one layer in float32, at most `size` rows at a time, each read once and checked."""
    for start in range(0, len(part), size):
        rows = slice(start, start + size)
        minus = None if part.minus is None else part.minus[rows]
        yield replace(part, plus=part.plus[rows], minus=minus).values(layer, np.dtype(np.float32))


def _chunks(part: Part, stream: Stream) -> Iterator[bytes]:
    """The chunks of the file in its order, the last one of a layer padded with zeros."""
    height = schema.chunk_rows(len(part))
    size = height * stream.d_model * schema.DTYPES[stream.dtype].raw.itemsize
    for layer in stream.layers:
        for piece in pieces(part, layer, max(1, _PIECE_ROWS // height) * height):
            data = encoded(piece, stream.dtype, f"{stream.name}:{layer}").tobytes()
            for start in range(0, len(data), size):
                yield data[start : start + size].ljust(size, b"\0")


def _without_values(rows: Rows, part: Part) -> Block:
    """The row index of these rows, and values that have a shape and no memory."""
    stream = part.table.stream
    raw = schema.DTYPES[exported_dtype(part, AS_STORED)].raw
    values = np.broadcast_to(np.zeros((), raw), (len(stream.layers), len(part), stream.d_model))
    return Block(values, rows.prompt_ids, rows.variants, rows.positions, rows.token_ids)


def _write_prompt_columns(group: h5g.GroupID, rows: Rows) -> None:
    """Label and tags of each row's prompt, as coordinates; numbers as numbers, all else as text."""
    scale = h5d.open(group, schema.ROW.encode())
    for name, values in {LABEL: rows.labels, **{f"{TAG}{tag}": rows.tag(tag) for tag in rows.tags}}.items():
        column = as_column(values)
        if column is not None and "/" not in name:
            h5ds.attach_scale(h5_write.column(group, name, column), scale, 0)


def as_column(values: Sequence[Any]) -> np.ndarray | None:
    """Labels or tags as one array: whole numbers, numbers, or text (of what is neither, JSON; of None, nothing). None
    when a text among them is too long for a column."""
    kinds = {type(value) for value in values}
    if kinds <= {int} and all(-(1 << 63) <= value < 1 << 63 for value in values):
        return np.array(values, dtype="<i8")
    if kinds <= {int, float}:
        return np.array(values, dtype="<f8")
    texts = ["" if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]
    if any("\0" in text or len(text.encode("utf-8", "surrogatepass")) > _SHORT for text in set(texts)):
        return None
    return fixed_text(texts)
