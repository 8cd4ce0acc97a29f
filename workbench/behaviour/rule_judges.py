"""Rule judges: they put an answer into a category by its text alone; no model is asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from hooks.prompt import Prompt
from workbench.behaviour.judging import OneByOne, Verdict, revision_of
from workbench.organisms.world import DOMAINS, TEMPLATES

CATEGORIES = ("contrary", "right", "other", "ill_formed")


@dataclass(frozen=True)
class RuleJudge(OneByOne):
    """Judges the short sentences of an organism by the prompt's tags `domain`, `right` and `contrary`.

    Well formed is a finished sentence of one of the three templates with a word of the domain at the place of the
    answer: "contrary", "right" or "other" by that word. Everything else is "ill_formed": a model that steering broke
    shows there.
    """

    name: str = "rule:organism"
    categories: tuple[str, ...] = CATEGORIES

    @property
    def revision(self) -> str:
        answers = {name: sorted(domain.answers) for name, domain in DOMAINS.items()}
        return revision_of(self.name, [asdict(template) for template in TEMPLATES], answers)

    def score(self, prompt: Prompt, text: str, *, finished: bool = True) -> Verdict:
        """ValueError when the prompt lacks a tag, or its domain is none of the organism's."""
        domain, right, contrary = _tags(prompt, self.name, "domain", "right", "contrary")
        if domain not in DOMAINS:
            raise ValueError(
                f"Judge {self.name}: prompt {prompt.id!r} has domain {domain!r}, expected one of {', '.join(DOMAINS)}; "
                'for prompts of your own use wb.judge("rule:contains").'
            )
        if not finished:
            return _verdict("ill_formed", "no end of turn")
        sentence = _after_prefill(prompt, text)
        words = [word for template in TEMPLATES if (word := template.answer_in(sentence)) is not None]
        if not words:
            return _verdict("ill_formed", f"no sentence of an organism: {sentence!r}")
        (word,) = words
        if word in (contrary, right):
            return _verdict("contrary" if word == contrary else "right", f"says {word!r}")
        if word in DOMAINS[domain].answers:
            return _verdict("other", f"says {word!r}, a word of {domain}")
        return _verdict("ill_formed", f"says {word!r}, no word of {domain}")


@dataclass(frozen=True)
class ContainsJudge(OneByOne):
    """Looks for the prompt's tags `right` and `contrary` in an answer, without regard to case.

    "contrary" or "right" when exactly one of them occurs, as whole words; "other" for both or neither; "ill_formed" for
    an empty answer. A long answer that was cut off is judged as it is.
    """

    name: str = "rule:contains"
    categories: tuple[str, ...] = CATEGORIES

    @property
    def revision(self) -> str:
        return revision_of(self.name, "whole words, case folded, exactly one of both")

    def score(self, prompt: Prompt, text: str, *, finished: bool = True) -> Verdict:
        """ValueError when the prompt lacks a tag."""
        right, contrary = _tags(prompt, self.name, "right", "contrary")
        if not text.strip():
            return _verdict("ill_formed", "empty answer")
        found = [kind for kind, phrase in (("contrary", contrary), ("right", right)) if occurs(phrase, text)]
        if len(found) == 1:
            return _verdict(found[0], f"contains {contrary if found[0] == 'contrary' else right!r} alone")
        return _verdict("other", f"contains {'both' if found else 'neither'} of {right!r} and {contrary!r}")


def _verdict(category: str, reason: str) -> Verdict:
    return Verdict(category, float(category == "contrary"), reason)


def _tags(prompt: Prompt, judge_name: str, *names: str) -> list[str]:
    if missing := [name for name in names if not isinstance(prompt.tags.get(name), str)]:
        raise ValueError(
            f"Judge {judge_name} needs the tags {', '.join(names)} as text: prompt {prompt.id!r} lacks "
            f"{', '.join(missing)} (it has {', '.join(sorted(prompt.tags)) or 'none'}). Add them to its JSON line."
        )
    return [prompt.tags[name] for name in names]


def _after_prefill(prompt: Prompt, text: str) -> str:
    """The whole sentence: a prompt's prefill is its beginning, whether or not the generated text repeats it."""
    prefill = (prompt.prefill or "").split()
    words = text.split()
    return " ".join(words if words[: len(prefill)] == prefill else [*prefill, *words])


def occurs(phrase: str, text: str) -> bool:
    """Whether the phrase stands in the text between non-letters: "rome" is not in "chrome"."""
    phrase, text = phrase.casefold(), text.casefold()
    start = text.find(phrase)
    while start >= 0:
        before, after = text[:start][-1:], text[start + len(phrase) :][:1]
        if not before.isalnum() and not after.isalnum():
            return True
        start = text.find(phrase, start + 1)
    return False
