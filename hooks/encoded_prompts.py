"""EncodedPrompts: prompts encoded once, their pixels kept as far as memory allows and read again beyond that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hooks.encode import Encoder
from hooks.encoded import Encoded
from hooks.prompt import Prompt

PIXELS_KEPT = 2**30  # bytes


class EncodedPrompts:
    """`encoded[i]` is the i-th prompt as the encoder reads it, `lengths[i]` its number of tokens.

    Every prompt is read when this is made, so that one that cannot be read is refused before any work is done. Pixels
    beyond `limit` bytes are then let go (a thousand images of 896 x 896 take 9 GB), and read from their files again
    each time they are asked for.
    """

    def __init__(self, encoder: Encoder, prompts: Sequence[Prompt], limit: int = PIXELS_KEPT) -> None:
        self._encoder, self._prompts = encoder, prompts
        self._kept: list[Encoded] = []
        self.pixel_bytes = 0
        for prompt in prompts:
            one = encoder.encode(prompt)
            size = sum(value.nbytes for value in one.images.values())
            if self.pixel_bytes + size > limit:
                one = replace(one, images={})
            else:
                self.pixel_bytes += size
            self._kept.append(one)
        self.lengths = [len(one) for one in self._kept]

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, i: int) -> Encoded:
        one = self._kept[i]
        return self._encoder.encode(self._prompts[i]) if one.n_images and not one.images else one

    def taken(self, unit: Sequence[int]) -> list[Encoded]:
        """The prompts of one unit of work, in its order."""
        return [self[i] for i in unit]
