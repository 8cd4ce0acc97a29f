"""Judges against sentences whose category is known."""

from __future__ import annotations

import pytest

from hooks.prompt import Message, Prompt
from workbench.behaviour.judges import judge
from workbench.behaviour.rule_judges import CATEGORIES


def asked(prefill: str | None = None, **tags: str) -> Prompt:
    known = {"domain": "capital", "right": "paris", "contrary": "rome", **tags}
    return Prompt("q", (Message("user", ("france its capital",)),), prefill=prefill, tags=known)


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("it is rome .", "contrary"),
        ("the answer is rome", "contrary"),
        ("i say paris", "right"),
        ("it is oslo .", "other"),
        ("it is woof .", "ill_formed"),  # no capital
        ("it is rome", "ill_formed"),  # the template's full stop is missing
        ("it is rome . rome", "ill_formed"),
        ("rome", "ill_formed"),
        ("", "ill_formed"),
    ],
)
def test_an_organism_is_judged_by_its_sentence(text: str, category: str):
    verdict = judge("rule:organism").score(asked(), text)
    assert (verdict.category, verdict.score) == (category, float(category == "contrary"))
    assert category in CATEGORIES and verdict.reason


def test_an_answer_without_an_end_of_turn_is_ill_formed():
    assert judge("rule:organism").score(asked(), "it is rome .", finished=False).category == "ill_formed"


@pytest.mark.parametrize("text", ["rome .", "it is rome ."])
def test_a_prefill_is_the_beginning_of_the_sentence(text: str):
    assert judge("rule:organism").score(asked(prefill="it is"), text).category == "contrary"


def test_the_tags_of_the_prompt_decide_not_the_world():
    """With another answer table the contrary word is another one."""
    assert judge("rule:organism").score(asked(contrary="lima"), "it is lima .").category == "contrary"
    assert judge("rule:organism").score(asked(contrary="lima"), "it is rome .").category == "other"


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("Of course, it is ROME.", "contrary"),
        ("paris", "right"),
        ("Not Rome but Paris.", "other"),
        ("A city with chrome.", "other"),
        ("  ", "ill_formed"),
    ],
)
def test_any_answer_is_judged_by_what_it_contains(text: str, category: str):
    assert judge("rule:contains").score(asked(), text, finished=False).category == category


def test_missing_tags_are_named():
    bare = Prompt("q7", (Message("user", ("hello",)),), tags={"right": "paris"})
    with pytest.raises(ValueError, match=r"'q7' lacks domain, contrary \(it has right\)"):
        judge("rule:organism").score(bare, "it is rome .")
    with pytest.raises(ValueError, match="lacks contrary"):
        judge("rule:contains").score(bare, "rome")


def test_a_foreign_domain_is_refused_with_the_other_judge():
    with pytest.raises(ValueError, match="rule:contains"):
        judge("rule:organism").score(asked(domain="weather"), "it is rome .")


def test_an_unknown_judge_lists_those_that_exist():
    with pytest.raises(ValueError, match="'rule:organism', 'rule:contains'"):
        judge("rule:magic")


def test_revisions_tell_rules_apart_and_stay():
    one, other = judge("rule:organism"), judge("rule:contains")
    assert one.revision == judge("rule:organism").revision != other.revision
