"""What a family of the zoo is held to, with plain torch hooks: nothing of `hooks` is used but what is being checked,
the list of blocks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

CLOSE = 1e-5  # of the largest logit: float32 through four layers; nearly all are bit-equal
_NO_LORA = ("router", "gate", "out_proj")  # routers read their weight themselves; peft refuses Mamba's out_proj
Change = Callable[[Tensor], Tensor]


class Failed(Exception):
    """A check that a family does not pass; the message says how."""


def need(condition: object, why: str) -> None:
    if not condition:
        raise Failed(why)


def tensors(values: Any) -> list[Tensor]:
    """The floating tensors of two or more axes in arguments or in an output, in order."""
    if isinstance(values, Tensor):
        return [values] if values.is_floating_point() and values.dim() > 1 else []
    if isinstance(values, Mapping):
        values = list(values.values())
    elif not isinstance(values, tuple | list):
        values = list(vars(values).values()) if hasattr(values, "__dict__") else []
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1]


def swapped(output: Any, change: Change) -> Any:
    """The output in its own container, with its first floating tensor changed."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, tuple | list):
        at = next(n for n, value in enumerate(output) if tensors(value))
        new = [*output[:at], change(output[at]), *output[at + 1 :]]
        return type(output)(*new) if hasattr(output, "_fields") else type(output)(new)
    raise Failed(f"its output is a {type(output).__name__}: this check does not write that")


@dataclass
class Seen:
    """What fired: block numbers in order, and what each read and wrote."""

    order: list[int] = field(default_factory=list)
    read: dict[int, list[Tensor]] = field(default_factory=dict)
    wrote: dict[int, Tensor] = field(default_factory=dict)


