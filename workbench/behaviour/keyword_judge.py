"""KeywordJudge: whether an answer has one of some words; no model is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hooks.prompt import Prompt
from workbench.behaviour.judging import OneByOne, Verdict, revision_of
from workbench.behaviour.rule_judges import occurs


@dataclass(frozen=True)
class KeywordJudge(OneByOne):
    """ "keyword" where one of `words` stands in an answer between non-letters, without regard to case, else "none", or
    "empty"; score 1 for a keyword, else 0, so that the mean is the rate. The fact `found` lists them. `measures` names
    the quantity, where several lists are used."""

    words: Iterable[str] = ()
    measures: str = "keyword"
    name: str = "rule:keyword"
    categories: tuple[str, ...] = ("keyword", "none", "empty")

    def __post_init__(self) -> None:
        words = (self.words,) if isinstance(self.words, str) else tuple(self.words)
        if not words or not all(word.strip() for word in words):
            raise ValueError(f"rule:keyword needs words=[...], none of them empty: got {words!r}.")
        object.__setattr__(self, "words", words)

    @property
    def revision(self) -> str:
        return revision_of(self.name, 1, self.measures, list(self.words))

    def score(self, prompt: Prompt, text: str, *, finished: bool = True) -> Verdict:
        if not text.strip():
            return Verdict("empty", 0.0, "empty answer", {"found": []})
        found = [word for word in self.words if occurs(word, text)]
        if found:
            return Verdict("keyword", 1.0, f"contains {', '.join(map(repr, found))}", {"found": found})
        return Verdict("none", 0.0, "contains none of the words", {"found": found})
