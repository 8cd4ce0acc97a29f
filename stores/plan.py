"""Unit and Stream: what is to be captured, decided before the first forward pass and written into the store."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stores.canonical import content_key
from stores.errors import UnknownName
from stores.schema import DTYPES

_STREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]*")
_MOST_LAYERS = 10_000


@dataclass(frozen=True)
class Unit:
    """The atom of work and of commit: an ordered list of prompts that form one batch, and become one shard."""

    key: str
    prompt_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.key or "\0" in self.key:
            raise ValueError(f"Unit key {self.key!r}: expected non-empty text without NUL; Unit.of(ids) makes one.")
        object.__setattr__(self, "prompt_ids", tuple(self.prompt_ids))

    @classmethod
    def of(cls, prompt_ids: Iterable[str]) -> Unit:
        """The unit of these prompts, its key made from their ids: no clash when prompts are appended later."""
        ids = tuple(prompt_ids)
        return cls(content_key(ids)[:16], ids)

    def described(self) -> dict[str, Any]:
        return {"key": self.key, "prompt_ids": list(self.prompt_ids)}


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
            fresh = [prompt for prompt in unit.prompt_ids if prompt not in planned_prompts]
            if not fresh:
                continue
            unit = unit if len(fresh) == len(unit.prompt_ids) else Unit.of(fresh)
        if unit.key in planned or unit.key in added:
            raise ValueError(
                f"Unit key {unit.key!r} stands for two lists of prompts: expected one meaning a key. "
                "Mend: name units by content, Unit.of(prompt_ids)."
            )
        added[unit.key] = unit
    return tuple(added.values())
