"""Pictures inside the page: small PNG and JPEG files as data URIs, each looked at before it is let in."""

from __future__ import annotations

import base64
import binascii
import re
import struct

LARGEST = 1 << 20  # bytes of one picture
WIDEST = 4096  # pixels of a side
_URI = re.compile(r"data:image/(png|jpeg);base64,([A-Za-z0-9+/]+={0,2})", re.ASCII)


class PictureRefused(ValueError):
    """What stands where a picture was expected is none that a page may hold."""


def checked(uri: object) -> str:
    """The data URI itself. Raises PictureRefused unless it is a PNG or a JPEG in base64, of at most 1 MiB, that says of
    itself that no side is longer than 4,096 pixels: a browser unpacks a picture before anybody sees it."""
    text = str(uri)
    found = _URI.fullmatch(text) if len(text) < 2 * LARGEST else None
    if found is None:
        raise PictureRefused(f"expected data:image/png;base64,... or a JPEG of at most 1 MiB; {text[:40]!r} came.")
    try:
        data = base64.b64decode(found[2], validate=True)
    except binascii.Error as error:
        raise PictureRefused(f"expected base64; it does not decode ({error}).") from None
    size = (_png_size if found[1] == "png" else _jpeg_size)(data)
    if len(data) > LARGEST or size is None or not all(0 < side <= WIDEST for side in size):
        raise PictureRefused(
            f"expected a {found[1]} of at most 1 MiB and {WIDEST} pixels a side; came {len(data)} bytes, sides {size}."
        )
    return text


def _png_size(data: bytes) -> tuple[int, int] | None:
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return struct.unpack(">II", data[16:24])


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the frame header; None for a file that has none where it should."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + length
    return None
