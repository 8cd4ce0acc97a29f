"""Halving: a unit of work that the device has no memory for is done in halves, and the rows come out as if it had been
done at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from stores import Unit
from workbench.captures.blocks import Index

SPLIT = "split: out of memory"
Item = TypeVar("Item")
Result = TypeVar("Result")


class Place(NamedTuple):
    """A prompt by its number in a list, and its id for errors."""

    at: int
    id: str


class DoesNotFit(ValueError):
    """One prompt alone is too much for the device's memory."""

    @classmethod
    def of(cls, item: object, what: str, error: Exception) -> DoesNotFit:
        return cls(
            f"{what} {getattr(item, 'id', item)!r} alone does not fit into the device's memory ({str(error)[:120]}). "
            "Mend: fewer sites or positions, a shorter prompt, fewer cells a pass (memory=, max_tokens=), or a larger "
            "device. What was committed before stays."
        )


def in_parts(items: Sequence[Item], run: Callable[[Sequence[Item]], Result], what: str = "prompt") -> list[Result]:
    """`[run(items)]`; or, where the device runs out of memory, what its halves (and theirs) give, in order.

    Raises DoesNotFit, naming the item, when one alone does not fit. What `run` has done for others when it fails must
    be harmless, for it is done again.
    """
    try:
        return [run(items)]
    except torch.OutOfMemoryError as error:
        if len(items) == 1:
            raise DoesNotFit.of(items[0], what, error) from error
    released()  # behind the except: its traceback would keep the tensors of the failed forward alive
    middle = len(items) // 2
    return [*in_parts(items[:middle], run, what), *in_parts(items[middle:], run, what)]


def released() -> None:
    """Gives memory that nobody holds back to the device."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def note_of(parts: Sequence[object]) -> str:
    """What a shard says of a unit that came in so many parts."""
    return SPLIT if len(parts) > 1 else ""


def joined_values(parts: Sequence[Tensor], variants: int, out: Tensor) -> Tensor:
    """Rows of all parts [layer, row, d_model] in the order of the whole unit: variant by variant, and for each the
    prompts part by part."""
    layers, rows, width = out.shape
    whole = out.view(layers, variants, rows // variants, width)
    torch.cat([part.view(layers, variants, part.shape[1] // variants, width) for part in parts], dim=2, out=whole)
    return out


def joined_index(parts: Sequence[Index], variants: int) -> Index:
    """The rows of all parts in the same order."""
    order = [
        (part, slice(v * size, (v + 1) * size))
        for v in range(variants)
        for part in parts
        if (size := len(part.prompt_id) // variants)
    ]
    if not order:
        return Index.nothing()
    return Index(
        [name for part, rows in order for name in part.prompt_id[rows]],
        [name for part, rows in order for name in part.variant[rows]],
        np.concatenate([part.position[rows] for part, rows in order]),
        np.concatenate([part.token_id[rows] for part, rows in order]),
    )


def unit_of(ids: Sequence[str], whole: Unit) -> Unit:
    """The unit of a part, whose key seeds its draws; the whole one for all of its prompts."""
    return whole if len(ids) == len(whole.prompt_ids) else Unit.of(list(ids))
