"""What tables are sorted by, and which pictures a page lets in."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from workbench.reporting.inline_pictures import LARGEST, PictureRefused, checked
from workbench.reporting.sort_key import sort_key


@pytest.mark.parametrize(
    ("cell", "key"),
    [
        (3, 3.0), (0.25, 0.25), (-1.5, -1.5), ("98\u00a0%", 98.0), ("98 % (95–99 %)", 98.0), ("−0.31", -0.31),
        ("+0.8 [0.1, 1.2]", 0.8), ("≤ 1/100", 0.01), ("1,204", 1204.0), ("3e-05", 3e-05), ("41.5 s", 41.5),
        (None, None), (True, None), (float("nan"), None), ("", None), ("–", None), ("layer 3", None),
        ("3 layers", None), ("0237419b74fba427", None), ("1/0", None), ("2026-11-21", None), ("12 of 40", None),
    ],
)  # fmt: skip
def test_the_number_of_a_cell(cell, key):
    assert sort_key(cell) == key


def picture(kind: str, size: tuple[int, int] = (8, 6)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (200, 30, 10)).save(out, kind)
    return out.getvalue()


def uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


class TestPictures:
    @pytest.mark.parametrize("kind", ["png", "jpeg"])
    def test_a_small_png_or_jpeg_is_let_in_as_it_is(self, kind):
        good = uri(picture(kind), kind)
        assert checked(good) == good

    @pytest.mark.parametrize(
        "bad",
        [
            "https://example.com/x.png",
            "data:image/svg+xml;base64,PHN2Zz4=",
            "javascript:alert(1)",
            uri(b"<svg onload=alert(1)>"),
            uri(picture("gif")),
            uri(picture("png"), "jpeg"),
            uri(picture("jpeg"), "png"),
            uri(picture("png"))[:60] + '" onerror="x',
            uri(picture("png", (4097, 1))),
            uri(picture("jpeg", (1, 5000)), "jpeg"),
            uri(picture("png") + bytes(LARGEST)),
            uri(b"\x89PNG\r\n\x1a\n"),
            uri(b"\xff\xd8\xff" + bytes(40), "jpeg"),
            uri(b"GIF89a.." + picture("png")[8:]),
            uri(b""),
            None,
            7,
        ],
        ids=range(17),
    )
    def test_all_else_is_refused(self, bad):
        with pytest.raises(PictureRefused):
            checked(bad)

    def test_a_header_that_claims_a_gigabyte_is_refused_before_it_is_unpacked(self):
        data = bytearray(picture("png"))
        data[16:24] = (40_000).to_bytes(4, "big") * 2
        with pytest.raises(PictureRefused, match="40000"):
            checked(uri(bytes(data)))
