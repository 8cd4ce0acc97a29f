"""Training rows are Prompts with a response: encoded together with their labels, and shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hooks.encode import Batch, Encoded, Encoder
from hooks.prompt import Prompt, PromptError

NO_LOSS = -100  # the label that the cross-entropy of torch leaves out


def encoded_rows(prompts: Sequence[Prompt], encoder: Encoder, max_length: int | None = None) -> list[Encoded]:
    """Every row with its response and end of turn. Refuses rows without a response, and rows that would be cut."""
    rows = []
    for prompt in prompts:
        if prompt.response is None:
            raise PromptError(
                f"training row {prompt.id!r} has no response: expected a final assistant turn, or a 'response'."
            )
        row = encoder.encode(prompt, closed=True)
        if max_length is not None and len(row) > max_length:
            raise PromptError(
                f"training row {prompt.id!r} has {len(row)} tokens, over max_length={max_length}: raise it, or "
                "shorten the row."
            )
        rows.append(row)
    return rows


def with_labels(batch: Batch) -> dict[str, Tensor]:
    """The model's inputs and `labels` [row, pos]: the ids from the response's first token to its end of turn, NO_LOSS
    elsewhere. Built from the ids themselves, so that no collator can put the prompt back under the loss."""
    tokens = batch.tokens
    answered = (tokens.position >= tokens.prompt_length[:, None]) & ~tokens.is_image
    return {**batch.inputs, "labels": torch.where(answered, tokens.input_ids, NO_LOSS)}


def loss_report(prompts: Sequence[Prompt], encoder: Encoder, rows: int = 3) -> str:
    """Which tokens receive loss, row by row, as text to read before a training run: «» surround them."""
    lines = []
    for prompt, row in zip(prompts[:rows], encoded_rows(prompts[:rows], encoder), strict=True):
        labels = with_labels(encoder.collate([row]))["labels"][0].tolist()
        words = [encoder.tokenizer.decode([token]) for token in row.input_ids.tolist()]
        lines.append(
            f"{prompt.id}: "
            + " ".join(word if label == NO_LOSS else f"«{word}»" for word, label in zip(words, labels, strict=True))
        )
    return "\n".join(lines)
