"""Adapters as rows: which rows of a batch each LoRA layer reads, found by measuring, so that the base and several
adapters share one forward, the base weights read once.

Short forwards that differ in one row show where that row is in what a layer reads; one of another size shows what is
rows and what is positions. A layer whose rows were not told apart (experts read a choice of tokens) is
refused when it runs, never guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hooks.encode import Batch
from hooks.probe import text_inputs
from hooks.stacked_adapters import Stacks, stackable
from hooks.tower_rows import vision_view

BASE = "__base__"  # peft's word for a row without an adapter
# peft's LoRA layers that can take another adapter for every row.
_BY_ROW = ("Linear", "Embedding", "Conv1d", "Conv2d", "Conv3d", "Linear8bitLt", "Linear4bit")
_ROWS, _LENGTH, _OTHER_ROWS, _OTHER_LENGTH = 3, 7, 2, 5


class RowsUnknown(ValueError):
    """A LoRA layer ran on a tensor whose rows cannot be told apart with certainty."""


@dataclass(frozen=True)
class Reads:
    """How a layer's input holds the rows of a text batch: along its first axis, `flat` with the positions inside."""

    axes: int
    flat: bool


def lora_layers(module: nn.Module) -> dict[str, nn.Module]:
    """peft's LoRA layers by their path."""
    return {name: part for name, part in module.named_modules() if hasattr(part, "lora_A")}


def why_not_by_row(module: nn.Module, names: Collection[str]) -> str | None:
    """Why these adapters cannot act row by row, or None where they can: plain LoRA (rsLoRA included), unmerged."""
    for path, part in module.named_modules():
        where = f"at {path}"
        wrapped = set(getattr(part, "_adapters", ())) if hasattr(part, "original_module") else set()
        if wrapped & set(names):
            return f"an adapter brings a whole module or single token embeddings of its own {where}"
        other = getattr(part, "adapter_layer_names", None) and hasattr(part, "base_layer")
        if other and not hasattr(part, "lora_A"):
            return f"an adapter is no LoRA ({type(part).__name__} {where})"
        if not hasattr(part, "lora_A"):
            continue
        layer: Any = part
        if layer.merged_adapters:
            return f"an adapter is merged into the weights {where}"
        if type(part).__name__ not in _BY_ROW or not type(part).__module__.startswith("peft.tuners.lora"):
            return f"peft's {type(part).__name__} {where} takes one adapter for all rows"
        if special := [name for name in names if name in layer.lora_variant]:
            return f"adapter {special[0]!r} is a {type(layer.lora_variant[special[0]]).__name__} {where}, no plain LoRA"
    return None


@torch.inference_mode()
def measured_reads(module: Any) -> dict[str, Reads]:
    """How every LoRA layer that text passes reads the rows of a batch; a layer that is missing was not told."""
    layers = lora_layers(module)
    inputs = text_inputs(module, _ROWS, _LENGTH)
    plain = _inputs_read(module, layers, inputs)
    # Two rows that stand where they should leave no other place for the third.
    changed = [_inputs_read(module, layers, _with_other_row(module, inputs, row)) for row in (0, 1)]
    smaller = _inputs_read(module, layers, text_inputs(module, _OTHER_ROWS, _OTHER_LENGTH))
    found = {}
    for name in layers:
        if len({len(seen[name]) for seen in (plain, *changed, smaller)}) > 1:
            continue
        told = [
            (row, _told(row, *seen))
            for row, other in enumerate(changed)
            for seen in zip(plain[name], other[name], smaller[name], strict=True)
        ]
        kinds = {None if one is None else one[0] for _, one in told}
        moved = {row for row, one in told if one is not None and one[1]}
        # A call on the same input in every row (token types) tells nothing, as long as its shape agrees.
        if len(kinds) == 1 and None not in kinds and moved == {0, 1}:
            found[name] = kinds.pop()
    return found


def _with_other_row(module: Any, inputs: dict[str, Any], row: int) -> dict[str, Any]:
    changed = {name: value.clone() if isinstance(value, Tensor) else value for name, value in inputs.items()}
    for name in ("input_ids", "decoder_input_ids"):
        if name in changed:
            changed[name][row] = text_inputs(module, _ROWS + 1, _LENGTH)["input_ids"][-1]
    return changed


def _inputs_read(module: Any, layers: Mapping[str, nn.Module], inputs: dict[str, Any]) -> dict[str, list[Tensor]]:
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def watch(name: str) -> Any:
        return lambda layer, args: seen[name].append(args[0].clone())

    with _pre_hooks([(layer, watch(name), False) for name, layer in layers.items()]):
        module(**inputs)
    return seen


