"""The checksum of HDF5's metadata (Bob Jenkins, lookup3), so that forged bytes do not stop at it."""

from __future__ import annotations

_ALL = 0xFFFFFFFF


def checksum(data: bytes) -> int:
    """Of a block of metadata without its last four bytes, where HDF5 keeps it (little endian)."""
    a = b = c = (0xDEADBEEF + len(data)) & _ALL
    while len(data) > 12:
        words = (int.from_bytes(data[i : i + 4], "little") for i in (0, 4, 8))
        a, b, c = ((have + word) & _ALL for have, word in zip((a, b, c), words, strict=True))
        for shift in (4, 6, 8, 16, 19, 4):
            a = ((a - c) & _ALL) ^ _turned(c, shift)
            c = (c + b) & _ALL
            a, b, c = b, c, a
        data = data[12:]
    if data:
        words = (int.from_bytes(data[i : i + 4], "little") for i in (0, 4, 8))
        a, b, c = ((have + word) & _ALL for have, word in zip((a, b, c), words, strict=True))
        for shift in (14, 11, 25, 16, 4, 14, 24):
            c = ((c ^ b) - _turned(b, shift)) & _ALL
            a, b, c = b, c, a
        c = b
    return c


def resealed(block: bytes) -> bytes:
    """The block with its checksum behind it."""
    return block + checksum(block).to_bytes(4, "little")


def _turned(word: int, by: int) -> int:
    return ((word << by) | (word >> (32 - by))) & _ALL
