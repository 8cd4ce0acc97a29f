"""The stored chunks of an array, measured before libhdf5 unpacks them.

A chunk says nothing about its unpacked size: a megabyte of gzip can become a gigabyte inside the library, whatever the
dataset declares, and one that is too short is read beyond its end. So every chunk must lie inside the file, keep all
its filters, and unpack to exactly the size of a chunk.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

from h5py import h5d, h5z  # pyright: ignore[reportAttributeAccessIssue]

from stores.errors import StoreCorrupted, UnsafeFile
from stores.safe_objects import Declared

if TYPE_CHECKING:
    from stores.safe_h5 import SafeFile

_CHECKSUM, _PIECE = 4, 1 << 20
_MOST_CHUNKS = 1 << 16


def check_packed(safe: SafeFile, path: str, declared: Declared) -> None:
    """Raises UnsafeFile or StoreCorrupted unless the storage of this dataset is whole: bytes inside the file, all
    chunks there, each of the right size."""
    dataset, whole, expected = safe.datasets[path], declared.chunk_bytes, declared.chunks
    if declared.layout != h5d.CHUNKED:
        first = dataset.get_offset() if declared.bytes and declared.layout == h5d.CONTIGUOUS else 0
        if first is None or (first and first + declared.bytes > safe.size):
            raise StoreCorrupted(f"{safe.path}: {path} lies outside of the file, expected inside.")
        return
    checksum = _CHECKSUM if h5z.FILTER_FLETCHER32 in declared.filters else 0
    packing = h5z.FILTER_DEFLATE in declared.filters
    if expected == 1 and not packing and declared.stored == whole + checksum:
        return  # as every index of a shard is
    if expected > _MOST_CHUNKS:
        raise UnsafeFile(f"{safe.path}: {path} has {expected} chunks, expected at most {_MOST_CHUNKS} in one array.")
    found: list[h5d.StoreInfo] = []
    dataset.chunk_iter(found.append)
    if len(found) != expected:
        raise StoreCorrupted(f"{safe.path}: {path} stores {len(found)} of its {expected} chunks.")
    for info in found:
        if info.byte_offset is None or info.byte_offset + info.size > safe.size:
            raise StoreCorrupted(f"{safe.path}: a chunk of {path} lies outside of the file, expected inside.")
        if info.filter_mask:
            raise UnsafeFile(f"{safe.path}: a chunk of {path} has filters switched off (mask {info.filter_mask}).")
        packed = info.size - checksum
        if packing:
            packed = _inflated(safe.descriptor, info.byte_offset, max(packed, 0), whole)
        if packed != whole:
            raise UnsafeFile(f"{safe.path}: a chunk of {path} unpacks to {packed} bytes, expected {whole}.")


def _inflated(descriptor: int, offset: int, size: int, most: int) -> int:
    """How many bytes a gzip stream stands for, counted in pieces and no further than one above `most`; -1: none."""
    stream, count, waiting = zlib.decompressobj(), 0, os.pread(descriptor, size, offset)
    try:
        while count <= most and not stream.eof:
            piece = stream.decompress(waiting, _PIECE)
            if not piece and not stream.unconsumed_tail:
                return -1
            count, waiting = count + len(piece), stream.unconsumed_tail
    except zlib.error:
        return -1
    return count
