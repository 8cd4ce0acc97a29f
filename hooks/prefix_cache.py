"""Prefix: the keys and values of the first columns of a batch, read once for all that differs only behind them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hooks.decoding import plainly
from hooks.encode import Batch
from hooks.model import Edits, Trace
from hooks.recording import CannotReplay


@dataclass(frozen=True, eq=False)
class Prefix:
    """The cache behind the first `length` columns of a batch that is padded left. Generation changes a cache: each use
    takes its own with `rows`."""

    cache: Any
    length: int

    def rows(self, index: Sequence[int]) -> Prefix:
        """The cache of the chosen rows, in this order; a row may be taken many times. Raises CannotReplay for caches
        that do not say what belongs to which row."""
        layers = getattr(self.cache, "layers", None)
        if not layers:
            raise CannotReplay(f"{type(self.cache).__name__} does not give out its rows")
        new, chosen = copy.copy(self.cache), torch.tensor(list(index))
        # New layers with new tensors: what is decoded behind them is written into them.
        new.layers = [_rows_of(layer, chosen) for layer in layers]
        return Prefix(new, self.length)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for layer in self.cache.layers for part in _tensors_of(layer))


def _rows_of(layer: Any, chosen: torch.Tensor) -> Any:
    if not getattr(layer, "is_initialized", True):
        return copy.deepcopy(layer)  # a layer that reads the keys of another has none of its own
    if hasattr(layer, "conv_states"):  # a recurrent layer writes into its states
        new = copy.deepcopy(layer)
        new.reorder_cache(chosen)
        return new
    if not hasattr(layer, "batch_select_indices"):
        raise CannotReplay(f"{type(layer).__name__} does not give out its rows")
    new = copy.copy(layer)
    new.batch_select_indices(chosen.to(layer.keys.device))
    return new


def _tensors_of(layer: Any) -> list[torch.Tensor]:
    held = [part for each in vars(layer).values() for part in (each.values() if isinstance(each, dict) else [each])]
    return [part for part in held if isinstance(part, torch.Tensor)]


def prefix(model: Any, batch: Batch, length: int) -> Prefix:
    """The cache behind the first `length` columns of the prompts, padded left. Raises CannotReplay where a row, padded
    left, has no token among them, where a picture ends behind them, or where the model has no such cache."""
    batch = model.encoder.collate([one.prompt_only() for one in batch.encoded], "left")
    position, columns = batch.tokens.position, batch.inputs["input_ids"].shape[1]
    if not 0 < length < columns or bool((position[:, length - 1] < 0).any()):
        raise CannotReplay(f"a row has no token among the first {length} of {columns} columns")
    if bool(batch.tokens.is_image[:, length:].any()):
        raise CannotReplay("a picture stands behind the shared columns")
    inputs = {name: value[:, :length] if by_column(value, batch) else value for name, value in batch.inputs.items()}
    head = replace(batch, inputs=inputs, tokens=batch.tokens.columns(slice(0, length)), side="left")
    out, _ = model.decoded(head, None, None, model.stop_ids, one_step(model))
    return Prefix(out.past_key_values, length)


def next_token(model: Any, batch: Batch, edits: Edits, after: Prefix) -> Trace:
    """The logits that choose the next token of each row, under edits that act behind the prefix."""
    out, visit = model.decoded(batch.padded("left"), None, edits, model.stop_ids, one_step(model), after)
    return Trace({}, out.logits[0], visit.tallies)


def one_step(model: Any) -> dict[str, Any]:
    """The settings of a generation that chooses one token, and gives its logits and its cache."""
    options = plainly({"max_new_tokens": 1}, model.encoder.pad_id, model.stop_ids)
    return {**options, "return_dict_in_generate": True, "output_logits": True, "use_cache": True}


def text_of(inputs: dict[str, Any], batch: Batch) -> dict[str, Any]:
    """The inputs that have an entry for every row and column: pictures were read with the prefix."""
    return {name: value for name, value in inputs.items() if by_column(value, batch)}


def by_column(value: torch.Tensor, batch: Batch) -> bool:
    """True for inputs that have an entry for every row and column."""
    return value.shape[:2] == batch.inputs["input_ids"].shape[:2]
