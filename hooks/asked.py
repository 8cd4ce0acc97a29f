"""What the checks of a model share: the model under examination, two short texts, tolerances and distances."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hooks.encode import Batch
from hooks.encoded import Encoded
from hooks.model import Where
from hooks.prompt import Message, Prompt

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}  # relative, against the largest residual
SHORT, LONG = "name a colour", "name a colour, and then a town by the sea"

Verdict = tuple[bool | None, str]


@dataclass(frozen=True)
class Asked:
    """The model under examination, and the layers that the costly checks look at."""

    model: Any
    layers: tuple[int, ...]

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.model.dtype]

    def batch(self, *texts: str) -> Batch:
        """Chats where the tokenizer has a sound template, raw text where it has none."""
        return self.model.encode([self._prompt(n, text) for n, text in enumerate(texts)])

    def _prompt(self, n: int, text: str) -> Prompt:
        if self._chats:
            return Prompt(str(n), (Message("user", (text,)),))
        return Prompt(str(n), text=text)

    @cached_property
    def _chats(self) -> bool:
        try:
            self.model.encode([Prompt("chat", (Message("user", (SHORT,)),))])
        except ValueError:
            return False
        return True

    @property
    def layers_named(self) -> str:
        every = len(self.layers) == self.model.n_layers
        return "every layer" if every else f"layers {', '.join(str(layer) for layer in self.layers)}"


def everything(resid: Tensor, where: Where) -> Tensor:
    return resid.clone()


def newest(resid: Tensor, where: Where) -> Tensor:
    return resid[:, -1].clone()


def replaced_by(values: Tensor) -> Any:
    return lambda resid, where: values.to(resid).expand_as(resid).clone()


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest entry of `b`; infinite where either holds what is no number."""
    off = float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-9))
    return off if math.isfinite(off) else math.inf


def pushed(model: Any, size: float, scope: str = "all") -> Any:
    """An edit by a random vector (LayerNorm models are blind to the all-ones direction), `size` times the norm."""
    push = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))

    def steer(resid: Tensor, where: Where) -> Tensor:
        step = size * resid.norm(dim=-1, keepdim=True) * (push / push.norm()).to(resid)
        return torch.where(where.mask(scope)[..., None], resid + step, resid)

    return steer


def with_other_tokens(model: Any, one: Encoded) -> Encoded:
    """The prompt with another ordinary token where the user's text ends, and one where the prompt ends. Other words
    would not do: a small vocabulary may know neither, and read both prompts alike."""
    tokenizer, ids = model.tokenizer, one.input_ids.clone()
    for place in {min(one.instruction_end, one.prompt_length) - 1, one.prompt_length - 1}:
        special = {*tokenizer.all_special_ids, model.encoder.image_token_id, int(ids[place])}
        ids[place] = next(token for token in range(len(tokenizer)) if token not in special)
    return replace(one, input_ids=ids)
