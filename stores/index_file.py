"""index.h5: virtual datasets over the shards of a store, for outside tools that want one file. It holds no values,
names shards by their place inside the store alone, and is made anew at any time; nothing of ours reads it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5f, h5p, h5s  # pyright: ignore[reportAttributeAccessIssue]

from stores import h5_write, publish, schema
from stores.block import Block
from stores.part import Part
from stores.plan import Stream
from stores.sealing import write_index
from stores.view import Rows


def write_index_file(rows: Rows, attributes: dict[str, str], store: Path) -> Path:
    """Writes index.h5 into the store that holds these rows, all of them. Rows of shards that are lost afterwards read
    as NaN, without an error of HDF5: `verify` names them."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        for name, text in {**attributes, schema.A_UNIT: "index"}.items():
            h5_write.write_text(file.id, name, text)
        h5_write.write_encoding(file.id, "activation-index")
        for name in rows.streams:
            part = rows.part(name)
            write_index(file.id, _virtual_values(file.id, part, store), part.table.stream, _row_index(rows.at(name)))
    publish.replace(buffer.getbuffer(), store / schema.INDEX, store / schema.TMP)
    return store / schema.INDEX


def _virtual_values(root: h5f.FileID, part: Part, store: Path) -> h5d.DatasetID:
    """`values` [layer, row, d_model], each shard's rows where they stand in plan order."""
    stream, start = part.table.stream, 0
    group = h5_write.group(root, f"{schema.ACTIVATIONS}/{stream.name}")
    h5_write.write_encoding(group, "residual-stream")
    stored = schema.DTYPES[stream.dtype]
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)
    plist.set_fill_value(np.array(np.nan, dtype="<f4"))
    layers, width = len(stream.layers), stream.d_model
    space = h5s.create_simple((layers, len(part), width))
    inside = f"/{schema.ACTIVATIONS}/{stream.name}/{schema.VALUES}".encode()
    for shard in part.table.shards:
        if not (height := len(shard.prompt_id)):
            continue
        space.select_hyperslab((0, start, 0), (layers, height, width))
        name = os.fsencode(shard.path.relative_to(store))
        plist.set_virtual(space, name, inside, h5s.create_simple((layers, height, width)))
        start += height
    space.select_all()
    values = h5d.create(group, schema.VALUES.encode(), stored.file_type, space, plist)
    h5_write.write_encoding(values, "residuals")
    h5_write.write_text(values, schema.A_TORCH_DTYPE, stream.dtype)
    return values


def _row_index(rows: Rows) -> Block:
    stream: Stream = rows.part(rows.streams[0]).table.stream
    values = np.broadcast_to(np.zeros((), schema.DTYPES[stream.dtype].raw), (len(stream.layers), len(rows), 1))
    return Block(values, rows.prompt_ids, rows.variants, rows.positions, rows.token_ids)
