"""Hostile arrays and hostile bytes: what a walk over the headers passes, and what is no HDF5 file of ours at all.

An array takes the place of a column that is read. A patch takes the bytes of a whole file and returns worse ones.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import h5py
import numpy as np
from lookup3 import resealed

HEAD, END_OF_FILE, ROOT, CHECKSUM = 48, 28, 36, 44  # the superblock's bytes, and where in it things stand


def inflating_chunk(group: h5py.Group, name: str, secret: Path) -> None:
    """A chunk of 64 bytes, and 384 MiB in it: libhdf5 unpacks to the end of the stream."""
    packer = zlib.compressobj(1)
    pieces = [packer.compress(bytes(1 << 20)) for _ in range(384)]
    _packed(group, name, b"".join((*pieces, packer.flush())))


def chunk_of_too_few_bytes(group: h5py.Group, name: str, secret: Path) -> None:
    _packed(group, name, zlib.compress(bytes(8)))


def chunk_that_is_no_gzip(group: h5py.Group, name: str, secret: Path) -> None:
    _packed(group, name, b"\xff" * 40)


def empty_chunk(group: h5py.Group, name: str, secret: Path) -> None:
    _packed(group, name, zlib.compress(bytes(64))[:1])


def _packed(group: h5py.Group, name: str, data: bytes) -> None:
    dataset = group.create_dataset(name, shape=(8,), dtype="i8", chunks=(8,), compression="gzip")
    dataset.id.write_direct_chunk((0,), data)


def checksum_of_nothing(group: h5py.Group, name: str, secret: Path) -> None:
    """Two bytes where eight numbers and their checksum should stand."""
    dataset = group.create_dataset(name, shape=(8,), dtype="i8", chunks=(8,), fletcher32=True)
    dataset.id.write_direct_chunk((0,), b"\x01\x02")


def checksum_switched_off(group: h5py.Group, name: str, secret: Path) -> None:
    dataset = group.create_dataset(name, shape=(16,), dtype="i8", chunks=(8,), fletcher32=True)
    for start in (0, 8):
        dataset.id.write_direct_chunk((start,), bytes(64), filter_mask=1)


def chunks_that_are_not_there(group: h5py.Group, name: str, secret: Path) -> None:
    dataset = group.create_dataset(name, shape=(1 << 16,), dtype="i8", chunks=(8,), fletcher32=True)
    dataset[:8] = np.arange(8)


def a_million_chunks(group: h5py.Group, name: str, secret: Path) -> None:
    dataset = group.create_dataset(name, shape=(1 << 20,), dtype="i1", chunks=(1,))
    dataset[0] = 1


def too_large_an_array(group: h5py.Group, name: str, secret: Path) -> None:
    group.create_dataset(name, shape=((1 << 27) + 1,), dtype="i8", chunks=(1 << 10,))


ARRAYS = {
    inflating_chunk: "unpacks to (65|10485)",
    chunk_of_too_few_bytes: "unpacks to 8 bytes, expected 64",
    chunk_that_is_no_gzip: "unpacks to -1 bytes",
    empty_chunk: "unpacks to -1 bytes",
    checksum_of_nothing: "unpacks to -2 bytes",
    checksum_switched_off: "filters switched off",
    chunks_that_are_not_there: "1 of its 8192 chunks",
    a_million_chunks: "1048576 chunks, expected at most 65536",
    too_large_an_array: "declares 1073741832 bytes",
}


def nothing(file: bytes) -> bytes:
    return b""


def signature_alone(file: bytes) -> bytes:
    return file[:8]


def superblock_alone(file: bytes) -> bytes:
    return file[:HEAD]


def half(file: bytes) -> bytes:
    return file[: len(file) // 2]


def one_byte_short(file: bytes) -> bytes:
    return file[:-1]


def something_behind(file: bytes) -> bytes:
    return file + b"PK\x03\x04" * 100


def something_before(file: bytes) -> bytes:
    """HDF5 looks for its signature at 0, 512, 1024, ...: a page of a browser and a store at once."""
    return b"<script>alert(1)</script>".ljust(512) + file


def of_an_old_format(file: bytes) -> bytes:
    return file[:8] + b"\x00" + file[9:]


def of_an_unknown_format(file: bytes) -> bytes:
    return file[:8] + b"\x09" + file[9:]


def with_short_addresses(file: bytes) -> bytes:
    return _head(file, 9, b"\x02\x02")


def still_open(file: bytes) -> bytes:
    return _head(file, 11, b"\x05")


def based_elsewhere(file: bytes) -> bytes:
    return _head(file, 12, (4096).to_bytes(8, "little"))


def with_an_extension(file: bytes) -> bytes:
    """Where drivers, shared messages and images of the metadata cache are announced."""
    return _head(file, 20, file[ROOT : ROOT + 8])


def announcing_more(file: bytes) -> bytes:
    return _head(file, END_OF_FILE, (1 << 50).to_bytes(8, "little"))


def root_outside(file: bytes) -> bytes:
    return _head(file, ROOT, (1 << 40).to_bytes(8, "little"))


def root_in_the_superblock(file: bytes) -> bytes:
    return _head(file, ROOT, bytes(8))


def with_a_wrong_checksum(file: bytes) -> bytes:
    return file[:CHECKSUM] + b"\0\0\0\0" + file[HEAD:]


def noise_behind_the_head(file: bytes) -> bytes:
    return file[:HEAD] + np.random.default_rng(0).bytes(len(file) - HEAD)


def zeros_behind_the_head(file: bytes) -> bytes:
    return file[:HEAD] + bytes(len(file) - HEAD)


def _head(file: bytes, at: int, data: bytes) -> bytes:
    """With these bytes in the superblock, and the checksum that then belongs to it."""
    return resealed(file[:at] + data + file[at + len(data) : CHECKSUM]) + file[HEAD:]


PATCHES = {
    nothing: "does not begin as one",
    signature_alone: "does not begin as one",
    superblock_alone: "has 48 bytes and announces",
    half: "bytes and announces",
    one_byte_short: "bytes and announces",
    something_behind: "bytes and announces",
    something_before: "does not begin as one",
    of_an_old_format: "superblock of version 0",
    of_an_unknown_format: "superblock of version 9",
    with_short_addresses: "addresses of 2 and 2 bytes",
    still_open: "not closed by its writer",
    based_elsewhere: "base address or an extension",
    with_an_extension: "base address or an extension",
    announcing_more: "announces 1125899906842624",
    root_outside: "cannot be read|not a readable HDF5 file",
    root_in_the_superblock: "cannot be read|not a readable HDF5 file",
    with_a_wrong_checksum: "not a readable HDF5 file",
    noise_behind_the_head: "cannot be read|not a readable HDF5 file",
    zeros_behind_the_head: "cannot be read|not a readable HDF5 file",
}
