"""The head of the model on one position a row: logits of every position would be a vocabulary times too many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks.encode import Batch, last_rows, next_token_index


class NextToken:
    """The logits that choose the next token of each row. `arguments` go into the forward, `gathering` is around it, and
    `of` reads the logits off its output."""

    def __init__(self, module: nn.Module, batch: Batch, *, cuts: bool, gathers: bool) -> None:
        """`cuts`: the forward takes `logits_to_keep`. `gathers`: each row's own position is picked before the head."""
        device = next(module.parameters()).device
        columns, of_row = next_token_index(batch)
        self._columns, self._of_row = columns.to(device), of_row.to(device)
        self._width = len(columns) if cuts else batch.inputs["input_ids"].shape[1]
        self._cuts, self._gathered = cuts, False
        finds: Any = getattr(module, "get_output_embeddings", None)
        self._head: nn.Module | None = finds() if gathers and finds is not None else None

    @property
    def arguments(self) -> dict[str, Tensor]:
        return {"logits_to_keep": self._columns} if self._cuts else {}

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """While the body runs the forward, the head reads [row, 1, d_model]: contiguous, since a strided slice costs a
        matrix product of bfloat16 a hundred times its time on a CPU."""
        handle = nullcontext() if self._head is None else self._head.register_forward_pre_hook(self._gather)
        with handle:
            yield

    def _gather(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        rows = len(self._of_row)
        if len(args) != 1 or not isinstance(args[0], Tensor) or args[0].shape[:-1] != (rows, self._width):
            return None
        self._gathered = True
        place = (self._of_row if self._cuts else self._columns[self._of_row]).to(args[0].device)
        return (args[0][torch.arange(rows, device=place.device), place][:, None],)

    def of(self, logits: Float[Tensor, "row pos vocab"]) -> Float[Tensor, "row vocab"]:
        """Each row's logits, whichever of the two ways they came."""
        if self._gathered:
            return logits[:, 0].clone()  # an ordinary tensor: that of the forward may not be written into
        return last_rows(logits if self._cuts else logits[:, self._columns], self._of_row)


@contextmanager
def contiguous_head(module: nn.Module) -> Iterator[None]:
    """While the body generates, the head reads a contiguous tensor: the library hands it the strided slice of the last
    column, which torch multiplies with a copy of the whole head for every row."""
    finds: Any = getattr(module, "get_output_embeddings", None)
    head = None if finds is None else finds()
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]) if args else None)
    try:
        yield
    finally:
        handle.remove()
