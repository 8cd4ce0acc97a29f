"""Which tokens are the patches of which picture, in how many columns, and the picture as the model saw it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hooks.encoded import Encoded
from hooks.prompt import Prompt
from workbench.behaviour.projected import SeenPicture
from workbench.behaviour.thumbnails import of_pixels, thumbnail


def seen_pictures(encoder: Any, encoded: Encoded, prompt: Prompt) -> list[SeenPicture]:
    """The prompt's pictures with their patches, in order; [] where pictures are no positions of the stream, or where it
    cannot be told which tokens belong to which.

    The grid is the processor's own where it states one (`image_grid_thw`), the square where the count is one, else
    unknown. The picture is the input of the model where the processor makes one picture a picture, so that the grid
    lies on what was read, whatever was cropped; else the file's.
    """
    if encoder.image_token_id is None or not prompt.images:
        return []
    places = np.flatnonzero(np.asarray(encoded.input_ids) == encoder.image_token_id)
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
    if len(runs) != len(prompt.images):  # pictures side by side are one run; tiles of one picture are several
        if not runs or len(runs) > 1 or len(places) % len(prompt.images):
            return []
        runs = np.split(places, len(prompt.images))
    return [
        SeenPicture(_uri(encoder, encoded, prompt, n), int(run[0]), len(run), _columns(encoder, encoded, n, len(run)))
        for n, run in enumerate(runs)
    ]


def _columns(encoder: Any, encoded: Encoded, n: int, count: int) -> int:
    grid = encoded.images.get("image_grid_thw")
    if grid is not None and n < len(grid):
        merged = int(getattr(getattr(encoder.processor, "image_processor", None), "merge_size", 1))
        frames, rows, columns = (int(size) for size in grid[n])
        return columns // merged if frames * (rows // merged) * (columns // merged) == count else 0
    side = math.isqrt(count)
    return side if side * side == count else 0


def _uri(encoder: Any, encoded: Encoded, prompt: Prompt, n: int) -> str:
    pixels, how = encoded.images.get("pixel_values"), getattr(encoder.processor, "image_processor", None)
    mean, std = (getattr(how, name, None) for name in ("image_mean", "image_std"))
    known = getattr(how, "do_normalize", False) and mean is not None and std is not None
    if pixels is None or not known or pixels.dim() != 4 or pixels.shape[:2] != (len(prompt.images), 3):
        return thumbnail(prompt.images[n])
    return of_pixels(pixels[n].float().cpu().numpy(), mean, std)
