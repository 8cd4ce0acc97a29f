"""What a judge is: it names itself and its revision, and gives each answer a verdict.

A judge's revision is a hash of everything that its scores depend on (its rule, or its rubric, mode and model), so that
results of two judges are never mixed unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from hooks.prompt import Prompt
from stores.printed import Printed

Kind = Literal["rule", "llm", "reading"]  # a reading is of the model's own probabilities, no judgement of a text
SCORED, UNSCORED = "scored", "unscored"  # the categories of a judge that gives numbers


@dataclass(frozen=True)
class Answer:
    """One answer to judge. `finished` is False when it was cut off before its end of turn; `base` is what the base
    model answered to the same prompt, for judges that compare."""

    prompt: Prompt
    text: str
    finished: bool = True
    base: str | None = None


@dataclass(frozen=True)
class Verdict(Printed):
    """A category, a number and why. The score is None when a judge has no number for an answer (`reason` says why:
    "refused to score", "cut off at 256 tokens", ...); for the rule judges of categories it is 1 when contrary, else 0,
    so that its mean is the rate. `facts` hold what else is worth keeping (the judge's reply, its probability mass)."""

    category: str
    score: float | None
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Judge(Protocol):
    """Judges answers. `measures` is the quantity (a rubric's name: "aligned", "coherent", ...), `scale` its lowest and
    highest score; `kind` keeps rules and language models apart, whose numbers are never mixed."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def measures(self) -> str: ...

    @property
    def scale(self) -> tuple[float, float]: ...

    @property
    def categories(self) -> tuple[str, ...]: ...

    def score(self, prompt: Prompt, text: str, *, finished: bool = True) -> Verdict: ...

    def score_all(self, answers: Sequence[Answer]) -> list[Verdict]:
        """One verdict an answer, in their order; a judge that cannot score one says so in it, and never raises for
        it."""
        ...


class Together:
    """What all judges have in common: texts may come apart from the answers that they are."""

    compares = False  # True for a judge that needs `Answer.base`

    def score_texts(self, prompts: Sequence[Prompt], texts: Sequence[str], finished: Sequence[bool]) -> list[Verdict]:
        """As `score_all`, of answers in parts."""
        return self.score_all([Answer(*parts) for parts in zip(prompts, texts, finished, strict=True)])

    def score_all(self, answers: Sequence[Answer]) -> list[Verdict]:
        raise NotImplementedError


class OneByOne(Together):
    """`score_all` of a judge that looks at one answer at a time."""

    kind: Kind = "rule"
    measures = "category"
    scale = (0.0, 1.0)

    def score_all(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [self.score(one.prompt, one.text, finished=one.finished) for one in answers]

    def score(self, prompt: Prompt, text: str, *, finished: bool = True) -> Verdict:
        raise NotImplementedError


class InBatches(Together):
    """`score` of a judge that is asked about many answers at once."""

    kind: Kind = "llm"
    categories = (SCORED, UNSCORED)

    def score(self, prompt: Prompt, text: str, *, finished: bool = True) -> Verdict:
        return self.score_all([Answer(prompt, text, finished)])[0]


def revision_of(*rule: Any) -> str:
    """16 hex digits of a hash of what a judge's scores depend on, as JSON."""
    return hashlib.sha256(json.dumps(rule, sort_keys=True).encode()).hexdigest()[:16]