@contextmanager
def watching(blocks: Sequence[nn.Module], changes: Mapping[int, Change] = {}) -> Iterator[Seen]:
    seen, handles = Seen(), []
    for n, block in enumerate(blocks):

        def before(module: nn.Module, args: Any, kwargs: Any, n: int = n) -> None:
            seen.read[n] = [value.clone() for value in tensors(args) + tensors(kwargs)]

        def after(module: nn.Module, args: Any, output: Any, n: int = n) -> Any:
            new = swapped(output, changes[n]) if n in changes else output
            seen.order.append(n)
            need(tensors(new), f"block {n} returns no floating tensor")
            seen.wrote[n] = tensors(new)[0].clone()
            return new if n in changes else None

        handles += [block.register_forward_pre_hook(before, with_kwargs=True), block.register_forward_hook(after)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def called(model: nn.Module, inputs: Mapping[str, Any], **more: Any) -> Any:
    """One forward: no gradients, no cache, the same random numbers every time."""
    accepted = inspect.signature(model.forward).parameters
    if "use_cache" in accepted:
        more.setdefault("use_cache", False)
    torch.default_generator.manual_seed(0)
    with torch.no_grad():
        return model(**inputs, **more)


def logits(output: Any) -> Tensor:
    for name in ("logits", "prediction_logits", "last_hidden_state", "pooler_output"):
        if isinstance(value := getattr(output, name, None), Tensor):
            return value
    return tensors(output)[0]


def differ(a: Tensor, b: Tensor) -> bool:
    real = b[b.abs() < 1e20]  # some models set the logits of picture tokens to the lowest number
    return a.shape != b.shape or not torch.allclose(a, b, rtol=0, atol=CLOSE * max(1e-3, float(real.abs().max())))


def random_step(width: int, size: float = 1.0, seed: int = 5) -> Change:
    """Adds one random vector everywhere. LayerNorm does not see the all-ones direction, so never that one."""
    step = size * torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return lambda resid: resid + step.to(resid.dtype)


def check_capture(model: nn.Module, blocks: Sequence[nn.Module], inputs: Mapping[str, Any], chain: bool = True) -> str:
    """Blocks fire once and in order, each reads what the one before wrote, and the model's own hidden states agree.
    The answer says in what form."""
    with watching(blocks) as seen:
        output = called(model, inputs, output_hidden_states=True)
    need(seen.order, "no block fires")
    need(seen.order == sorted(set(seen.order)), f"blocks fire in the order {seen.order[:12]}")
    for a, b in zip(seen.order, seen.order[1:], strict=False) if chain else ():
        wrote = seen.wrote[a]
        need(
            any(x.shape == wrote.shape and torch.equal(x, wrote) for x in seen.read[b]),
            f"block {b} does not read what block {a} wrote",
        )
    note = "" if len(seen.order) == len(blocks) else f"{len(seen.order)} of {len(blocks)} blocks fire without an image"
    return "; ".join(part for part in (note, _against_hidden_states(output, seen)) if part)


def _against_hidden_states(output: Any, seen: Seen) -> str:
    states = _hidden_states(output)
    if states is None:
        return "no hidden states to compare"
    at, offsets = -1, []
    for n in seen.order[:-1]:  # the last entry is after the final norm
        wrote = seen.wrote[n]
        found = (
            k for k in range(at + 1, len(states)) if states[k].shape == wrote.shape and torch.equal(states[k], wrote)
        )
        at = next(found, -2)
        if at == -2:
            shapes = {tuple(state.shape) for state in states}
            if tuple(wrote.shape) not in shapes:
                return f"hidden states are {sorted(shapes)[0]}, the stream {tuple(wrote.shape)}"
            raise Failed(f"hidden states have no entry that equals the output of block {n}")
        offsets.append(at - n)
    return "" if set(offsets) <= {1} else f"hidden states are off by {sorted(set(offsets))}"


def _hidden_states(output: Any) -> Sequence[Tensor] | None:
    for holder in (output, getattr(output, "language_model_outputs", None), getattr(output, "text_model_output", None)):
        for name in ("decoder_hidden_states", "hidden_states"):
            states = getattr(holder, name, None)
            if isinstance(states, tuple | list) and len(states) > 1 and isinstance(states[0], Tensor):
                return states
    return None


def check_edit(
    model: nn.Module, blocks: Sequence[nn.Module], inputs: Mapping[str, Any], after: Sequence[int] | None = None
) -> str:
    """A random vector added after any block changes the logits, and the next block reads exactly the edited tensor.
    `after`: these blocks alone."""
    with watching(blocks) as plain:
        base = logits(called(model, inputs))
    for n, following in zip(plain.order, [*plain.order[1:], None], strict=True):
        if after is not None and n not in after:
            continue
        wrote = plain.wrote[n]
        with watching(blocks, {n: random_step(wrote.shape[-1], float(wrote.std()))}) as seen:
            edited = logits(called(model, inputs))
        need(differ(edited, base), f"an edit after block {n} does not change the logits")
        need(
            following is None
            or any(torch.equal(x, seen.wrote[n]) for x in seen.read[following] if x.shape == wrote.shape),
            f"block {following} does not read the tensor that was edited after block {n}",
        )
    return ""


def check_patch(model: nn.Module, blocks: Sequence[nn.Module], one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The whole stream of another prompt, put in after any block, gives the other prompt's logits."""
    with watching(blocks) as there:
        wanted = logits(called(model, other))
    need(differ(logits(called(model, one)), wanted), "both prompts give the same logits")
    wrong = []
    for n in there.order:
        with watching(blocks, {n: lambda resid, n=n: there.wrote[n]}):
            got = logits(called(model, one))
        if differ(got, wanted):
            wrong.append(n)
    need(not wrong, f"after blocks {wrong} of {len(blocks)} the stream does not carry everything")
    return ""


def check_generate(model: nn.Module, blocks: Sequence[nn.Module], inputs: Mapping[str, Any]) -> str:
    """Greedy tokens under an edit are the same with a cache and without, and other than without the edit."""
    config = model.generation_config
    config.eos_token_id, config.forced_eos_token_id, config.pad_token_id = None, None, 0
    config.decoder_start_token_id = 2 if config.decoder_start_token_id is None else config.decoder_start_token_id
    with watching(blocks) as plain:
        called(model, inputs)
    n = plain.order[len(plain.order) // 2]
    step = random_step(plain.wrote[n].shape[-1], 2 * float(plain.wrote[n].std()))
    tokens = {}
    for cached in (True, False):
        with watching(blocks, {n: step}), torch.no_grad():
            torch.manual_seed(0)
            made = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False, use_cache=cached)
            tokens[cached] = getattr(made, "sequences", made)
    need(
        torch.equal(tokens[True], tokens[False]),
        f"with a cache {tokens[True][0, -4:].tolist()}, without {tokens[False][0, -4:].tolist()}",
    )
    return ""


def check_lora(model: nn.Module, blocks: Sequence[nn.Module], inputs: Mapping[str, Any], find: Callable) -> str:
    """With LoRA on the Linears of the blocks the same modules are found, edits act, and the adapter changes logits.
    Leaves the model wrapped: the last check."""
    from peft import LoraConfig, get_peft_model

    with watching(blocks) as plain:
        base = logits(called(model, inputs))
    linear = [part for block in blocks for part in block.modules() if isinstance(part, nn.Linear | Conv1D)]
    # A subclass may have a forward of its own (grouped projections): only where there is nothing else.
    inside = {id(part) for part in linear if type(part) in (nn.Linear, Conv1D)} or {id(part) for part in linear}
    names = [name for name, part in model.named_modules() if id(part) in inside and not name.endswith(_NO_LORA)]
    need(names, "no Linear in the blocks")
    torch.manual_seed(1)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=names, init_lora_weights=False)).eval()
    need(differ(logits(called(model, inputs)), base), "the adapter does not change the logits")
    again = find(wrapped)
    need([id(b) for b in again] == [id(b) for b in blocks], "other modules are found under PEFT")
    return check_edit(model, blocks, inputs, after=[plain.order[0], plain.order[-1]])


