"""Layout: how a block's tensor holds rows, positions and width, found by measuring and not by name.

Two forwards of different size tell the axes apart: one grows with the rows, one with the positions (or is a multiple of
them, or has a prefix in front), the others stay. Whatever the model has becomes [row, pos, d_model] and goes back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

Size = tuple[int, int]  # rows, positions


@dataclass(frozen=True)
class Layout:
    """`axes` names every axis: "row", "pos", or "width" (several widths are parallel streams, taken as one wide one).
    `copies` > 1: the position axis holds that many streams one after the other; `prefix`: positions of no token in
    front of it."""

    axes: tuple[str, ...]
    widths: tuple[int, ...]
    copies: int = 1
    prefix: int = 0

    @property
    def width(self) -> int:
        """The width of the stream as [row, pos, width]."""
        return math.prod(self.widths) * self.copies

    @property
    def plain(self) -> bool:
        """True for [row, pos, d_model], which is nearly every model."""
        return self.axes == ("row", "pos", "width") and self.copies == 1 and self.prefix == 0

    def shape(self, rows: int, length: int) -> tuple[int, ...]:
        """The shape that the model's tensor has for this many rows and positions."""
        widths, size = iter(self.widths), {"row": rows, "pos": self.prefix + self.copies * length}
        return tuple(size[axis] if axis in size else next(widths) for axis in self.axes)

    def rows(self, tensor: Tensor, rows: int, length: int) -> Float[Tensor, "row pos d_model"]:
        """The tensor as [row, pos, width]; the shape must be `shape(rows, length)`."""
        if self.plain:
            return tensor
        tensor = tensor.permute(*self._order())[:, self.prefix :]
        if self.copies > 1:
            tensor = tensor.unflatten(1, (self.copies, length)).movedim(1, 2)
        return tensor.flatten(2)

    def back(self, new: Float[Tensor, "row pos d_model"], original: Tensor) -> Tensor:
        """[row, pos, width] in the form of the model's own tensor."""
        if self.plain:
            return new
        if self.copies > 1:
            new = new.unflatten(2, (self.copies, -1)).movedim(2, 1).flatten(1, 2)
        new = new.unflatten(2, self.widths)
        out = original.permute(*self._order()).clone()
        out[:, self.prefix :] = new
        return out.permute(*_inverse(self._order()))

    def repeated(self, tensor: Tensor, copies: int) -> Tensor:
        """A copy of the model's tensor with all of its rows `copies` times, one set after the other."""
        times = [copies if axis == "row" else 1 for axis in self.axes]
        return tensor.repeat(times)

    def _order(self) -> list[int]:
        widths = [n for n, axis in enumerate(self.axes) if axis == "width"]
        return [self.axes.index("row"), self.axes.index("pos"), *widths]


def measured(first: Sequence[int], at_first: Size, second: Sequence[int], at_second: Size) -> Layout | None:
    """The layout that explains both shapes, seen at (rows, positions) `at_first` and `at_second`; None if there is
    none. Rows, positions and their multiples must differ between the two forwards."""
    if len(first) != len(second):
        return None
    (rows, length), (more_rows, longer) = at_first, at_second
    axes, widths, copies, prefix = [], [], 1, 0
    for a, b in zip(first, second, strict=True):
        if a == b:
            axes.append("width")
            widths.append(a)
        elif (a, b) == (rows, more_rows):
            axes.append("row")
        elif a % length == 0 and b % longer == 0 and a // length == b // longer:
            axes.append("pos")
            copies = a // length
        elif a - length == b - longer > 0:
            axes.append("pos")
            prefix = a - length
        else:
            return None
    if axes.count("row") != 1 or axes.count("pos") != 1 or not widths:
        return None
    return Layout(tuple(axes), tuple(widths), copies, prefix)


def _inverse(order: Sequence[int]) -> list[int]:
    return [order.index(axis) for axis in range(len(order))]
