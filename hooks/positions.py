"""The one vocabulary of token scopes, for capture, ablation and steering: a scope becomes a mask over (row, pos).

| scope | positions, with p prompt tokens (template and prefill included) and r response tokens |
|---|---|
| `prompt` | 0 .. p-1 |
| `last` | p-1 |
| `post_instruction` | the template's tokens after the user's text, up to p-1 |
| `response` | p .. p+r-1 |
| `answering` | p-1 .. p+r-2: the positions whose logits choose the response (p-1 .. while it is still open) |
| `image`, `text`, `text_after_image` | by the config's image token id |
| `all` | every real token; a pad never |
| an int | that absolute position, counted from the first real token |
| a regex (`re.Pattern`, or a string that starts with `re:`) | tokens whose text matches |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

SCOPES = ("prompt", "last", "post_instruction", "response", "answering", "image", "text", "text_after_image", "all")
Scope = str | int | re.Pattern[str]

OPEN_END = 2**31 - 1  # the length of a sequence whose response is still being written


def checked_scope(scope: Scope) -> Scope:
    """The scope itself, with `"re:..."` compiled; raises ValueError when it is no scope."""
    if isinstance(scope, str) and scope.startswith("re:"):
        return re.compile(scope[3:])
    if isinstance(scope, bool) or not (isinstance(scope, int | re.Pattern) or scope in SCOPES):
        raise ValueError(
            f"scope {scope!r} is unknown: expected one of {', '.join(SCOPES)}, an int, or a regex such as 're:^the$'."
        )
    return scope


def scope_name(scope: Scope) -> str:
    """The scope as text, readable by `checked_scope` (ints excepted, which are their own name)."""
    return f"re:{scope.pattern}" if isinstance(scope, re.Pattern) else str(scope)


@dataclass(frozen=True)
class Tokens:
    """Where every token of a batch stands; one forward's view, whole prompts or one decoding step.

    `position` counts from each row's first real token and is -1 at pads and at rows that have finished. `end` is the
    number of real tokens of the row, `OPEN_END` while its response is being written.
    """

    input_ids: Int[Tensor, "row pos"]
    position: Int[Tensor, "row pos"]
    prompt_length: Int[Tensor, " row"]
    instruction_end: Int[Tensor, " row"]
    end: Int[Tensor, " row"]
    is_image: Bool[Tensor, "row pos"]
    image_end: Int[Tensor, " row"]  # one past the last image token; 0 without images
    text_of: Callable[[int], str] | None = None
    patches: bool = False  # True inside a vision tower, whose rows are images and whose positions are patches
    owner: Int[Tensor, " row"] | None = None  # there: the prompt that each image belongs to
    whole: int | None = None  # of a view of the first rows (see `first`): how many rows there are in all
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # of this forward

    @property
    def measured(self) -> Bool[Tensor, "row pos"]:
        """What statistics count: every real token but position 0, whose norm drowns the others; every patch."""
        return self.position >= 0 if self.patches else self.position > 0

    def mask(self, scope: Scope) -> Bool[Tensor, "row pos"]:
        """True at the positions of the scope; a row without any (a text row under `image`) is all False. Computed once
        a forward, for all of its sites: not to be written into."""
        scope = checked_scope(scope)
        if scope not in self.memo:
            self.memo[scope] = self._mask(scope)
        return self.memo[scope]

    def _mask(self, scope: Scope) -> Bool[Tensor, "row pos"]:
        position, p = self.position, self.prompt_length[:, None]
        real = position >= 0
        if self.patches and scope not in ("all", "image"):
            raise ValueError(
                f"scope {scope_name(scope)!r} has no meaning inside the vision tower: expected 'image' or 'all'."
            )
        if isinstance(scope, int):
            if scope < 0:
                raise ValueError(
                    f"position {scope} is negative: expected 0.. from the first token, or the scope 'last'."
                )
            return position == scope
        if isinstance(scope, re.Pattern):
            return real & self._matching(scope)
        match scope:
            case "all":
                return real
            case "prompt":
                return real & (position < p)
            case "last":
                return position == p - 1
            case "post_instruction":
                return (position >= self.instruction_end[:, None]) & (position < p)
            case "response":
                return (position >= p) & (position < self.end[:, None])
            case "answering":
                # An open response is chosen by every position from p-1 on; a complete one not by its own last token.
                closed = (self.end < OPEN_END) & (self.end > self.prompt_length)
                last = torch.where(closed, self.end - 1, self.end)[:, None]
                return (position >= p - 1) & real & (position < last)
            case "image":
                return real & self.is_image
            case "text":
                return real & ~self.is_image
            case _:  # text_after_image
                return real & ~self.is_image & (self.image_end[:, None] > 0) & (position >= self.image_end[:, None])

    def _matching(self, pattern: re.Pattern[str]) -> Bool[Tensor, "row pos"]:
        if self.text_of is None:
            raise ValueError("a regex scope needs the tokenizer's texts, which this batch does not have.")
        distinct, inverse = torch.unique(self.input_ids, return_inverse=True)
        hits = torch.tensor(
            [bool(pattern.search(self.text_of(int(token)))) for token in distinct], device=inverse.device
        )
        return hits[inverse]

    def to(self, device: torch.device | str) -> Tokens:
        """The same, with every tensor on `device`."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def step(self, input_ids: Int[Tensor, "row 1"], position: Int[Tensor, "row 1"]) -> Tokens:
        """The view of one decoding step: the tokens that were just chosen, at `position` (-1 at finished rows)."""
        nothing = torch.zeros_like(position, dtype=torch.bool)
        return replace(self, input_ids=input_ids, position=position, is_image=nothing)

    def columns(self, chosen: slice) -> Tokens:
        """The view of some columns of the batch."""
        names = ("input_ids", "position", "is_image")
        return replace(self, **{name: getattr(self, name)[:, chosen] for name in names})

    def rows(self, chosen: Int[Tensor, " n"]) -> Tokens:
        """The view of the chosen rows, in this order."""
        return replace(self, **{name: value[chosen] for name, value in vars(self).items() if isinstance(value, Tensor)})

    def first(self, rows: int) -> Tokens:
        """The view of the first rows of the batch, those that a forward has come to so far."""
        if rows not in self.memo.setdefault("first", {}):
            parts = {name: value[:rows] for name, value in vars(self).items() if isinstance(value, Tensor)}
            self.memo["first"][rows] = replace(self, **parts, whole=len(self.position))
        return self.memo["first"][rows]

    @staticmethod
    def of_patches(rows: int, patches: int, device: torch.device, owner: Sequence[int] | None = None) -> Tokens:
        """The view inside a vision tower: `rows` images of `patches` patches each, of the prompts `owner`."""
        position = torch.arange(patches, device=device).expand(rows, patches)
        length = torch.full((rows,), patches, device=device)
        return Tokens(
            position,
            position,
            length,
            length,
            length,
            torch.ones_like(position, dtype=torch.bool),
            length,
            patches=True,
            owner=None if owner is None else torch.tensor(owner, device=device),
        )
