"""The response-only loss mask, asserted of the batch that reaches the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from hooks.encoded import Encoded
from workbench.training.datasets import NO_LOSS


class LostMask(ValueError):
    """The labels of a batch are not those of its responses."""


def refuse_lost_mask(inputs: Mapping[str, Tensor], rows: Sequence[Encoded], image_token_id: int | None = None) -> None:
    """Raises LostMask unless exactly the response tokens of every row, with its end of turn, have labels: each the id
    at its own place (the model shifts them), and NO_LOSS everywhere else.

    `inputs` is what the model would be given, with `input_ids` and `labels` [row, pos], padded on either side; `rows`
    are the encoded rows it was made from, in this order. What is expected is counted from the rows and from nothing
    that a collator wrote. Many collators build labels anew from the ids, and so put the prompt back under the loss.
    """
    if "labels" not in inputs:
        raise LostMask("the batch has no labels: expected the ids of the response tokens, and NO_LOSS elsewhere.")
    ids, labels = inputs["input_ids"], inputs["labels"]
    if ids.shape != labels.shape or len(labels) != len(rows):
        raise LostMask(
            f"labels {tuple(labels.shape)} and input_ids {tuple(ids.shape)} of {len(rows)} rows: expected one label "
            "for each token."
        )
    for row, (found, own, one) in enumerate(zip(labels.cpu(), ids.cpu(), rows, strict=True)):
        expected = _labels(one, image_token_id)
        if not any(_is_padded(found, expected, at) and _holds(own, one, at) for at in (0, len(own) - len(one))):
            raise LostMask(
                f"row {one.id!r} (number {row} of its batch): {int((found != NO_LOSS).sum())} tokens have labels, its "
                f"response and end of turn are {int((expected != NO_LOSS).sum())}: expected labels at these alone, "
                "each the id at its place. A collator that builds labels from the ids (transformers' "
                "DataCollatorForLanguageModeling(mlm=False) does) throws the response-only mask away: "
                "use `workbench.training.datasets.with_labels`."
            )


def _labels(one: Encoded, image_token_id: int | None) -> Int[Tensor, " pos"]:
    labels = one.input_ids.clone()
    labels[: one.prompt_length] = NO_LOSS
    if image_token_id is not None:
        labels[labels == image_token_id] = NO_LOSS
    return labels


def _is_padded(found: Tensor, expected: Tensor, at: int) -> bool:
    """`found` is `expected` from place `at` on, and NO_LOSS around it."""
    if at < 0 or len(found) < len(expected):
        return False
    inside = found[at : at + len(expected)]
    return torch.equal(inside, expected) and int((found != NO_LOSS).sum()) == int((inside != NO_LOSS).sum())


def _holds(own: Tensor, one: Encoded, at: int) -> bool:
    return torch.equal(own[at : at + len(one)], one.input_ids)
