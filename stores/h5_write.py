"""What shards are made of, written through h5py's low-level calls: the metadata of a shard then takes 1 ms, not 2.5."""

from __future__ import annotations

from functools import cache, lru_cache

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5p, h5s, h5t  # pyright: ignore[reportAttributeAccessIssue]

from stores import schema


def write_text(owner: h5f.FileID | h5g.GroupID | h5d.DatasetID, name: str, text: str) -> None:
    """A fixed-length UTF-8 attribute: variable-length text lives in HDF5's global heap, which has no checksum."""
    data = text.encode("utf-8", "surrogatepass")
    dtype, kind = _text_type(max(1, len(data)))
    h5a.create(owner, name.encode(), kind, _scalar()).write(np.array(data, dtype=dtype), kind)


def write_encoding(owner: h5f.FileID | h5g.GroupID | h5d.DatasetID, kind: str) -> None:
    """anndata's habit: each object says what it is and in which version."""
    write_text(owner, schema.A_ENCODING, kind)
    write_text(owner, schema.A_ENCODING_VERSION, str(schema.SHARD_VERSION))


def group(parent: h5f.FileID | h5g.GroupID, path: str) -> h5g.GroupID:
    """The group at this path; what is missing of it is made."""
    found = parent
    for name in path.encode().split(b"/"):
        found = h5g.open(found, name) if name in found else h5g.create(found, name, gcpl=_plain_group())
    return found


def column(parent: h5f.FileID | h5g.GroupID, name: str, data: np.ndarray, kind: str = "array") -> h5d.DatasetID:
    """A small array, whole in one chunk, with HDF5's own checksum."""
    made, plist = h5t.py_create(data.dtype, logical=True), _plain()
    if data.size:
        plist = plist.copy()
        plist.set_chunk(data.shape)
        plist.set_fletcher32()
    dataset = h5d.create(parent, name.encode(), made, h5s.create_simple(data.shape), plist)
    if data.size:
        dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(data), made)
    write_encoding(dataset, kind)
    return dataset


def bare(parent: h5f.FileID | h5g.GroupID, name: str, kind: h5t.TypeID, shape: tuple[int, ...]) -> h5d.DatasetID:
    """A dataset without storage: a netCDF dimension is a shape and a name."""
    return h5d.create(parent, name.encode(), kind, h5s.create_simple(shape), _plain())


def reserved(
    parent: h5f.FileID | h5g.GroupID,
    name: str,
    kind: h5t.TypeID,
    shape: tuple[int, ...],
    chunk: tuple[int, ...] | None = None,
) -> h5d.DatasetID:
    """A dataset whose space is allocated at once and never written by libhdf5: unfiltered, its chunks (if any) one
    behind the other in row-major order."""
    plist = _plain()
    if 0 not in shape:
        plist = plist.copy()
        plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5d.FILL_TIME_NEVER)
        if chunk is not None:
            plist.set_chunk(chunk)
    return h5d.create(parent, name.encode(), kind, h5s.create_simple(shape), plist)


# Made once a process: to make one costs as much as to write an attribute.


@lru_cache
def _text_type(size: int) -> tuple[np.dtype, h5t.TypeID]:
    dtype = h5py.string_dtype("utf-8", size)
    return dtype, h5t.py_create(dtype, logical=True)


@cache
def _scalar() -> h5s.SpaceID:
    return h5s.create(h5s.SCALAR)


# No clock in a shard: equal numbers give equal bytes.


@cache
def _plain() -> h5p.PropDCID:
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)
    return plist


@cache
def _plain_group() -> h5p.PropGCID:
    plist = h5p.create(h5p.GROUP_CREATE)
    plist.set_obj_track_times(False)
    return plist
