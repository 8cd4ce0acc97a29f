"""Texts as one model finds them, and as two models do: rows of a membership table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hooks.backends.hf import HuggingFaceModel
from hooks.encoded import Encoded
from hooks.model import Edits
from hooks.prompt import Prompt
from hooks.token_log_probs import TokenLogProbs, token_log_probs
from workbench.behaviour import membership_scores as scores
from workbench.behaviour.membership_texts import Texts, same_tokens
from workbench.interventions.readout import prompt_facts

PER = ("token", "character", "text")  # what log p is divided by in `loss`
Scores = dict[str, float | None]


@dataclass(frozen=True)
class Read:
    """One text as one model finds it: scores by name, log p of all of it, its loss, and how much was scored."""

    scores: Scores
    log_p: float
    loss: float
    facts: dict[str, Any]


@dataclass(frozen=True)
class Reader:
    """One model, and the texts in the tokens that it reads."""

    model: HuggingFaceModel
    texts: Texts
    edits: Edits
    ks: tuple[float, ...]
    per: str

    def read(self, unit: Sequence[int]) -> list[Read]:
        alone, edited = self._log_probs([self.texts.alone(i) for i in unit], self.texts.scope)
        behind: Sequence[TokenLogProbs | None] = [None] * len(unit)
        if self.texts.has_prefix:
            behind, _ = self._log_probs([self.texts.behind(i) for i in unit], "response")
        return [self._read(*each) for each in zip(unit, alone, behind, edited, strict=True)]

    def _log_probs(self, encoded: list[Encoded], scope: str) -> tuple[list[TokenLogProbs], list[int]]:
        batch = self.texts.encoder.collate(encoded)
        found, trace = token_log_probs(self.model, batch, scope, self.edits, must_edit=False)
        for one, tokens in zip(encoded, found, strict=True):
            if not all(bool(part.isfinite().all()) for part in (tokens.log_prob, tokens.mean, tokens.sd)):
                raise ValueError(
                    f"prompt {one.id!r}: log-probabilities of {self.model!r} are NaN or infinite. Expected finite "
                    "ones: load the model in bfloat16 or float32 (float16 overflows in some families)."
                )
        counts = [tally.edited for at_site in trace.tallies.values() for tally in at_site]
        return found, [sum(int(count[row]) for count in counts) for row in range(len(encoded))]

    def _read(self, i: int, tokens: TokenLogProbs, behind: TokenLogProbs | None, edited: int) -> Read:
        p, mean, sd = (part.double().numpy() for part in (tokens.log_prob, tokens.mean, tokens.sd))
        text = self.texts.scored_text(i)
        per = {"token": None, "character": len(text), "text": 1}[self.per]
        found: Scores = {"loss": scores.loss(p, per), "zlib": scores.zlib_score(p, text)}
        for k in self.ks:
            found[f"min_k_{k:g}"] = scores.min_k(p, k)
            found[f"min_k_pp_{k:g}"] = scores.min_k_plus_plus(p, mean, sd, k)
            found[f"{scores.PAPER_B}min_k_{k:g}"] = scores.paper_b_min_k(p, k)
        found[f"{scores.PAPER_B}zlib"] = scores.paper_b_zlib(p, text)
        if behind is not None:
            found["recall"] = scores.recall(behind.log_prob.double().numpy(), p)
        facts = {"n_tokens": len(tokens), "n_characters": len(text), "truncated": self.texts.truncated(i)}
        return Read(found, float(p.sum()), -scores.loss(p, per), facts | ({"edited": edited} if self.edits else {}))


def reference_texts(own: Texts, base: HuggingFaceModel, prompts: Sequence[Prompt], per: str, **form: Any) -> Texts:
    """What the reference reads: the same token ids, or, where its tokenizer gives others and `per` allows, its own.
    Raises ValueError where the two could not be compared."""
    if any(prompt.images for prompt in prompts) and base.encoder.processor is None:
        raise ValueError(
            f"the prompts have images, and the reference {base!r} reads text only: expected a "
            "reference that reads images."
        )
    if same_tokens(own.encoder, base.encoder, own.prompts):
        return own
    if per == "token":
        raise ValueError(
            f"the tokenizer of the reference {base.name!r} reads these texts as other tokens, so scores per token are "
            "no scores of the same thing. Expected a reference with the same tokens (text='raw' where it only lacks "
            "the tokens of the chat template), or per='character' or 'text', which compare the loss alone."
        )
    if form.get("max_length") is not None:
        raise ValueError("a cap in tokens cuts the texts at other places for the reference: expected max_length=None.")
    theirs = Texts(base.encoder, prompts, **form)
    if own.of == "full" and any(own.scored_text(i) != theirs.scored_text(i) for i in range(len(prompts))):
        raise ValueError(
            "the reference's chat template makes other texts of these prompts: expected of='answer' or text='raw'."
        )
    return theirs


def table_row(prompt: Prompt, reads: Sequence[Read], *, same: bool) -> dict[str, Any]:
    """One row: what the model says, what the reference says, and the differences. `same`: both read the same tokens."""
    own = reads[0]
    row = {**own.facts, **own.scores, **(_compared(own, reads[1], same) if len(reads) > 1 else {})}
    facts: Mapping[str, Any] = prompt_facts(prompt)  # a tag that is called like a column of ours stands beside it
    return {**{f"prompt_{name}" if name in row else name: value for name, value in facts.items()}, **row}


def _compared(own: Read, other: Read, same: bool) -> Scores:
    out: Scores = {}
    for name, score in own.scores.items():
        if name.startswith(scores.PAPER_B) or not (same or name == "loss"):
            continue
        theirs = other.scores[name]
        out[f"reference_{name}"] = theirs
        out[f"adjusted_{name}"] = None if score is None or theirs is None else score - theirs
    out["log_ratio"] = own.log_p - other.log_p
    out["loss_ratio"] = other.loss / own.loss if own.loss > 0 else None
    return out
