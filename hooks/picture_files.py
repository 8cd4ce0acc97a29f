"""Picture files from elsewhere: which file a data set may name, and how its pixels are read.

A name in a data file must lead into the data's own folder (else a file of prompts could show a model, and through an
endpoint somebody else, any picture of the machine). The file is read once, so what was checked is what is decoded, and
its header is judged before its pixels are: a picture of 45 kB can declare a gigabyte.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hooks.plain_files import Refused, whole

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # pillow knows many more, some of which start other programs
LARGEST_FILE = 64 * 2**20  # bytes
MOST_PIXELS = 64_000_000
LONGEST_SIDE = 100  # times the other one: processors resize by the shorter side
FOLDERS = "WORKBENCH_PICTURES"  # environment: more folders that data files may name pictures in

_accepted: set[Path] = set()


def accept_pictures(paths: Iterable[Path]) -> None:
    """From now on the data files of this process may name pictures in the folders of these ones, which it was given
    before: what writes rows whose pictures stay where they are reads them back."""
    _accepted.update(path.resolve().parent for path in paths)


def picture_inside(name: str, folder: Path, pictures: str | Path | None = None) -> Path:
    """The file that a data file in `folder` names, links followed: it lies in that folder, or in `pictures`.

    Raises Refused for addresses, for what lies elsewhere, and for what is no file.
    """
    shown = name if name.isprintable() and len(name) <= 200 else ascii(name[:200])  # a terminal obeys control signs
    if "://" in name or name.startswith("data:"):
        raise Refused(f"image {name[:60]!a} is an address: expected a local file (nothing is downloaded).")
    try:
        homes = [Path(one).resolve() for one in (folder if pictures is None else pictures, *_others())]
        real = (folder / name).resolve()
        there = real.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, links in a ring
        raise Refused(f"image {shown} is no name of a file.") from None
    if not any(real.is_relative_to(home) for home in homes) and real.parent not in _accepted:
        raise Refused(
            f"image {shown} lies outside {homes[0]}: expected a picture in the folder of the data (links are "
            f"followed). Where it is meant: wb.read_prompts(file, pictures=FOLDER), or {FOLDERS}=FOLDER for a script."
        )
    if not there:
        raise Refused(f"image {shown} does not exist: expected a file relative to {folder}.")
    return folder / name


def _others() -> list[str]:
    return [one for one in os.environ.get(FOLDERS, "").split(os.pathsep) if one]


def picture_bytes(path: Path) -> bytes:
    """The file's bytes. Raises FileNotFoundError, and Refused for what is no regular file, or above LARGEST_FILE."""
    return whole(path, LARGEST_FILE)


def picture(path: Path) -> Any:
    """The picture, decoded (the first one of several). Raises Refused for what is no file, other formats than FORMATS,
    more pixels than MOST_PIXELS, sides that differ more than LONGEST_SIDE, and files that are damaged."""
    from PIL import Image

    try:
        data = picture_bytes(path)
    except (OSError, Refused) as error:
        raise Refused(f"image {path} cannot be read ({error})") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as declared:
                _judge(path, declared.size)
                declared.verify()
            found = Image.open(io.BytesIO(data), formats=FORMATS)
            found.load()  # `verify` leaves a picture that cannot be used any more
    except Refused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused(f"image {path}: {error} Expected at most {MOST_PIXELS:,} pixels.") from None
    except Exception as error:  # pillow's decoders raise errors of every class
        said = str(error).partition(" <_io.")[0][:200]  # pillow names the buffer, which is nobody's
        why = f"{type(error).__name__}: {said}" if said else type(error).__name__
        raise Refused(f"image {path} cannot be read ({why}): expected a whole {', '.join(FORMATS)} file.") from None
    return found


def _judge(path: Path, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise Refused(f"image {path} declares {width} x {height} pixels: expected at most {MOST_PIXELS:,} of them.")
    if max(size) > LONGEST_SIDE * max(1, min(size)):
        raise Refused(
            f"image {path} is {width} x {height}: expected no side above {LONGEST_SIDE} times the other (a processor "
            "that resizes the shorter side would make a giant of it)."
        )
