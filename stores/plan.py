"""Unit and Stream: what is to be captured, decided before the first forward pass and written into the store."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from stores.canonical import content_key
from stores.errors import UnknownName
from stores.schema import DTYPES

_STREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]*")
_MOST_LAYERS = 10_000


@dataclass(frozen=True)
class Unit:
    """The atom of work and of commit: an ordered list of prompts, read in one batch or a few, that become one shard."""

    key: str
    prompt_ids: tuple[str, ...]
    batches: tuple[int, ...] = field(default=(), compare=False)
    """how many of its prompts each forward takes, in order, so that whoever goes on runs the same; () is all at once"""

    def __post_init__(self) -> None:
        if not self.key or "\0" in self.key:
            raise ValueError(f"Unit key {self.key!r}: expected non-empty text without NUL; Unit.of(ids) makes one.")
        object.__setattr__(self, "prompt_ids", tuple(self.prompt_ids))
        object.__setattr__(self, "batches", tuple(map(_whole, self.batches)))
        if self.batches and (min(self.batches) < 1 or sum(self.batches) != len(self.prompt_ids)):
            raise ValueError(
                f"Unit {self.key!r} has {len(self.prompt_ids)} prompts in batches of {list(self.batches)}: expected "
                "sizes of at least 1 that add up to them."
            )

    @classmethod
    def of(cls, *batches: Iterable[str]) -> Unit:
        """The unit of these batches of prompts, its key made from their ids: no clash when prompts are appended."""
        listed = [tuple(batch) for batch in batches]
        ids = tuple(one for batch in listed for one in batch)
        return cls(content_key(ids)[:16], ids, tuple(map(len, listed)) if len(listed) > 1 else ())

    def batched(self) -> list[tuple[str, ...]]:
        """Its prompts, batch by batch."""
        ids = iter(self.prompt_ids)
        return [tuple(islice(ids, size)) for size in self.batches or (len(self.prompt_ids),)]

    def without(self, planned: Collection[str]) -> Unit | None:
        """The unit of its other prompts; None when there are none."""
        left = [[one for one in batch if one not in planned] for batch in self.batched()]
        return Unit.of(*filter(None, left)) if any(left) else None

    def described(self) -> dict[str, Any]:
        sizes = {"batches": list(self.batches)} if self.batches else {}
        return {"key": self.key, "prompt_ids": list(self.prompt_ids), **sizes}


@dataclass(frozen=True)
class Stream:
    """One (tower, point) of the residual stream: `Stream("vision.resid_post", layers=(0, 1), d_model=64,
    dtype="bfloat16")`."""

    name: str
    layers: tuple[int, ...]
    d_model: int
    dtype: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(map(_whole, self.layers)))
        object.__setattr__(self, "d_model", _whole(self.d_model))
        if not _STREAM_NAME.fullmatch(self.name):
            raise ValueError(f"Stream name {self.name!r}: expected letters, digits and _ . @ -, such as 'resid_post'.")
        if not self.layers or len(set(self.layers)) != len(self.layers) or min(self.layers) < 0:
            raise ValueError(
                f"Stream({self.name}).layers {self.layers}: expected distinct 0-based layers, at least one."
            )
        if len(self.layers) > _MOST_LAYERS:
            raise ValueError(f"Stream({self.name}) has {len(self.layers)} layers: expected at most {_MOST_LAYERS}.")
        if self.d_model < 1:
            raise ValueError(f"Stream({self.name}).d_model {self.d_model}: expected at least 1.")
        if self.dtype not in DTYPES:
            raise ValueError(f"Stream({self.name}).dtype {self.dtype!r}: expected one of {', '.join(DTYPES)}.")

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of its sites, `("resid_post:0", "resid_post:1", ...)`, in the order of the layer axis."""
        return tuple(f"{self.name}:{layer}" for layer in self.layers)

    def layer_index(self, layer: int) -> int:
        """Where this layer stands on the stored layer axis."""
        if layer not in self.layers:
            raise UnknownName(f"Layer {layer} of {self.name} is not stored: there are layers {list(self.layers)}.")
        return self.layers.index(layer)

    def described(self) -> dict[str, Any]:
        return {"name": self.name, "layers": list(self.layers), "d_model": self.d_model, "dtype": self.dtype}


def _whole(number: Any) -> int:
    """Raises TypeError for fractions and text, which `int` would round or parse."""
    return int(operator.index(number))


def new_segment(
    planned: Mapping[str, Unit], plan: Sequence[Unit], planned_prompts: Collection[str] | None
) -> tuple[Unit, ...]:
    """The units of `plan` that a store with the units `planned` still needs, in order.

    The stored plan wins. Prompts that are planned already (`planned_prompts`) are not planned twice, so another batch
    size on a second run changes nothing; a unit that mixes them with new ones shrinks to the new ones, and is named by
    its content. `planned_prompts=None` (result tables) compares keys alone. Raises ValueError for a key used twice.
    """
    added: dict[str, Unit] = {}
    for unit in plan:
        if planned.get(unit.key) == unit:
            continue
        if planned_prompts is not None and unit.prompt_ids:
            fresh = unit.without(planned_prompts)
            if fresh is None:
                continue
            unit = unit if len(fresh.prompt_ids) == len(unit.prompt_ids) else fresh
        if unit.key in planned or unit.key in added:
            raise ValueError(
                f"Unit key {unit.key!r} stands for two lists of prompts: expected one meaning a key. "
                "Mend: name units by content, Unit.of(prompt_ids)."
            )
        added[unit.key] = unit
    return tuple(added.values())
