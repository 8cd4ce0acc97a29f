"""The walk over an HDF5 file: every group, dataset and attribute is looked at once, by its header alone.

Each check is there because a file can do otherwise: follow names out of itself, name one object twice without end,
declare what it does not store, carry types whose values are addresses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z  # pyright: ignore[reportAttributeAccessIssue]

from stores.errors import UnsafeFile
from stores.schema import bfloat16_type

if TYPE_CHECKING:
    from stores.safe_h5 import SafeFile

# In this order and each once. Not lzf: how large its output is cannot be known before libhdf5 unpacks it.
FILTERS = (h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE, h5z.FILTER_FLETCHER32)
_LAYOUTS = {h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED, h5d.VIRTUAL}
_SCALE_LINKS = {b"DIMENSION_LIST", b"REFERENCE_LIST"}  # references, written by the dimension scales and never followed
_LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "an external link"}
_ORDERS = {h5t.ORDER_LE, h5t.ORDER_BE}
_FLOATS = (h5t.IEEE_F16LE, h5t.IEEE_F32LE, h5t.IEEE_F64LE, h5t.IEEE_F32BE, bfloat16_type())
_LARGE, _HUGE = 8 << 20, 1 << 30


@dataclass(frozen=True)
class Declared:
    """What the header of one dataset says of its size and storage."""

    shape: tuple[int, ...]
    bytes: int
    stored: int
    """in this file: chunks that share their bytes cannot make it more than the file"""
    layout: int
    filters: tuple[int, ...] = ()
    chunk_bytes: int = 0
    """of one chunk, unpacked"""
    chunks: int = 0


def walk(safe: SafeFile) -> None:
    """Every object once, one link at a time: h5py would follow a link in the middle of a path without a word."""
    root = h5g.open(safe.file.id, b"/")
    safe.groups["/"] = root
    count = 1 + _check_attributes(safe, "/", root)
    seen = {h5o.get_info(root).addr}
    waiting, total = [("", root, 1)], 0
    while waiting:
        prefix, group, depth = waiting.pop()
        links: list[tuple[bytes, Any]] = []
        _check_count(safe, count + group.get_num_objs())
        group.links.iterate(lambda name, info, links=links: links.append((name, info.type)), info=True)
        for name, kind in links:
            path = f"{prefix}/{name.decode('utf-8', 'backslashreplace')}"
            _check_link(safe, path, kind)
            if depth > safe.limits.depth:
                raise UnsafeFile(f"{safe.path}: {path} lies more than {safe.limits.depth} groups deep.")
            thing = h5o.open(group, name)
            address = h5o.get_info(thing).addr
            _check_new(safe, path, address, seen)
            seen.add(address)
            if not isinstance(thing, h5g.GroupID | h5d.DatasetID):
                raise UnsafeFile(f"{safe.path}: {path} is neither group nor dataset ({type(thing).__name__}).")
            count += 1 + _check_attributes(safe, path, thing)
            _check_count(safe, count)
            if isinstance(thing, h5g.GroupID):
                safe.groups[path] = thing
                waiting.append((path, thing, depth + 1))
            else:
                safe.datasets[path], safe.declared[path] = thing, (found := _declared(safe, path, thing))
                total += found.bytes if found.stored else 0
                _check_total(safe, total)


def check_size_in_memory(safe: SafeFile, path: str, found: Declared) -> None:
    """Whether a dataset may be read whole: within `limits.array_bytes`, and stored at all."""
    if found.bytes > safe.limits.array_bytes:
        raise UnsafeFile(
            f"{safe.path}: {path} declares {found.bytes} bytes, expected at most {safe.limits.array_bytes}; "
            "a larger array needs Limits(array_bytes=...)."
        )
    if found.bytes and not found.stored:
        raise UnsafeFile(f"{safe.path}: {path} declares {found.bytes} bytes and stores none.")


def _declared(safe: SafeFile, path: str, dataset: h5d.DatasetID) -> Declared:
    """Raises UnsafeFile for what a shard never holds."""
    plist, kind = dataset.get_create_plist(), dataset.get_type()
    layout = plist.get_layout()
    if layout == h5d.VIRTUAL:
        _check_sources(safe, path, plist)  # before its shape: to tell it, libhdf5 opens as many sources as there are
    _check_storage(safe, path, plist)
    _check_type(safe, path, kind)
    if dataset.get_space().get_simple_extent_type() not in (h5s.SIMPLE, h5s.SCALAR):
        raise UnsafeFile(f"{safe.path}: {path} has a dataspace that shards never hold.")
    shape, item, storage = dataset.shape, kind.get_size(), dataset.get_storage_size()
    if layout == h5d.VIRTUAL:
        return Declared(shape, math.prod(shape) * item, 0, layout)
    filters = _checked_filters(safe, path, plist)
    chunk = plist.get_chunk() if layout == h5d.CHUNKED else ()
    chunks = math.prod(-(-have // step) for have, step in zip(shape, chunk, strict=True)) if chunk else 0
    chunk_bytes = math.prod(chunk) * item if chunk else 0
    found = Declared(shape, math.prod(shape) * item, min(storage, safe.size), layout, filters, chunk_bytes, chunks)
    if not filters and storage > safe.size:
        raise UnsafeFile(f"{safe.path}: {path} claims {storage} stored bytes in a file of {safe.size}.")
    _check_chunk_size(safe, path, found)
    _check_size(safe, path, found)
    return found


def _check_storage(safe: SafeFile, path: str, plist: Any) -> None:
    if plist.get_external_count():
        raise UnsafeFile(f"{safe.path}: {path} has external raw storage: it would read other files.")
    if (layout := plist.get_layout()) not in _LAYOUTS:
        raise UnsafeFile(f"{safe.path}: {path} has the unknown layout {layout}.")


def _check_type(safe: SafeFile, path: str, kind: h5t.TypeID) -> None:
    if not _plain_type(kind):
        raise UnsafeFile(f"{safe.path}: {path} has a type that shards never hold (class {kind.get_class()}).")


def _check_size(safe: SafeFile, path: str, found: Declared) -> None:
    if found.bytes > safe.limits.dataset_bytes:
        raise UnsafeFile(
            f"{safe.path}: {path} declares {found.bytes} bytes, expected at most {safe.limits.dataset_bytes}; "
            "a larger file needs Limits(dataset_bytes=...)."
        )
    if found.bytes > _HUGE and found.bytes > safe.limits.expansion * found.stored:
        raise UnsafeFile(f"{safe.path}: {path} declares {found.bytes} bytes and stores {found.stored}.")


def _check_chunk_size(safe: SafeFile, path: str, found: Declared) -> None:
    if found.chunk_bytes > safe.limits.chunk_bytes:
        raise UnsafeFile(
            f"{safe.path}: {path} has chunks of {found.chunk_bytes} bytes, expected at most {safe.limits.chunk_bytes}."
        )
    if found.filters and found.chunk_bytes > max(_LARGE, safe.limits.array_expansion * found.stored):
        raise UnsafeFile(f"{safe.path}: {path} has chunks of {found.chunk_bytes} bytes and stores {found.stored}.")


def _check_total(safe: SafeFile, total: int) -> None:
    if total > _LARGE + safe.limits.array_expansion * safe.size:
        raise UnsafeFile(f"{safe.path}: its datasets declare {total} bytes in a file of {safe.size}.")


def _check_link(safe: SafeFile, path: str, kind: int) -> None:
    if kind != h5l.TYPE_HARD:
        raise UnsafeFile(f"{safe.path}: {path} is {_LINKS.get(kind, 'a user-defined link')}; expected hard links.")


def _check_new(safe: SafeFile, path: str, address: int, seen: set[int]) -> None:
    if address in seen:
        raise UnsafeFile(f"{safe.path}: {path} is a second name of another object (a cycle or an alias).")


def _checked_filters(safe: SafeFile, path: str, plist: Any) -> tuple[int, ...]:
    codes = tuple(plist.get_filter(i)[0] for i in range(plist.get_nfilters()))
    if strange := [code for code in codes if code not in FILTERS]:
        raise UnsafeFile(f"{safe.path}: {path} uses filter {strange[0]}; expected fletcher32, shuffle or gzip.")
    if codes != tuple(code for code in FILTERS if code in codes):
        raise UnsafeFile(f"{safe.path}: {path} has the filters {codes}, expected each once and in the order {FILTERS}.")
    return codes


def _check_sources(safe: SafeFile, path: str, plist: Any) -> None:
    """Virtual datasets belong into an index over shards, and nowhere else."""
    if not safe.sources:
        raise UnsafeFile(f"{safe.path}: {path} is a virtual dataset: it would read other files.")
    count = plist.get_virtual_count()
    _check_count(safe, count)
    for i in range(count):
        if (name := plist.get_virtual_filename(i)) not in safe.sources:
            raise UnsafeFile(f"{safe.path}: {path} is a virtual dataset that reads {name!r}, no shard of this store.")


def _check_count(safe: SafeFile, count: int) -> None:
    if count > safe.limits.objects:
        raise UnsafeFile(f"{safe.path}: more than {safe.limits.objects} objects; more need Limits(objects=...).")


def _check_attributes(safe: SafeFile, path: str, owner: h5g.GroupID | h5d.DatasetID) -> int:
    """How many there are."""
    count = h5a.get_num_attrs(owner)
    _check_count(safe, count)
    for i in range(count):
        attribute = h5a.open(owner, index=i)
        _check_attribute_size(safe, path, attribute)
        if attribute.name not in _SCALE_LINKS and not _plain_type(attribute.get_type()):
            raise UnsafeFile(f"{safe.path}: attribute {attribute.name!r} of {path} has a type that shards never hold.")
    return count


def _check_attribute_size(safe: SafeFile, path: str, attribute: h5a.AttrID) -> None:
    if attribute.get_storage_size() > safe.limits.attribute_bytes:
        raise UnsafeFile(
            f"{safe.path}: attribute {attribute.name!r} of {path} has {attribute.get_storage_size()} bytes, "
            f"expected at most {safe.limits.attribute_bytes}."
        )


def _plain_type(kind: h5t.TypeID) -> bool:
    """Integers, IEEE floats, bfloat16, booleans and fixed-length text; nothing compound, ragged, opaque or
    referring."""
    if isinstance(kind, h5t.TypeEnumID):
        named = {kind.get_member_name(i): kind.get_member_value(i) for i in range(min(kind.get_nmembers(), 3))}
        return kind.get_size() == 1 and named == {b"FALSE": 0, b"TRUE": 1}
    if isinstance(kind, h5t.TypeStringID):
        return not kind.is_variable_str() and kind.get_size() <= 1 << 20
    if isinstance(kind, h5t.TypeIntegerID):
        size = kind.get_size()
        whole = size in (1, 2, 4, 8) and kind.get_precision() == 8 * size and kind.get_offset() == 0
        return whole and kind.get_order() in _ORDERS
    return isinstance(kind, h5t.TypeFloatID) and any(kind.equal(known) for known in _FLOATS)
