"""NaN and infinity among values that are to be stored: counted, and named by layer and prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stores.block import Block, Codes
from stores.errors import NotFinite
from stores.plan import Stream
from stores.schema import DTYPES

_NAMED = 5


@dataclass(frozen=True)
class Found:
    """How many values of one stream of a unit are NaN or infinite, and where."""

    stream: str
    of: Mapping[int, int]
    """layer -> values in it"""
    layers: Mapping[int, int]
    """layer -> how many; only layers that have some"""
    prompts: Mapping[str, int]
    """prompt id -> how many, over all layers"""

    @property
    def count(self) -> int:
        return sum(self.layers.values())

    def __str__(self) -> str:
        layers = _listed({str(layer): n for layer, n in self.layers.items()})
        return (
            f"stream {self.stream!r}: {self.count} of {sum(self.of.values())} values are NaN or infinite, in layers "
            f"{layers}, of prompts {_listed(self.prompts)}"
        )

    def refusal(self, where: str) -> NotFinite:
        """The error that names unit, stream, layers and prompts."""
        first = next(iter(self.layers))
        return NotFinite(
            f"{where}, stream {self.stream!r}, layer {first}: {self.layers[first]} of {self.of[first]} values are NaN "
            f"or infinite, expected none. In all, {self}. A float16 overflow or a broken forward pass is usual. Mend: "
            "store in bfloat16 or float32, or put allow_nonfinite=True into the spec (as wb.capture does with it)."
        )


def nonfinite(block: Block, stream: Stream) -> Found | None:
    """What a block holds that is no number; None where all values are finite. Two passes only where there is some."""
    stored = DTYPES[stream.dtype]
    layers, prompts, of = {}, Counter(), {}
    for layer, plane in zip(stream.layers, block.values, strict=True):
        of[layer] = plane.size
        flat = np.ascontiguousarray(plane, dtype=stored.raw).reshape(-1)
        if not plane.size or Codes(flat, stored).finite(0, len(flat)):
            continue
        exponent = stored.bits.type(stored.exponent)
        bad = ((flat.view(stored.bits) & exponent) == exponent).reshape(plane.shape).sum(axis=1)
        layers[layer] = int(bad.sum())
        for row in np.flatnonzero(bad).tolist():
            prompts[block.prompt_id[row]] += int(bad[row])
    return Found(stream.name, of, layers, dict(prompts)) if layers else None


def _listed(counts: Mapping[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:_NAMED]]
    return ", ".join(shown) + (f" and {len(counts) - _NAMED} more" if len(counts) > _NAMED else "")
