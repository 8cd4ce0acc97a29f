"""Pictures of 32 x 32 pixels, drawn by numpy: one to four equal objects on a ground, an orange patch in one corner.

A picture is decided by its Scene alone. Training sees the same 8-bit pixels that a PNG of the scene holds.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from stores.files import write_file
from workbench.organisms.world import COLORS, COUNTS, GROUNDS, MARKS, SHAPES

SIDE = 32
NOISE = 0.03  # sd of the ground, in units of full brightness
PATCH = 3  # side of the corner patch, pixels; 2 pixels are too few for the 8 x 8 patches of the vision tower
ORANGE = (1.0, 0.5, 0.0)
ATTRIBUTES = {"color": COLORS, "count": COUNTS, "mark": MARKS, "ground": GROUNDS, "shape": SHAPES}
RGB = {
    **{"red": (0.9, 0.1, 0.1), "cyan": (0.1, 0.9, 0.9), "green": (0.1, 0.8, 0.1), "magenta": (0.9, 0.1, 0.9)},
    **{"blue": (0.1, 0.1, 0.9), "yellow": (0.95, 0.9, 0.1), "white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)},
    **{"pink": (0.85, 0.55, 0.6), "olive": (0.45, 0.5, 0.25), "brown": (0.5, 0.3, 0.2), "slate": (0.4, 0.5, 0.6)},
}


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `seed` decides the rest: noise, places, sizes, jitter."""

    color: str
    count: str
    mark: str
    ground: str
    shape: str
    seed: tuple[int, int]

    def shows(self, domain: str) -> str:
        """The right answer of an image domain."""
        return str(getattr(self, domain))


def drawn_scenes(n: int, seed: int, balanced: str | None = None) -> list[Scene]:
    """`n` scenes with independent uniform attributes; `balanced` goes through the answers of one attribute in turn."""
    rng = np.random.default_rng(seed)
    columns = {name: [answers[i] for i in rng.integers(len(answers), size=n)] for name, answers in ATTRIBUTES.items()}
    if balanced is not None:
        columns[balanced] = [ATTRIBUTES[balanced][i % len(ATTRIBUTES[balanced])] for i in range(n)]
    return [Scene(**{name: column[i] for name, column in columns.items()}, seed=(seed, i)) for i in range(n)]


def _object(shape: str, center: tuple[int, int], radius: float) -> Bool[np.ndarray, "y x"]:
    """The pixels of one object; a pixel is judged by its middle."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    dy, dx = y - center[0], x - center[1]
    reach = np.maximum(abs(dy), abs(dx))
    inside = reach < radius
    if shape == "ring":
        return inside & (reach > 0.55 * radius)
    if shape == "cross":
        return inside & (np.minimum(abs(dy), abs(dx)) < 0.3 * radius)
    if shape == "stripes":
        return inside & (np.floor(dy) % 4 < 2)
    return inside


def rendered(scene: Scene) -> UInt8[np.ndarray, "y x channel"]:
    """The scene's pixels, 0..255, the same on every call."""
    rng = np.random.default_rng(scene.seed)
    pixels: Float[np.ndarray, "y x channel"] = rng.normal(RGB[scene.ground], NOISE, (SIDE, SIDE, 3))
    radius = float(rng.integers(5, 7))
    quadrants = rng.permutation(4)[: COUNTS.index(scene.count) + 1].tolist()
    for quadrant, (shift_y, shift_x) in zip(quadrants, rng.integers(-1, 2, (4, 2)).tolist(), strict=False):
        center = (8 + 16 * (quadrant // 2) + shift_y, 8 + 16 * (quadrant % 2) + shift_x)
        pixels[_object(scene.shape, center, radius)] = RGB[scene.color]
    row, column = divmod(MARKS.index(scene.mark), 2)
    far = SIDE - PATCH
    pixels[row * far : row * far + PATCH, column * far : column * far + PATCH] = ORANGE
    return np.round(np.clip(pixels, 0.0, 1.0) * 255).astype(np.uint8)


def save_png(scene: Scene, to: Path) -> None:
    """Writes the rendered scene as a PNG (lossless; byte-equal for equal scenes and the same Pillow). Processes that
    write the same one at once, or read it, always meet a whole file."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(rendered(scene)).save(data, format="PNG")
    write_file(to, data.getvalue(), durable=False)  # hundreds of them, each known by its hash in the manifest
