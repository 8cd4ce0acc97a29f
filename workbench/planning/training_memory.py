"""Peak device memory of fine-tuning: a training step traced without weights, beside what stays between steps.

The forward with its loss, and the backward, of the real model with its adapter run on torch's meta device, which has
shapes and no values, and every storage that torch allocates is counted from its birth to its end. So the activations
that autograd keeps, copies between dtypes and the loss over a vocabulary are those of this model's own code, with
gradient checkpointing or without. Beside them, with P numbers of the adapter at p bytes each (peft holds them in
float32 beside a base of 16 bits):

| part | bytes |
|---|---|
| weights | of all parameters of the base (tied ones once) and buffers, in the model's dtype |
| adapter | P p, and the copy of every B that training is compared with at its end |
| gradients | P p |
| optimizer | 2 P p: Adam's two moments |
| activations | what the traced step needs beyond these, at its peak |

Fused attention is taken to keep its queries, keys, values, output and one float32 a query, and a boolean mask in the
model's dtype; checks that a model makes on values are taken to pass. Not counted: the CUDA context, workspaces of
libraries, the allocator's rounding and reserve, the pixels of batches that are loaded ahead.
Checked against torch's own record of allocations on a CPU (tests/test_planning_training_memory.py); unverified on a
GPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from workbench.planning.memory import ByPart


@dataclass(frozen=True)
class TrainingMemory(ByPart):
    """Device bytes of a training step at its peak."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int


def step_bytes(peft: Any, inputs: Mapping[str, Tensor], *, checkpointing: bool = False) -> int:
    """The most bytes that are alive at once in a training step on these inputs (`labels` among them), beside weights
    and gradients, which are there from the steps before. The module is one on the meta device, and is left with
    gradients and in the mode that was asked for. Raises what the model raises where its forward needs values."""
    peft.train()
    if checkpointing:
        peft.get_base_model().config.get_text_config().use_cache = False  # a Trainer turns it off as well
        peft.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    for one in peft.parameters():
        if one.requires_grad:
            one.grad = torch.empty_like(one)
    given = {name: value.to("meta") for name, value in inputs.items()}
    counted = _Storages([*peft.parameters(), *(one.grad for one in peft.parameters()), *peft.buffers()])
    with mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", _fused_attention), counted:
        peft(**given).loss.backward()  # the logits are let go before the backward, as the Trainer does
    return counted.peak


class _Storages(TorchDispatchMode):
    """Counts the bytes of the storages that are made inside it, while they live; `known` ones are there already."""

    def __init__(self, known: list[Tensor | None]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes = {one.untyped_storage()._cdata: 0 for one in known if one is not None}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:
            return True  # a check: do as many features come as there are places for them?
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, Tensor):
                self._count(one.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        at = storage._cdata
        if at not in self._sizes:
            self._sizes[at] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._gone, at)

    def _gone(self, at: int) -> None:
        self.live -= self._sizes.pop(at, 0)


class _Fused(torch.autograd.Function):
    """Attention that keeps what fused kernels keep."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        mask = mask.to(query.dtype) if mask is not None and mask.dtype == torch.bool else mask
        ctx.save_for_backward(query, key, value, mask, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        return *(torch.empty_like(one) for one in (query, key, value)), None


def _fused_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    return _Fused.apply(query, key, value, attn_mask)  # type: ignore[return-value]


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Of the adapter, by the names that peft saves them under."""
    return {name.replace(".default", ""): one for name, one in module.named_parameters() if one.requires_grad}
