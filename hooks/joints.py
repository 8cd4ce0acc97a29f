"""Joints: inside each block, the modules whose outputs are added to the stream, found on a short forward.

`attn_out` is the output `a` with `resid_pre + c·a` equal to what a later module of the block reads (`resid_mid`), and
`mlp_out` the output `m` with `resid_mid + c·m` equal to the block's own output; `c` is 1 or the model's residual
multiplier. Names of modules play no part, but in parallel blocks, where both are added at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hooks.probe import Slot, tensors_in, text_inputs
from hooks.spot import Spot
from hooks.stream import ResidualStream
from hooks.structure import UnsupportedArchitecture

_ROWS, _LENGTH = 2, 5
# How far a sum may be off, relative to the stream: a few roundings of the dtype.
_SLACK = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
_MIXES_POSITIONS = {"attention_mask", "position_embeddings", "position_ids", "past_key_values", "cache_params", "alibi"}


@dataclass(frozen=True, eq=False)
class Branch:
    """A module inside a block, the entry of its output that is added to the stream, and the factor before that."""

    module: nn.Module
    slot: Slot
    scale: float
    flat: bool  # its tensor is [row * pos, d_model]


@dataclass(frozen=True, eq=False)
class Joint:
    """The two branches of one block; `parallel` when both are added at once and there is no stream between them."""

    attn: Branch | None
    mlp: Branch | None
    parallel: bool
    why: str = ""

    def spot(self, point: str, resid_pre: Spot) -> Spot:
        """Where `point` of this block is hooked. Raises UnsupportedArchitecture where the block has no such place."""
        branch = self.mlp if point == "mlp_out" else self.attn
        if point == "resid_mid" and self.parallel:
            raise UnsupportedArchitecture(
                "this block adds attention and MLP at once (parallel), so no residual stands between them: expected "
                "attn_out, mlp_out, resid_pre or resid_post."
            )
        if branch is None:
            raise UnsupportedArchitecture(f"{point} was not found: {self.why}. Expected resid_pre or resid_post.")
        base = resid_pre if point == "resid_mid" else None
        return Spot(branch.module, "output", branch.slot, branch.scale, base, branch.flat)


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a module inside a block."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    outputs: Mapping[Slot, Tensor]
    depth: int  # how deep the module is nested in the block


def find_joints(model: Any, stream: ResidualStream) -> list[Joint]:
    """The joints of every block of a language stream, from one forward on text."""
    if stream.layout is None or not stream.layout.plain:
        raise UnsupportedArchitecture(
            "attn_out, resid_mid and mlp_out need one stream of [row, pos, d_model]: expected resid_pre or resid_post "
            "on this architecture."
        )
    calls: list[list[_Call]] = [[] for _ in stream.blocks]
    ends: dict[int, tuple[Tensor, Tensor]] = {}
    handles = []
    try:
        for layer, block in enumerate(stream.blocks):
            spots = Spot(block, "input", stream.reads), Spot(block, "output", stream.writes)
            handles.append(block.register_forward_hook(_end(ends, layer, spots), with_kwargs=True))
            for name, module in block.named_modules():
                if name:
                    hook = _noted(calls[layer], name.count("."))
                    handles.append(module.register_forward_hook(hook, with_kwargs=True))
        with torch.no_grad():
            model(**text_inputs(model, _ROWS, _LENGTH))
    except Exception as error:
        raise UnsupportedArchitecture(
            f"attn_out, resid_mid and mlp_out are found by a forward on text alone, which failed with "
            f"{type(error).__name__}: {error}. Expected resid_pre or resid_post."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return [
        _joint(*ends[layer], calls[layer]) if layer in ends else Joint(None, None, False, "no text passes this block")
        for layer in range(len(stream.blocks))
    ]


def _end(ends: dict[int, tuple[Tensor, Tensor]], layer: int, spots: tuple[Spot, Spot]) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        ends[layer] = spots[0].take((args, kwargs)).clone(), spots[1].take(output).clone()

    return hook


def _noted(calls: list[_Call], depth: int) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        inputs = [*tensors_in(args).values(), *tensors_in(kwargs).values()]
        outputs = {slot: tensor.clone() for slot, tensor in tensors_in(output).items()}
        calls.append(_Call(module, tuple(tensor.clone() for tensor in inputs), outputs, depth))

    return hook


def _joint(pre: Tensor, post: Tensor, calls: list[_Call]) -> Joint:
    once = {call.module for call in calls if sum(other.module is call.module for other in calls) == 1}
    outs = [
        _Out(n, call, slot, value.reshape(pre.shape), value.dim() < pre.dim())
        for n, call in enumerate(calls)
        for slot, value in call.outputs.items()
        # A module that the block calls twice (one dropout for both halves) has no output of its own.
        if call.module in once and _same_rows(value, pre)
    ]
    middles = [(n, x.reshape(pre.shape)) for n, call in enumerate(calls) for x in call.inputs if _same_rows(x, pre)]
    for n, middle in middles:
        step = middle.double() - pre.double()
        if not bool(step.any()) or _near(middle, post):
            continue
        attn = _branch(step, middle, [out for out in outs if out.order < n])
        mlp = _branch(post.double() - middle.double(), post, [out for out in outs if out.order >= n])
        if attn and mlp:
            return Joint(attn, mlp, False)
    pairs = [
        (a, b)
        for i, a in enumerate(outs)
        for b in outs[i + 1 :]
        if _near(pre.double() + a.value.double() + b.value.double(), post)
        and not _near(a.value + pre, post)
        and not _near(b.value + pre, post)
    ]
    if pairs:
        first, second = min(pairs, key=lambda pair: (pair[0].call.depth + pair[1].call.depth, -pair[0].order))
        if _mixes_positions(second.call.module) and not _mixes_positions(first.call.module):
            first, second = second, first
        return Joint(_as_branch(first, 1.0), _as_branch(second, 1.0), True)
    single = _branch(post.double() - pre.double(), post, outs)
    why = (
        "the block has one branch"
        if single
        else "the block's output is not its input plus the outputs of two of its modules (post-norm blocks norm the "
        "stream itself)"
    )
    return Joint(None, None, False, why)


@dataclass(frozen=True, eq=False)
class _Out:
    """One output of a module inside a block, as [row, pos, d_model]."""

    order: int
    call: _Call
    slot: Slot
    value: Tensor
    flat: bool


def _same_rows(value: Tensor, stream: Tensor) -> bool:
    return value.shape == stream.shape or value.shape == (stream.shape[0] * stream.shape[1], stream.shape[2])


def _branch(step: Tensor, total: Tensor, outs: list[_Out]) -> Branch | None:
    """The output that is `step` up to a factor; the module nearest to the block, and of equals the last."""
    found = []
    for out in outs:
        value = out.value.double()
        scale = float((step * value).sum() / value.square().sum().clamp_min(1e-300))
        scale = 1.0 if abs(scale - 1) < 1e-2 and _near(step, value, total) else scale
        if abs(scale) > 1e-6 and _near(step, value * scale, total):
            found.append((out.call.depth, -out.order, _as_branch(out, scale)))
    return min(found, key=lambda one: one[:2])[2] if found else None


def _as_branch(out: _Out, scale: float) -> Branch:
    return Branch(out.call.module, out.slot, scale, out.flat)


def _near(a: Tensor, b: Tensor, size: Tensor | None = None) -> bool:
    size = b if size is None else size
    slack = _SLACK.get(size.dtype, 2e-5) * float(size.double().abs().max())
    return float((a.double() - b.double()).abs().max()) <= slack


def _mixes_positions(module: nn.Module) -> bool:
    return bool(_MIXES_POSITIONS & set(inspect.signature(module.forward).parameters))
