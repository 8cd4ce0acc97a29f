"""What a back end is held against: the prompts, spelled by hand, and the module that nobody wrapped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from conftest import chat
from own_forward import Letters, OwnForward, mask_of, plus
from tiny_lm import LAYERS, WIDTH
from tiny_models import byte_tokenizer
from torch import Tensor

from hooks.backends.hf import HuggingFaceModel
from hooks.edits import LowRankEdit
from hooks.prompt import Prompt

# float32 keeps 6e-8 of a number; a dozen sums of 32 to 48 terms in another order (another attention, another number of
# columns in the last product) move a residual by up to 1e-6 of the largest. One tolerance, ten times that.
TOLERANCE = 1e-5
STEPS = 5
ENDS = list(range(10, 264, 7))  # one token in seven ends a row, so rows of one batch end at different steps

LETTERS = (
    Letters("hi"),
    Letters("what is this", "a dog"),
    Letters("a somewhat longer question"),
    Letters("raw text", raw=True),
)
PROMPTS = (
    chat("a", "hi"),
    chat("b", "what is this", response="a dog"),
    chat("c", "a somewhat longer question"),
    Prompt("d", text="raw text"),
)
SCOPES: tuple[Any, ...] = (
    "all",
    "prompt",
    "last",
    "post_instruction",
    "response",
    "answering",
    "text",
    3,
    "re:^[aeiou]$",
)
PLACES = [(layer, point) for layer in range(LAYERS) for point in ("resid_pre", "resid_post")]
BRANCHES = ("attn_out", "resid_mid", "mlp_out")


def everything(resid: Tensor, where: Any) -> Tensor:
    return resid


def direction(seed: int = 0, size: float = 4.0) -> Tensor:
    """A random vector of this length: a third of a residual's here, and no all-ones (pitfall 33)."""
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
    return size * vector / vector.norm()


def added(vector: Tensor, scope: Any = "all") -> LowRankEdit:
    """The edit that adds the vector at every position of the scope."""
    write = vector.reshape(1, 1, -1)
    return LowRankEdit(write, write, torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1), (scope,))


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected number."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@dataclass(frozen=True)
class Subject:
    """One family on one back end, and what it is held against."""

    model: HuggingFaceModel
    own: OwnForward
    inputs: dict[str, Tensor]  # of PROMPTS, spelled by hand, padded on the right

    @property
    def real(self) -> Tensor:
        return self.inputs["attention_mask"].bool()

    def mask(self, scope: Any) -> Tensor:
        return mask_of([one.places(scope) for one in LETTERS], self.real.shape[1])

    def last(self, logits: Tensor) -> Tensor:
        """The logits that choose each row's next token."""
        return logits[torch.arange(len(logits)), self.real.sum(dim=1) - 1]


def spelled(rows: list[list[str]]) -> dict[str, Tensor]:
    """Rows of token names as ids and mask, padded on the right."""
    tokenizer, width = byte_tokenizer(), max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = torch.tensor(tokenizer.convert_tokens_to_ids([{" ": "Ġ"}.get(one, one) for one in row]))
        mask[n, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def by_full_forwards(
    subject: Subject, vectors: list[Tensor], scopes: list[Any], layer: int = 1
) -> tuple[list[list[int]], list[int]]:
    """Greedy answers of the unwrapped module, row by row, the whole text anew for every token, with `vectors[row]`
    added behind block `layer` at the positions of the scope; and how many positions that were of those that a cached
    generation reads (the last token is never read)."""
    tokenizer, answers, counts = byte_tokenizer(), [], []
    for letters, vector, scope in zip(LETTERS, vectors, scopes, strict=True):
        prompt, written, places = letters.prompt, [], []
        while len(written) < STEPS and not (written and written[-1] in ENDS):
            texts = [tokenizer.decode([token]) for token in written]
            ids = torch.cat([spelled([prompt])["input_ids"], torch.tensor([written], dtype=torch.long)], dim=1)
            places = letters.open(*texts).places(scope)
            change = plus(vector, mask_of([places], ids.shape[1]))
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            _, logits = subject.own(inputs, {(layer, "resid_post"): change})
            written.append(int(logits[0, -1].argmax()))
        answers.append(written)
        counts.append(len(places))
    return answers, counts
