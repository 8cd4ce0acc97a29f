"""NumberTokens: the numbers of a scale as a model's tokenizer writes them, and the probability of each as a reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.encode import Encoder
from hooks.token_tree import TokenTree

FORMS = ("", " ")  # a reply may begin with a space: behind "ASSISTANT:" it does
MOST_NUMBERS = 1001
# First tokens less likely than this are not followed: their numbers, at most some 200 branches, hold less than 1e-8 of
# the probability, which moves a score of 100 by less than 1e-5 where the mass is at least LEAST_MASS.
FOLLOWED = 5e-11


@dataclass(frozen=True, eq=False)
class NumberTokens:
    """A number's probability is that of a reply which begins with exactly that number:

        p(number) = Σ_spellings Π_i p(t_i | prompt, t_1 .. t_{i-1}) · (1 - Σ_d p(d | prompt, t_1 .. t_m))

    over the tokenizer's own spellings t_1 .. t_m of "n" and of " n"; d runs over the tokens that begin with a digit:
    "1" is not the beginning of "10" or "100", and "100" not that of "1000". "7.5" and "7/10" count as 7. A number that
    is written in other tokens than the tokenizer would take counts as none.
    """

    spelled: dict[tuple[int, ...], str]  # tokens -> the number as text, with the space in front where it has one
    tree: TokenTree
    digits: Int[Tensor, " n"]  # the tokens that begin with a digit

    @property
    def scheme(self) -> str:
        """How many tokens numbers have, for the record of a result."""
        lengths = sorted({len(ids) for ids, text in self.spelled.items() if not text.startswith(" ")})
        return f"{lengths[0]} token a number" if lengths == [1] else f"{lengths[0]} to {lengths[-1]} tokens a number"

    def followed(self, first: Float[Tensor, "row vocab"]) -> TokenTree:
        """The part of the tree that any of these prompts gives probability to."""
        likely = first.log_softmax(dim=-1).amax(dim=0).exp() > FOLLOWED
        return self.tree.under({path[0] for path in self.tree.paths if bool(likely[path[0]])})

    def log_probs(
        self, first: Float[Tensor, "row vocab"], behind: Float[Tensor, "row node vocab"], tree: TokenTree
    ) -> list[dict[str, float]]:
        """For each row, the log-probability of every number (by text), from the logits behind the prompt and behind
        each node of `tree`; in float32 at least, sums in float64."""
        if not len(tree):
            return [{} for _ in first]
        digits = self.digits.to(first.device)
        out = []
        for row in range(len(first)):
            # One row at a time: float32 logits of a whole batch of nodes would not fit beside the model.
            start, after = (part[row].to(torch.promote_types(part.dtype, torch.float32)) for part in (first, behind))
            norm, total = start.logsumexp(-1), after.logsumexp(-1)
            last = tree.tokens
            parents = [tree.node.get(path[:-1], -1) for path in tree.paths]
            root = torch.tensor([parent < 0 for parent in parents], device=start.device)
            step = torch.where(root, (start[last] - norm).double(), (after[parents, last] - total[parents]).double())
            # Summed over what ends a number: 1 - p(digit) would cancel where a judge goes on writing digits.
            ends = (after.index_fill(1, digits, -torch.inf).logsumexp(-1) - total).double()
            reach: list[float] = []
            for parent, one in zip(parents, step.tolist(), strict=True):
                reach.append(one + (reach[parent] if parent >= 0 else 0.0))
            ended = ends.tolist()
            nodes = {text: tree.node[ids] for ids, text in self.spelled.items() if ids in tree.node}
            out.append({text: reach[n] + ended[n] for text, n in nodes.items()})
        return out


def number_tokens(encoder: Encoder, scale: tuple[int, int]) -> NumberTokens:
    """The numbers of the scale as this tokenizer writes them behind a prompt. ValueError for scales that are negative
    or too long, and for tokenizers that cannot write every number."""
    low, high = scale
    if low < 0 or high - low >= MOST_NUMBERS:
        raise ValueError(f"scale {scale} cannot be read number by number: expected 0 or more, {MOST_NUMBERS} numbers.")
    spelled: dict[tuple[int, ...], str] = {}
    for form in FORMS:
        for number in range(low, high + 1):
            ids = tuple(encoder.continuation_ids(f"{form}{number}"))
            written = encoder.tokenizer.decode(list(ids))
            if not ids or written.strip() != str(number):
                raise ValueError(
                    f"the tokenizer writes {form + str(number)!r} as {list(ids)}, which reads {written!r}: expected a "
                    "judge whose vocabulary has digits."
                )
            spelled.setdefault(ids, f"{form}{number}")
    return NumberTokens(spelled, TokenTree.of(spelled), torch.tensor(digit_tokens(encoder.tokenizer)))


def digit_tokens(tokenizer: Any) -> list[int]:
    """The tokens whose text begins with one of 0 to 9, with nothing in front of it (a space, or its mark)."""
    bytes_of_digits = {f"<0x{ord(digit):02X}>" for digit in "0123456789"}

    def begins(piece: Any) -> bool:
        text = piece.decode("latin-1") if isinstance(piece, bytes) else str(piece)
        return text[:1] in tuple("0123456789") or text in bytes_of_digits

    return sorted(i for piece, i in tokenizer.get_vocab().items() if begins(piece))
