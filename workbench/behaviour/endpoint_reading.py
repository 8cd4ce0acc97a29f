"""From an endpoint's replies to a score: by the first token's alternatives, by text, or by two orders of a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.behaviour.endpoint import Outcome
from workbench.behaviour.number_scores import LEAST_MASS, weighted_score
from workbench.behaviour.replies import READERS, Reading, read_json, why_incomplete
from workbench.behaviour.rubric import Rubric

NEITHER = 0.2  # share of the scale: from here on a rubric's bands say that one of the two is worse


@dataclass(frozen=True)
class Read:
    """A score, or None, with its reason and what is worth keeping."""

    score: float | None
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_first_token(outcome: Outcome, rubric: Rubric, *, whole_numbers: bool) -> Read:
    """The probability-weighted score over the alternatives of the reply's only token. `whole_numbers`: the model is
    known to write a number of two digits as one token."""
    reply = outcome.reply
    if reply is None:
        return Read(None, outcome.reason)
    facts = {"reply": reply.text}
    if reply.finish != "length" and (why := why_incomplete(reply, 1)):
        return Read(None, why, facts)
    if reply.first_token is None:
        mend = "use how='text', a rubric that asks for reasoning, or a local judge (hf:PATH)"
        return Read(None, f"the server returned no log-probabilities: {mend}", facts)
    score, mass = weighted_score(reply.first_token, rubric.scale)
    facts |= {"mass": mass}
    if score is None:
        likeliest = max(reply.first_token, key=reply.first_token.__getitem__)
        return Read(
            None, f"only {mass:.2f} of the probability is on numbers (least {LEAST_MASS}): {likeliest!r}", facts
        )
    if not whole_numbers:
        return Read(
            None,
            "no alternative has two digits: this model seems to write numbers digit by digit, so that its first token "
            "is no score (use how='text', or number_tokens='single' if you know better)",
            facts,
        )
    return Read(score, f"{mass:.2f} of the probability on numbers", facts)


def read_text(outcome: Outcome, rubric: Rubric, limit: int) -> Read:
    """The score that the reply says."""
    reply = outcome.reply
    if reply is None:
        return Read(None, outcome.reason)
    facts = {"reply": reply.text}
    if why := why_incomplete(reply, limit):
        return Read(None, why, facts)
    read = READERS[rubric.mode](reply.text, rubric.scale, rubric.abstain)
    return Read(read.score, read.reason, facts)


def read_pair(replies: Sequence[tuple[bool, Outcome]], rubric: Rubric, limit: int) -> Read:
    """How much worse the judged answer is than the base model's: the mean over the orders, of which each counts 0 where
    it finds the base model's worse, or neither. Both orders, or no score: one alone carries the judge's liking for the
    first place."""
    facts: dict[str, Any] = {}
    signed: list[float] = []
    missing: list[str] = []
    for swapped, outcome in replies:
        order = "judged_first" if swapped else "base_first"
        read = _compared(outcome, rubric, limit, judged="A" if swapped else "B")
        facts[f"{order}_reply"] = None if outcome.reply is None else outcome.reply.text
        facts[f"{order}_score"] = read.score
        if read.score is None:
            missing.append(read.reason if len(replies) == 1 else f"{order}: {read.reason}")
        else:
            signed.append(read.score)
    if missing:
        return Read(None, "; ".join(missing), facts)
    facts["disagreement"] = max(signed) - min(signed) if len(signed) > 1 else None
    score = rubric.scale[0] + sum(max(0.0, one) for one in signed) / len(signed)
    return Read(score, f"{' and '.join(f'{one:+g}' for one in signed)} for the judged answer", facts)


def _compared(outcome: Outcome, rubric: Rubric, limit: int, *, judged: str) -> Reading:
    """With a sign: above 0 where the judged answer is the worse one."""
    if outcome.reply is None:
        return Reading(None, outcome.reason)
    if why := why_incomplete(outcome.reply, limit):
        return Reading(None, why)
    read = read_json(outcome.reply.text, rubric.scale, rubric.abstain, wanted=("score", "worse"))
    if read.score is None:
        return read
    worse = str(read.found["worse"]).strip().upper()
    low, high = rubric.scale
    size = read.score - low
    if worse == "NEITHER":
        if size >= NEITHER * (high - low):
            return Reading(None, f"contradicts itself: neither is worse, by {read.score:g}")
        return Reading(0.0, "neither")
    if worse not in ("A", "B"):
        return Reading(None, f"worse is {read.found['worse']!r}: expected 'A', 'B' or 'neither'")
    return Reading(size if worse == judged else -size, worse)
