"""TokenPairs: positions of two models, each with its own tokenizer, where both have read the same text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from hooks.prompt import Prompt, as_prompts
from stores.printed import Printed

if TYPE_CHECKING:
    from hooks.encoded import Encoded
else:
    Encoded = Any  # imports torch, which maps between stored rows do without


@dataclass(frozen=True, eq=False)
class TokenPairs(Printed):
    """Pairs of positions (source, target) by prompt id: `wb.fit_transfer(..., pair_by=pairs)` joins rows by them.

    `tokens` counts both sides' tokens of all prompts, `without` names prompts of which no token pairs.
    """

    pairs: Mapping[str, Int[np.ndarray, "pair 2"]]
    tokens: tuple[int, int]
    without: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.pairs.values()))

    def places(self, side: int) -> dict[tuple[str, int], tuple[str, int]]:
        """(prompt id, position on this side) -> the pair's key, equal on both sides."""
        return {
            (prompt, int(pair[side])): (prompt, number)
            for prompt, pairs in self.pairs.items()
            for number, pair in enumerate(pairs)
        }

    def __repr__(self) -> str:
        lost = f", {len(self.without)} prompts without any" if self.without else ""
        return f"TokenPairs({len(self)} pairs of {self.tokens[0]} and {self.tokens[1]} tokens{lost})"


def token_pairs(
    source: Any, target: Any, prompts: str | Path | Iterable[Prompt], *, per_prompt: int | None = None, seed: int = 0
) -> TokenPairs:
    """Where two models, whose tokenizers may differ, have read the same: pairs of token positions of each prompt.

    Tokens pair that end at the same character of the same turn (of raw text, prefill, response), white space and case
    aside, and so have read the same words; tokens that only one tokenizer cuts there have no partner, and neither have
    those of the chat templates, save the prompts' last ones, which choose the first token of the answer. A turn that a
    tokenizer cannot give back (unknown words) pairs nothing. `per_prompt`: at most so many of each, drawn by `seed`:
    neighbours say much the same, and all rows are held in memory when a map is fitted.
    Raises ValueError when nothing pairs. Decodes each prompt once a model; no forward.
    """
    encoders = [getattr(model, "encoder", model) for model in (source, target)]
    rng = np.random.default_rng(seed)
    pairs: dict[str, np.ndarray] = {}
    without, tokens = [], [0, 0]
    for prompt in as_prompts(prompts):
        sides = [encoder.encode(prompt) for encoder in encoders]
        tokens = [count + len(one) for count, one in zip(tokens, sides, strict=True)]
        read = [ends_read(one, prompt, encoder.tokenizer) for one, encoder in zip(sides, encoders, strict=True)]
        both = sorted(read[0].keys() & read[1].keys())
        found = sorted({(read[0][key], read[1][key]) for key in both})
        found = np.array([pair for pair in found if min(pair) > 0], np.intp).reshape(-1, 2)  # never the first token
        if per_prompt is not None and len(found) > per_prompt:
            found = found[np.sort(rng.choice(len(found), per_prompt, replace=False))]
        if len(found):
            pairs[prompt.id] = found
        else:
            without.append(prompt.id)
    if not pairs:
        raise ValueError(
            "no token of one model ends where a token of the other does: expected prompts that both tokenizers can "
            "write back. Pair whole prompts instead: pooled rows (at='last', or pool='mean') and pair_by='prompt'."
        )
    return TokenPairs(pairs, (tokens[0], tokens[1]), tuple(without))


Place = tuple[int, int]  # (number of the turn, characters of it that were read)
LAST = (-1, -1)


def ends_read(one: Encoded, prompt: Prompt, tokenizer: Any) -> dict[Place, int]:
    """What of the prompt's own texts has been read -> the first position that has; `LAST`: the prompt's last token."""
    text, end = squeezed_ends(one.input_ids.tolist(), tokenizer)
    p = one.prompt_length
    asked = end[min(one.instruction_end, p) - 1] if one.instruction_end else 0
    found: dict[Place, int] = {LAST: p - 1}
    for number, (start, length) in _turns(text, prompt, asked=asked, before=end[p - 1]).items():
        for position, here in enumerate(end):
            if position and start < here <= start + length:
                found.setdefault((number, here - start), position)
    return found


def squeezed_ends(ids: list[int], tokenizer: Any) -> tuple[str, list[int]]:
    """The text of these ids without white space and case, and how much of it has been read after each.

    A token that ends within a character (of bytes) has read what the one before it had. Each token is decoded behind
    those just before it, since alone many tokenizers write it otherwise.
    """
    text, ends, start, read = "", [], 0, 0
    for i in range(len(ids)):
        before, both = (_decoded(tokenizer, ids[start:stop]) for stop in (read, i + 1))
        if not both.endswith("\ufffd"):
            text += squeezed(both[len(before) :])
            start, read = read, i + 1
        ends.append(len(text))
    return text, ends


def squeezed(text: str) -> str:
    """Without white space and case: tokenizers add spaces between words, and some read small letters only."""
    return "".join(text.split()).casefold()


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) if ids else ""


def _turns(text: str, prompt: Prompt, *, asked: int, before: int) -> dict[int, tuple[int, int]]:
    """Number of each of the prompt's own texts -> (start, length) in the decoded text; those not found are left out.

    From the end backwards, since a template may hold a turn's word ("user") in front of it: the last user turn ends
    at `asked`, the prompt at `before`, and the response follows there.
    """
    own = [(turn.role, turn.text) for turn in prompt.messages] or [("text", prompt.text or "")]
    last_user = max((i for i, (role, _) in enumerate(own) if role == "user"), default=None)
    own.append(("prefill", prompt.prefill or ""))
    found: dict[int, tuple[int, int]] = {}
    limit = before
    for number, (_, said) in reversed(list(enumerate(own))):
        limit = min(limit, asked) if number == last_user else limit
        wanted = squeezed(said)
        start = text.rfind(wanted, 0, limit) if wanted else -1
        if start >= 0:
            found[number], limit = (start, len(wanted)), start
    response = squeezed(prompt.response or "")
    if response and text.startswith(response, before):
        found[len(own)] = (before, len(response))
    return found
