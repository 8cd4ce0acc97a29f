"""One short forward that is watched: which children of which module lists fire, in what order, on which tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Slot = int | str | None  # where a tensor is: the n-th argument or entry, a name, or None for an output that is a tensor


@dataclass(frozen=True)
class Firing:
    """One call of one child of a module list. Tensors are copies, by slot; only floating ones of two or more axes."""

    listed: int
    child: int
    inputs: Mapping[Slot, Tensor]
    outputs: Mapping[Slot, Tensor]


def tensors_in(values: Any) -> dict[Slot, Tensor]:
    """The floating tensors of an output or of keyword arguments, by slot."""
    if isinstance(values, Tensor):
        return {None: values} if values.is_floating_point() and values.dim() > 1 else {}
    if isinstance(values, Mapping):
        pairs: Any = values.items()
    elif isinstance(values, tuple | list):
        pairs = enumerate(values)
    else:
        pairs = vars(values).items() if hasattr(values, "__dict__") else ()
    return {
        name: value
        for name, value in pairs
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1
    }


def watched_forward(model: Any, lists: Sequence[nn.ModuleList], inputs: Mapping[str, Any]) -> list[Firing]:
    """The firings of one forward, in order."""
    seen: list[Firing] = []
    handles = []

    def watch(listed: int, child: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            inputs = {**tensors_in(args), **tensors_in(kwargs)}
            seen.append(Firing(listed, child, _copied(inputs), _copied(tensors_in(output))))

        return hook

    try:
        for listed, blocks in enumerate(lists):
            for child, block in enumerate(blocks):
                handles.append(block.register_forward_hook(watch(listed, child), with_kwargs=True, prepend=True))
        with torch.no_grad():
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def text_inputs(model: Any, rows: int, length: int, *, codebooks: bool = False) -> dict[str, Any]:
    """Arguments for a forward on text alone: different ordinary tokens in every row, no padding, no cache. With
    `codebooks` a row is several rows of ids, as audio decoders read it."""
    config = model.config.get_text_config(decoder=True)
    special = {value for name, value in _numbers(model.config) if name.endswith(("token_id", "token_index"))}
    special |= {value for name, value in _numbers(config) if name.endswith(("token_id", "token_index"))}
    ordinary = [token for token in range(min(_vocabulary(model, config), 4096)) if token not in special] or [0]
    # Not the first ids, which tend to be special; a stride, so that no two rows are alike.
    start = len(ordinary) // 3
    listed = range(rows * config.num_codebooks) if codebooks else range(rows)
    ids = [[ordinary[(start + 7 * row + 3 * pos) % len(ordinary)] for pos in range(length)] for row in listed]
    device = next(model.parameters()).device
    accepted = inspect.signature(model.forward).parameters
    inputs: dict[str, Any] = {"input_ids": torch.tensor(ids, device=device)}
    if not codebooks:
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if getattr(model.config, "is_encoder_decoder", False) or "decoder_input_ids" in accepted:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    for name in ("token_type_ids", "mm_token_type_ids"):
        inputs[name] = torch.zeros_like(inputs["input_ids"])
    inputs["use_cache"] = False
    return {name: value for name, value in inputs.items() if name in accepted or name == "input_ids"}


def _vocabulary(model: Any, config: Any) -> int:
    stated = getattr(config, "vocab_size", None)
    return stated if isinstance(stated, int) else model.get_input_embeddings().num_embeddings


def _numbers(config: Any) -> list[tuple[str, int]]:
    return [(name, value) for name, value in vars(config).items() if isinstance(value, int)]


def _copied(tensors: Mapping[Slot, Tensor]) -> dict[Slot, Tensor]:
    return {slot: tensor.detach().clone() for slot, tensor in tensors.items()}
