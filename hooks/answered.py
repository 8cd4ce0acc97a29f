"""Answers that a model wrote: prompts whose response is token ids, and is read as those ids again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hooks.encode import Encoder
from hooks.encoded import Encoded
from hooks.encoded_prompts import EncodedPrompts
from hooks.prompt import Prompt


@dataclass(frozen=True, repr=False)
class Answered(Prompt):
    """A prompt with the response that a model wrote. `response_ids` are its tokens, without the one that ended it:
    `response`, the same as text, need not give them back when it is read again."""

    response_ids: tuple[int, ...] = ()

    @property
    def content_hash(self) -> str:
        """sha256 of all that the model sees, the ids of the response included."""
        return hashlib.sha256(f"{super().content_hash} {self.response_ids}".encode()).hexdigest()


def answered_with(one: Encoded, ids: Sequence[int]) -> Encoded:
    """The same prompt with these tokens as its whole response (none: it stays open)."""
    return replace(one.prompt_only().extended(ids), response_length=len(ids))


class PromptsAsWritten(EncodedPrompts):
    """Encoded prompts in which an Answered prompt has the very tokens that were written. `answers=False` leaves every
    response out, for a model that is to write its own. `outlines` are the prompts without a promise of their pixels."""

    def __init__(self, encoder: Encoder, prompts: Sequence[Prompt], *, answers: bool = True) -> None:
        super().__init__(encoder, prompts)
        self._answers = answers
        self._kept = self.outlines = [self._as_written(i, one) for i, one in enumerate(self._kept)]
        self.lengths = [len(one) for one in self.outlines]

    def __getitem__(self, i: int) -> Encoded:
        return self._as_written(i, super().__getitem__(i))

    def _as_written(self, i: int, one: Encoded) -> Encoded:
        prompt = self._prompts[i]
        if not self._answers:
            return one.prompt_only()
        return answered_with(one, prompt.response_ids) if isinstance(prompt, Answered) else one
