"""An independent forward for the contract of the back ends: a module that nobody wrapped, plain hooks on paths written
by hand, and the positions of every scope counted from the letters of the prompts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

BLOCKS_AT = {
    "LlamaForCausalLM": "model.layers",
    "Qwen2ForCausalLM": "model.layers",
    "Qwen3ForCausalLM": "model.layers",
    "GPT2LMHeadModel": "transformer.h",
    "Gemma2ForCausalLM": "model.layers",
    "Gemma3ForCausalLM": "model.layers",
}
Place = tuple[int, str]  # layer, "resid_pre" or "resid_post"
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OwnForward:
    """The raw module. Calling it gives every residual, as the next block sees it, and the logits of all positions."""

    module: Any

    @property
    def blocks(self) -> list[Any]:
        return list(self.module.get_submodule(BLOCKS_AT[type(self.module).__name__]))

    def __call__(
        self, inputs: Mapping[str, Tensor], changes: Mapping[Place, Change] | None = None
    ) -> tuple[dict[Place, Tensor], Tensor]:
        seen: dict[Place, Tensor] = {}
        changes = changes or {}

        def passed(place: Place, resid: Tensor) -> Tensor:
            new = changes[place](resid) if place in changes else resid
            seen[place] = new.clone()
            return new

        handles = []
        for layer, block in enumerate(self.blocks):

            def before(module: Any, args: Any, kwargs: Any, layer: int = layer) -> Any:
                if args:
                    return (passed((layer, "resid_pre"), args[0]), *args[1:]), kwargs
                return args, {**kwargs, "hidden_states": passed((layer, "resid_pre"), kwargs["hidden_states"])}

            def after(module: Any, args: Any, output: Any, layer: int = layer) -> Any:
                if isinstance(output, tuple):
                    return (passed((layer, "resid_post"), output[0]), *output[1:])
                return passed((layer, "resid_post"), output)

            handles += [block.register_forward_pre_hook(before, with_kwargs=True), block.register_forward_hook(after)]
        try:
            with torch.no_grad():
                logits = self.module(**inputs, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        return seen, logits


@dataclass(frozen=True)
class Letters:
    """A prompt as the byte tokenizer must see it: one token a letter, and the template's marks."""

    user: str
    response: str = ""
    raw: bool = False  # the text alone, without a template
    written: tuple[str, ...] | None = None  # while generating: the tokens after the prompt, the response still open

    @property
    def prompt(self) -> list[str]:
        if self.raw:
            return list(self.user)
        return ["<bos>", "<turn>", *"user:", *self.user, "<end>", "<turn>", *"assistant:"]

    def open(self, *written: str) -> Letters:
        return replace(self, response="", written=written)

    def places(self, scope: str | int) -> list[int]:
        """The positions of a scope, counted by hand."""
        after = list(self.response) if self.written is None else list(self.written)
        p, r = len(self.prompt), len(after)
        if isinstance(scope, int):
            return [scope] if scope < p + r else []
        if scope.startswith("re:"):
            return [n for n, token in enumerate([*self.prompt, *after]) if re.search(scope[3:], token)]
        answering = range(p - 1, p + r) if self.written is not None or not r else range(p - 1, p + r - 1)
        found = {
            "prompt": range(p),
            "last": [p - 1],
            "post_instruction": [] if self.raw else range(p - len(["<end>", "<turn>", *"assistant:"]), p),
            "response": range(p, p + r),
            "answering": answering,
            "text": range(p + r),
            "all": range(p + r),
        }
        return list(found[scope])


def mask_of(places: list[list[int]], width: int) -> Tensor:
    """True at the places of each row, in a batch padded on the right."""
    mask = torch.zeros(len(places), width, dtype=torch.bool)
    for row, listed in enumerate(places):
        mask[row, listed] = True
    return mask


def plus(vector: Tensor, mask: Tensor) -> Change:
    """The change that adds a vector, or one a row, where the mask is True."""
    return lambda resid: torch.where(mask[..., None], resid + vector.reshape(-1, 1, vector.shape[-1]), resid)