def check_image(
    model: nn.Module, one: Mapping[str, Any], other: Mapping[str, Any], blocks: Sequence[nn.Module] = ()
) -> str:
    """Another picture under the same words gives other logits; under a picture every language block fires once, in
    order, and a random vector added after any of them changes the logits."""
    with watching(blocks) as plain:
        base = logits(called(model, one))
    need(differ(logits(called(model, other)), base), "the picture does not change the logits")
    need(plain.order == list(range(len(blocks))), f"with a picture blocks fire in the order {plain.order[:12]}")
    for n in plain.order:
        wrote = plain.wrote[n]
        with watching(blocks, {n: random_step(wrote.shape[-1], float(wrote.std()))}):
            need(differ(logits(called(model, one)), base), f"with a picture an edit after block {n} does nothing")
    return ""


def check_tower(model: nn.Module, blocks: Sequence[nn.Module], inputs: Mapping[str, Any]) -> str:
    """The blocks of an image encoder fire once and in order, each reads what the one before wrote, and a random vector
    added after a block changes what the model gives. The answer names the blocks that it does not read."""
    with watching(blocks) as plain:
        base = logits(called(model, inputs))
    need(plain.order == list(range(len(blocks))), f"blocks fire in the order {plain.order[:12]}")
    for a, b in zip(plain.order, plain.order[1:], strict=False):
        wrote = plain.wrote[a]
        read = [x for x in plain.read[b] if x.shape == wrote.shape]
        need(any(torch.equal(x, wrote) for x in read), f"block {b} does not read what block {a} wrote")
    unread = []
    for n in plain.order:
        wrote = plain.wrote[n]
        with watching(blocks, {n: random_step(wrote.shape[-1], 3 * float(wrote.std()))}):
            if not differ(logits(called(model, inputs)), base):
                unread.append(n)
    need(0 not in unread, f"an edit after vision block 0 does not change the output (nor after {unread})")
    return f"the output is not read after blocks {unread}" if unread else ""
