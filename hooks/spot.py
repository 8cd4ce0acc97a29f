"""Spot: where one site is hooked, and how its tensor is taken out of a module's arguments or output and put back."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hooks.probe import Slot, tensors_in


@dataclass(frozen=True, eq=False)
class Spot:
    """A module and one of its sides. `slot` says which argument or entry of the output; None is the output itself, or
    the first tensor.

    `scale` is the factor by which the model multiplies the tensor before it is added to the stream; `added_to` the
    spot of the stream that it is added to, where the site is their sum (`resid_mid`); `flat` says that the tensor has
    rows and positions in one axis.
    """

    module: nn.Module
    side: str  # "input" or "output"
    slot: Slot = None
    scale: float = 1.0
    added_to: Spot | None = None
    flat: bool = False

    def take(self, held: Any) -> Tensor:
        """The tensor in `(args, kwargs)` or in an output."""
        if self.side == "input":
            args, kwargs = held
            return args[slot] if isinstance(slot := self._argument(args, kwargs), int) else kwargs[slot]
        if isinstance(held, Tensor):
            return held
        return tensors_in(held)[self._entry(held)]

    def put(self, held: Any, new: Tensor) -> Any:
        """The same arguments or output, in the same container, with `new` in the tensor's place."""
        if self.side == "input":
            args, kwargs = held
            slot = self._argument(args, kwargs)
            if isinstance(slot, int):
                return (*args[:slot], new, *args[slot + 1 :]), kwargs
            return args, {**kwargs, slot: new}
        return new if isinstance(held, Tensor) else _replaced(held, self._entry(held), new)

    def _argument(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | str:
        if isinstance(self.slot, int) and self.slot < len(args) and isinstance(args[self.slot], Tensor):
            return self.slot
        if isinstance(self.slot, str) and isinstance(kwargs.get(self.slot), Tensor):
            return self.slot
        found = [*tensors_in(args), *tensors_in(kwargs)]
        if isinstance(kwargs.get("hidden_states"), Tensor) and not tensors_in(args):
            return "hidden_states"
        if not found or found[0] is None:
            raise RuntimeError(f"{type(self.module).__name__} was called without a tensor: expected the stream.")
        return found[0]

    def _entry(self, held: Any) -> int | str:
        tensors = tensors_in(held)
        slot = self.slot if self.slot in tensors else next(iter(tensors), None)
        if slot is None:
            raise RuntimeError(
                f"{type(self.module).__name__} returned {type(held).__name__} without a tensor in it: expected the "
                "stream as a tensor, or in a tuple, list or dataclass."
            )
        return slot


def _replaced(held: Any, slot: int | str, new: Tensor) -> Any:
    if hasattr(held, "_replace"):  # a named tuple
        return held._replace(**{held._fields[slot] if isinstance(slot, int) else slot: new})
    if isinstance(held, tuple | list):
        assert isinstance(slot, int)
        return type(held)([*held[:slot], new, *held[slot + 1 :]])
    if isinstance(held, Mapping):
        out: Any = copy.copy(held)
        out[slot] = new
        return out
    return dataclasses.replace(held, **{str(slot): new})
