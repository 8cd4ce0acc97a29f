"""The encoder of a planned model: it reads a prompt once, and keeps the shape of its pixels alone."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from hooks.encode import Encoder
from hooks.encoded import Encoded
from hooks.prompt import Prompt


class PlannedEncoder(Encoder):
    """Ids and spans are those of the encoder. A plan collates the same prompts for many batches, and needs no pixels
    for it: they lie on the meta device, where a thousand pictures take nothing."""

    def encode(self, prompt: Prompt, *, closed: bool = False) -> Encoded:
        known: dict[tuple[str, bool], Encoded] = self.__dict__.setdefault("_known", {})
        key = (prompt.content_hash, closed)
        if key not in known:
            one = super().encode(prompt, closed=closed)
            known[key] = replace(one, images={name: _shape(value) for name, value in one.images.items()})
        return replace(known[key], id=prompt.id)


def _shape(value: Tensor) -> Tensor:
    """Whole numbers (grids, ratios) stay: they say how many places a picture takes."""
    return value.to("meta") if value.is_floating_point() else value
