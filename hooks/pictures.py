"""Pictures of a prompt: read with pillow, turned into inputs by the model's own processor, and joined over the rows of
a batch so that each row reads what it would read alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.nn import functional

from hooks.picture_files import picture
from hooks.plain_files import Refused
from hooks.prompt import Prompt, PromptError

# What processors return beside the ids, one entry a token. All else that they return belongs to the pictures.
TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")
CROSS = "cross_attention_mask"  # [pos, image, tile]: which tiles a token reads, where pictures enter by cross-attention
PER_TOKEN = (*TOKEN_TYPES, CROSS)
NOT_INPUTS = ("attention_mask", "labels", "num_patches", "num_tiles", "num_crops")


@dataclass(frozen=True)
class Processed:
    """What a processor makes of one prompt. `continued` is each per-token input's entry for every token written after
    the prompt."""

    ids: Int[Tensor, " pos"]
    per_token: dict[str, Tensor]
    images: dict[str, Tensor]
    continued: dict[str, Tensor]


def pictures_of(prompt: Prompt) -> list[Any]:
    """The prompt's images, opened, as RGB. Raises PromptError that names a file that cannot be read."""
    try:
        return [picture(path).convert("RGB") for path in prompt.images]
    except Refused as error:
        raise PromptError(f"prompt {prompt.id!r}: {error}") from None


def check_placeholders(processor: Any, prompt: Prompt, rendered: str) -> None:
    """Raises PromptError where a prompt's text has more, or fewer, places for pictures than it has pictures."""
    placeholder = getattr(processor, "image_token", None)
    if placeholder and rendered.count(placeholder) != len(prompt.images):
        raise PromptError(
            f"prompt {prompt.id!r} has {len(prompt.images)} images and {rendered.count(placeholder)} times the "
            f"placeholder {placeholder!r} in its text: expected one for each image. (A conversation gets them from the "
            "chat template; raw text has them where its pictures stand.)"
        )


def processed(processor: Any, prompt: Prompt, rendered: str, image_token_id: int | None, special: bool) -> Processed:
    """The rendered prompt and its pictures through the model's processor.

    Raises PromptError where the processor refuses, and where an image became no token with `image_token_id` (the
    config's; None for models that read images by cross-attention).
    """
    options = {"text": [rendered], "add_special_tokens": special, "return_tensors": "pt"}
    try:
        out = dict(processor(**options, **({"images": [pictures_of(prompt)]} if prompt.images else {})))
    except (ValueError, TypeError, IndexError, KeyError) as error:
        if isinstance(error, PromptError):
            raise
        raise PromptError(f"prompt {prompt.id!r}: the model's processor refuses it ({error}).") from error
    ids = out.pop("input_ids")[0]
    if prompt.prefill and not processor.tokenizer.decode(ids).rstrip(" ").endswith(prompt.prefill.rstrip(" ")):
        raise PromptError(
            f"prompt {prompt.id!r}: the processor writes text after the prefill {prompt.prefill[:40]!r}, so the answer "
            "would not begin with it: expected a prompt without prefill."
        )
    per_token = {name: out.pop(name)[0].long() for name in PER_TOKEN if name in out}
    images = {name: value for name, value in out.items() if isinstance(value, Tensor) and name not in NOT_INPUTS}
    is_image = ids == image_token_id if image_token_id is not None else None
    if is_image is not None and bool(is_image.any()) != bool(prompt.images):
        raise PromptError(
            f"prompt {prompt.id!r} has {len(prompt.images)} images and {int(is_image.sum())} tokens with the id "
            f"{image_token_id}, the config's image token: "
            "expected both or neither (is the processor that of another model?)."
        )
    return Processed(ids, per_token, images, {name: _continued(name, v, is_image) for name, v in per_token.items()})


def _continued(name: str, values: Shaped[Tensor, "pos ..."], is_image: Bool[Tensor, " pos"] | None) -> Tensor:
    if name == CROSS:  # what is written goes on reading what the last token of the prompt reads
        return values[-1]
    # Two meanings: 1 = an image token (Gemma3), or 1 = behind the prefix that is read both ways (PaliGemma), whose
    # image tokens are 0 like the rest of the prefix.
    prefix = name == "token_type_ids" and is_image is not None and bool(is_image.any()) and not values.any()
    return torch.ones_like(values[0]) if prefix else torch.zeros_like(values[0])


def joined_tokens(
    values: Sequence[Tensor | None], columns: Sequence[slice], width: int
) -> Shaped[Tensor, "row pos ..."]:
    """One per-token input of all rows: each row's values at its columns, zeros at pads and in rows without it."""
    sizes = [tuple(one.shape[1:]) for one in values if one is not None]
    rest = tuple(max(sides) for sides in zip(*sizes, strict=True))
    out = torch.zeros((len(values), width, *rest), dtype=torch.long)
    for row, (one, place) in enumerate(zip(values, columns, strict=True)):
        if one is not None:
            out[(row, place, *(slice(0, side) for side in one.shape[1:]))] = one
    return out


def joined_images(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The picture inputs of all rows, one after the other along dim 0; smaller pictures and fewer tiles get zeros
    behind them, which is what the processors themselves pad with."""
    out = {}
    for name in sorted({name for images in rows for name in images}):
        given = [images[name] for images in rows if name in images]
        rest = tuple(max(sides) for sides in zip(*(one.shape[1:] for one in given), strict=True))
        out[name] = torch.cat([_padded(one, rest) for one in given])
    return out


def _padded(one: Tensor, rest: tuple[int, ...]) -> Tensor:
    if tuple(one.shape[1:]) == rest:
        return one
    missing = [(0, side - had) for had, side in zip(one.shape[1:], rest, strict=True)]
    return functional.pad(one, [end for pair in reversed(missing) for end in pair])
