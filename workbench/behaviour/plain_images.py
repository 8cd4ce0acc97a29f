"""plain_image: an image of one colour, of the size and mode of another."""

from __future__ import annotations

import io
from pathlib import Path

from hooks.picture_files import picture
from hooks.plain_files import Refused
from hooks.prompt import PromptError
from stores.files import write_file

Colour = tuple[int, int, int]
GREY: Colour = (128, 128, 128)
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def plain_image(like: Path, to: Path, colour: Colour = GREY) -> tuple[Path, bool]:
    """The path of a PNG in `to`, of `like`'s size and mode and all of `colour`, and whether it is RGB because that mode
    cannot hold the colour in a PNG. Equal images are one file, written once.

    Raises PromptError where `like` cannot be read, FileExistsError where another image has the name.
    """
    from PIL import Image

    name = hexadecimal(colour)[1:]
    try:
        shown = picture(like)
    except Refused as error:
        raise PromptError(str(error)) from None
    size, mode = shown.size, shown.mode
    wanted = Image.new("RGB", size, colour)
    # A palette of the one colour; convert("P") would give the nearest of a fixed palette.
    plain = wanted.quantize(1) if mode == "P" else wanted.convert(mode) if mode in PNG_MODES else wanted
    lost = plain.mode != mode or plain.convert("RGB").tobytes() != wanted.tobytes()
    if lost:
        plain = wanted
    path = to / f"plain-{size[0]}x{size[1]}-{plain.mode}-{name}.png"
    if path.exists():
        with Image.open(path) as found:
            if (found.size, found.mode) != (size, plain.mode) or found.convert("RGB").tobytes() != wanted.tobytes():
                raise FileExistsError(f"{path} is another image: expected a folder for plain images alone.")
        return path, lost
    data = io.BytesIO()
    plain.save(data, format="PNG")
    return write_file(path, data.getvalue()), lost


def hexadecimal(colour: Colour) -> str:
    """ "#808080" for (128, 128, 128); ValueError for what is no colour."""
    if len(colour) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in colour):
        raise ValueError(f"colour={colour}: expected red, green and blue as whole numbers, 0..255.")
    return "#{:02x}{:02x}{:02x}".format(*colour)
