"""Decoding on a cache of fixed size: every step the same operations on the same memory, so that a GPU replays one CUDA
graph a token, edits inside, in place of some ten milliseconds of Python.

The prompt and the first step are the library's own `generate`. The loop goes on from there, once it has repeated that
first step and found the same logits; where it cannot, the ordinary loop runs, and the generation says why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hooks.decoding import NotStatic, StepClock
from hooks.edits import LowRankEdit
from hooks.encode import Batch
from hooks.engine import Visit
from hooks.model import Edits, Keeps
from hooks.prefix_cache import Prefix

if TYPE_CHECKING:
    from hooks.static_step import StaticStep

WAYS = ("dynamic", "static", "graph")
FEW = 2  # tokens that the library's own loop writes first: its second step is what ours is compared with
KNOWN = {"do_sample", "num_beams", "num_return_sequences", "cache_implementation", "use_cache", "pad_token_id"}
KNOWN |= {"eos_token_id", "max_new_tokens", "suppress_tokens", "temperature", "top_k", "top_p"}


def generated(
    model: Any,
    batch: Batch,
    keep: Keeps | None,
    edits: Edits | None,
    stop_ids: frozenset[int],
    options: Mapping[str, Any],
    after: Prefix | None,
    way: str,
) -> tuple[Tensor, Visit, str]:
    """Tokens [row, pos] of prompts padded left and of their answers, what the edits saw, and how it was decoded: `way`,
    or `"dynamic: ..."` with the reason. Raises ValueError for a way that is none."""
    if way not in WAYS:
        raise ValueError(f"decode={way!r} is unknown: expected one of {', '.join(WAYS)}.")
    given, said = (batch, keep, edits, stop_ids, dict(options), after), way
    if way != "dynamic":
        key = ("static decode", way, bool(batch.image_rows))
        why = model._found.get(key) or why_not(model, keep, edits, options, way)
        if why is None:
            loop, drawn = StaticLoop(model, way), _generators(model.device)
            try:
                out, visit = model.decoded(*given, by=loop)
                return out, visit, way if loop.ended is None else f"dynamic: {loop.ended}"
            except NotStatic as error:
                why = str(error)
                if error.lasting:
                    model._found[key] = why
                _restored(drawn, model.device)
        said = f"dynamic: {why}"
    out, visit = model.decoded(*given)
    return out, visit, said


def why_not(model: Any, keep: Keeps | None, edits: Edits | None, options: Mapping[str, Any], way: str) -> str | None:
    """Why this generation cannot be decoded on a static cache, as far as can be said before it begins."""
    if not getattr(model, "native", False):
        return "the back end has a loop of its own"
    if keep:
        return "what is kept is taken step by step"
    for site, listed in (edits or {}).items():
        for edit in listed:
            if not isinstance(edit, LowRankEdit) or edit.shift.dim() == 3:
                return f"the edit at {site} is no bank of LowRankEdit"
            if any(isinstance(scope, re.Pattern) for scope in edit.scopes):
                return f"the edit at {site} looks at the texts of tokens"
    if other := sorted(set(options) - KNOWN):
        return f"{', '.join(other)} is the library's own loop's to know"
    if options.get("use_cache") is False or options["max_new_tokens"] <= FEW:
        return f"there is nothing to gain within {FEW} tokens, or without a cache"
    if way == "graph" and model.device.type != "cuda":
        return f"there are no CUDA graphs on {model.device.type}"
    if way == "graph" and len({weight.device for weight in model.module.parameters()}) > 1:
        return "the model is spread over several devices"
    return None


class StaticLoop:
    """Generates in place of the library's loop, in `HuggingFaceModel.decoded`. `ended` says why the library's own loop
    was left to finish, None where ours did."""

    def __init__(self, model: Any, way: str) -> None:
        self._model, self._way = model, way
        self.ended: str | None = None

    def __call__(self, inputs: dict[str, Tensor], options: dict[str, Any], clock: StepClock, visit: Visit) -> Tensor:
        from hooks.static_step import StaticStep, attempted  # with it comes transformers

        step: StaticStep | None = None

        def second(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            nonlocal step
            if kwargs["input_ids"].shape[1] == 1 and clock.decoding:
                step = attempted(lambda: StaticStep(self._model.module, kwargs, clock, options))

        handle = self._model.module.register_forward_pre_hook(second, with_kwargs=True)
        try:
            few = {"max_new_tokens": FEW, "return_dict_in_generate": True, "output_logits": True}
            out = self._model._generate(inputs, **{**options, **few})
        finally:
            handle.remove()
        written = out.sequences[:, inputs["input_ids"].shape[1] :]
        if step is None or written.shape[1] < FEW:
            self.ended = f"every answer ended within {FEW} tokens"
            return out.sequences
        logits, prompt = out.logits[FEW - 1], out.sequences[:, : -written.shape[1]]
        del out  # and with it the cache that grew
        clock.held = True
        tallies = [tally for listed in visit.tallies.values() for tally in listed]
        # Experts run otherwise in the library's decoding steps than in its prefills, on a GPU without waiting for it.
        with getattr(self._model.module, "_optimize_model_for_decode", nullcontext)():
            return torch.cat([prompt, step.loop(written, logits, tallies, graph=self._way == "graph")], dim=1)


def _generators(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _restored(drawn: Sequence[Tensor], device: torch.device) -> None:
    torch.set_rng_state(drawn[0])
    if len(drawn) > 1:
        torch.cuda.set_rng_state(drawn[1], device)