def _told(row: int, one: Tensor, other: Tensor, smaller: Tensor) -> tuple[Reads, bool] | None:
    """What two inputs that differ in this row alone, and one of fewer rows and positions, say of the first axis, and
    whether the row was seen to move; None where the first axis is not rows."""
    if one.shape != other.shape or one.dim() != smaller.dim() or one.dim() < 2:
        return None
    spans = (len(one) / _ROWS, len(smaller) / _OTHER_ROWS)
    if spans not in ((1, 1), (_LENGTH, _OTHER_LENGTH)):
        return None
    # Other rows may move by rounding where rows meet in one product, not by more.
    moved = ((one.double() - other.double()).abs() > 1e-3 * one.double().abs().max()).flatten(1).any(dim=1)
    of_row = torch.arange(len(one), device=one.device) // int(spans[0]) == row
    if bool(moved[~of_row].any()):
        return None
    return Reads(one.dim(), flat=spans[0] > 1), bool(moved.any())


@contextmanager
def adapters_by_row(
    module: Any,
    names: Sequence[str],
    batch: Batch,
    reads: Mapping[str, Reads],
    in_vision: Callable[[nn.Module], bool],
) -> Iterator[None]:
    """While the body runs its forward on `batch`, row r of it passes every LoRA layer under adapter `names[r]` (BASE:
    under none); plain updates of all adapters go through a layer as one product (`hooks.stacked_adapters`). `in_vision`
    says which layers stand in the vision tower, whose rows are pictures. Raises RowsUnknown, from inside the forward,
    at a layer whose rows are not told; the hooks are removed whatever happens."""
    length = 0

    def begin(root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal length
        ids = kwargs.get("input_ids", args[0] if args else None)
        ids = kwargs.get("inputs_embeds") if ids is None else ids
        length = 0 if ids is None else ids.shape[1]

    def named(path: str, layer: nn.Module, x: Tensor) -> list[str]:
        seen = reads.get(path)
        if seen is not None and x.dim() == seen.axes:
            if not seen.flat and len(x) == len(names):
                return list(names)
            if seen.flat and length and len(x) == len(names) * length:
                return [name for name in names for _ in range(length)]
        if seen is None and in_vision(layer) and (owners := _pictures_owners(module, batch, x)) is not None:
            return [names[owner] for owner in owners]
        raise RowsUnknown(
            f"the LoRA layer {path} reads {tuple(x.shape)} in a batch of {len(names)} rows, and which of that belongs "
            "to which row cannot be told: expected adapters as rows only where it can. Run one variant at a time: "
            "model.variant(name)."
        )

    stacks, layers = Stacks(), lora_layers(module)
    stacked = {path for path, layer in layers.items() if stackable(layer, set(names) - {BASE})}
    waiting: dict[str, list[str]] = {}  # the names of the rows of a layer that has begun

    def give(path: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            rows = named(path, layer, args[0])
            if path in stacked:
                waiting[path], rows = rows, [BASE] * len(rows)
            return args, {**kwargs, "adapter_names": rows}

        return hook

    def add(path: str) -> Any:
        return lambda layer, args, out: stacks.add(path, layer, waiting.pop(path), args[0], out)

    after = [layers[path].register_forward_hook(add(path)) for path in stacked]
    try:
        with _pre_hooks([(module, begin, True), *((layer, give(path), True) for path, layer in layers.items())]):
            yield
    finally:
        for handle in after:
            handle.remove()


def _pictures_owners(module: Any, batch: Batch, x: Tensor) -> list[int] | None:
    """The batch row of each entry of x's first axis, where that counts pictures or packed patches; None: not told."""
    try:
        view = vision_view(batch, x, getattr(module.config, "vision_config", None))
    except RuntimeError:
        return None
    owner = view.tokens.owner
    assert owner is not None
    if view.packed and x.dim() == 2 and view.real is not None:
        owner = owner.repeat_interleave(view.real.sum(dim=1).to(owner.device))
    return owner.tolist() if len(owner) == len(x) else None


@contextmanager
def _pre_hooks(wanted: Sequence[tuple[nn.Module, Any, bool]]) -> Iterator[None]:
    handles = []
    try:
        for part, hook, with_kwargs in wanted:
            handles.append(part.register_forward_pre_hook(hook, with_kwargs=with_kwargs))
        yield
    finally:
        for handle in handles:
            handle.remove()
