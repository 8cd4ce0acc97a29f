"""Pictures small enough to stand inside a page, as data URIs: a prompt's own, and what the model's processor made."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from hooks.picture_files import picture

SIDE = 224  # pixels of the longer side
TINY = 96  # up to here lossless: a few pixels are blown up, and a JPEG's blocks would be seen


def thumbnail(path: Path) -> str:
    """The file's picture as a data URI, its longer side at most 224 pixels; nothing but pixels is kept of it. Raises
    Refused for what is no picture."""
    return encoded(picture(path).convert("RGB"))


def of_pixels(values: Float[np.ndarray, "3 height width"], mean: Any, std: Any) -> str:
    """The same of what a processor gave the model, its normalisation (a number a channel) taken back."""
    from PIL import Image

    colour = values * np.reshape(std, (3, 1, 1)) + np.reshape(mean, (3, 1, 1))
    levels = np.clip(np.round(255 * colour), 0, 255).astype(np.uint8)
    return encoded(Image.fromarray(levels.transpose(1, 2, 0)))


def encoded(image: Any) -> str:
    """A picture in RGB as a data URI, made small; PNG when it is tiny, else JPEG."""
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE))
    tiny = max(image.size) <= TINY
    out = io.BytesIO()
    image.save(out, format="PNG" if tiny else "JPEG", **({} if tiny else {"quality": 85}))
    return f"data:image/{'png' if tiny else 'jpeg'};base64,{base64.b64encode(out.getvalue()).decode()}"
