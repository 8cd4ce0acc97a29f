"""Picture files that nobody should decode, built by code."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image


def picture(folder: Path) -> Path:
    """A sound one."""
    return _saved(folder, "PNG")


def _saved(folder: Path, kind: str, size: tuple[int, int] = (8, 8)) -> Path:
    Image.new("RGB", size, "red").save(folder / "a.png", format=kind)
    return folder / "a.png"


def _written(folder: Path, data: bytes) -> Path:
    (folder / "a.png").write_bytes(data)
    return folder / "a.png"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, pixels: bytes, *more: bytes) -> bytes:
    """A PNG of 8-bit grey that declares this size, whatever its pixels are."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(pixels, 9))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + body + _chunk(b"IEND", b"")


def pixel_bomb(folder: Path) -> Path:
    """400 megapixels in 16 kB."""
    return _written(folder, _png(20_000, 20_000, bytes(1 << 24)))


def pixels_that_only_warn(folder: Path) -> Path:
    """Between pillow's limit and twice that, where pillow warns and goes on."""
    return _written(folder, _png(10_000, 10_000, bytes(1 << 20)))


def pixels_below_pillows_limit(folder: Path) -> Path:
    return _written(folder, _png(8_900, 8_900, bytes(1 << 20)))


def bitmap_bomb(folder: Path) -> Path:
    head = struct.pack("<IiiHHIIiiII", 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0)
    return _written(folder, b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head)


def screen_of_a_gif(folder: Path) -> Path:
    """The screen that the frames are drawn on is declared, not stored."""
    data = bytearray(_saved(folder, "GIF").read_bytes())
    data[6:10] = struct.pack("<HH", 65_535, 65_535)
    return _written(folder, bytes(data))


def endless_strip(folder: Path) -> Path:
    """60,000 x 1: a processor that makes the short side 224 makes 13 million the long one."""
    return _saved(folder, "PNG", (60_000, 1))


def text_bomb(folder: Path) -> Path:
    words = b"a\0\0" + zlib.compress(bytes(1 << 26), 9)
    return _written(folder, _png(8, 8, bytes(72), _chunk(b"zTXt", words)))


def postscript(folder: Path) -> Path:
    """For this format pillow starts another program."""
    return _written(folder, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(%pipe%id) (r) file\n")


def photoshop(folder: Path) -> Path:
    return _written(folder, b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(64))


def torn(folder: Path) -> Path:
    return _written(folder, (data := _saved(folder, "JPEG", (64, 64)).read_bytes())[: len(data) // 2])


def flipped(folder: Path) -> Path:
    data = bytearray(_saved(folder, "PNG").read_bytes())
    data[len(data) // 2] ^= 255
    return _written(folder, bytes(data))


def empty(folder: Path) -> Path:
    return _written(folder, b"")


def web_page(folder: Path) -> Path:
    return _written(folder, b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")


def giant_file(folder: Path) -> Path:
    """A hole of a terabyte behind a sound picture."""
    os.truncate(_saved(folder, "PNG"), 1 << 40)
    return folder / "a.png"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.png")
    return folder / "a.png"


def endless_device(folder: Path) -> Path:
    (folder / "a.png").symlink_to("/dev/zero")
    return folder / "a.png"


def folder_of_that_name(folder: Path) -> Path:
    (folder / "a.png").mkdir()
    return folder / "a.png"


def bytes_of(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, format=kind)
    return out.getvalue()


PICTURES: dict[Callable[[Path], Path], str] = {
    pixel_bomb: "pixels",
    pixels_that_only_warn: "pixels",
    pixels_below_pillows_limit: "pixels",
    bitmap_bomb: "pixels",
    screen_of_a_gif: "pixels",
    endless_strip: "60000 x 1",
    text_bomb: "cannot be read",
    postscript: "cannot be read",
    photoshop: "cannot be read",
    torn: "cannot be read",
    flipped: "cannot be read",
    empty: "cannot be read",
    web_page: "cannot be read|no PNG",
}
# What is refused before the first byte of it is looked at, by whatever reads picture files at all.
PLACES: dict[Callable[[Path], Path], str] = {
    giant_file: "bytes",
    pipe: "no regular file",
    endless_device: "no regular file",
    folder_of_that_name: "no regular file",
}
