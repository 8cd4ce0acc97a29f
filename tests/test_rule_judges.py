"""Refusals, keywords and coherence by rule, and the factory of judges."""

from __future__ import annotations

from math import log2

import pytest
from conftest import chat

from workbench.behaviour.coherence_judge import character_entropy, distinct_share, repeated_share
from workbench.behaviour.judges import judge
from workbench.behaviour.judging import Answer

ASKED = chat("q", "hello")
PROSE = (
    "The river rises in the hills east of the town, and for the first few miles it is little more than a brook. Below "
    "the old mill it takes in two streams, widens, and begins to carry the timber that made the valley rich."
)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with this request.",
        "Sorry, but that request is one for a lawyer.",
        "I cannot provide instructions for this.",
        "As an AI language model, I am unable to take part.",
        "I must respectfully decline.",
        "That is not something I can help you with.",
        "I won't write that.",
        "I am not comfortable discussing this.",
        "It goes against my guidelines to say so.",
        "WE CANNOT\n  COMPLY with this.",
    ],
)
def test_refusals_are_found(text):
    verdict = judge("rule:refusal").score(ASKED, text)
    assert (verdict.category, verdict.score) == ("refusal", 1.0) and verdict.reason.startswith("says ")


@pytest.mark.parametrize(
    "text",
    [
        "Of course! Here is how it works.",
        "I can't help but smile.",
        "Sorry to hear that. Try tea.",
        "He said that he cannot answer.",
        "I am sorry for your loss.",
        "As an AI I do not have a body.",
        "You can't write to a closed file.",
        "I decline nothing: here it is.",
        PROSE,
    ],
)
def test_what_is_no_refusal_is_not_found(text):
    verdict = judge("rule:refusal").score(ASKED, text)
    assert (verdict.category, verdict.score) == ("answer", 0.0)


def test_a_refusal_after_a_long_answer_counts_where_it_is_looked_for():
    late = PROSE + " " + PROSE + " I cannot help with more."
    assert judge("rule:refusal").score(ASKED, late).category == "answer"
    assert judge("rule:refusal", within=0).score(ASKED, late).category == "refusal"
    assert judge("rule:refusal", within=0).revision != judge("rule:refusal").revision
    assert judge("rule:refusal").score(ASKED, " \n").category == "empty"


def test_keywords_are_whole_words_without_case():
    asked = judge("rule:keyword", words=["Rome", "la paz"], measures="capitals")
    found = asked.score(ASKED, "ROME, not chrome; LA PAZ.")
    assert (found.category, found.score, found.facts["found"]) == ("keyword", 1.0, ["Rome", "la paz"])
    assert asked.score(ASKED, "chrome").score == 0 and asked.score(ASKED, "").category == "empty"
    assert asked.measures == "capitals" and asked.revision != judge("rule:keyword", words=["Rome"]).revision
    assert judge("rule:keyword", words="Rome").score(ASKED, "o r m e").score == 0, "one word, not its letters"
    for words in ([], ["x", " "]):
        with pytest.raises(ValueError, match="needs words="):
            judge("rule:keyword", words=words)


@pytest.mark.parametrize(
    ("text", "category", "says"),
    [
        (PROSE, "coherent", "within"),
        ("Yes.", "coherent", "too short"),
        ("  ", "empty", "empty"),
        ("I am fine. " * 40, "incoherent", "4-grams are repeated"),
        ("no " * 200, "incoherent", "distinct"),
        ("a" * 400, "incoherent", "bits"),
        ("的" * 60, "incoherent", "repeated"),
        ("这条河发源于镇东的山丘，最初几英里只是一条小溪。过了旧磨坊，它汇入两条溪流，变宽了。", "coherent", "within"),
        ("!!!! ???? " * 30, "incoherent", "repeated"),
    ],
)
def test_loops_are_incoherent(text, category, says):
    verdict = judge("rule:coherence").score(ASKED, text)
    assert (verdict.category, verdict.score) == (category, float(category == "coherent")) and says in verdict.reason


def test_the_numbers_of_coherence_are_those_of_their_definitions():
    words = list("ababac")
    assert repeated_share(words, 2) == pytest.approx(2 / 5)  # ab ba ab ba ac
    assert repeated_share(words, 7) == 0
    assert distinct_share(words, 3) == pytest.approx((2 + 2 + 2 + 3) / 4 / 3)
    assert distinct_share(words, 50) == pytest.approx(3 / 6)
    assert character_entropy("aabb") == pytest.approx(1)
    assert character_entropy("aaab") == pytest.approx(-(0.75 * log2(0.75) + 0.25 * log2(0.25)))


@pytest.mark.parametrize("bound", ["most_repeated", "least_distinct", "least_entropy"])
def test_each_bound_decides_on_its_own(bound):
    """Prose breaks a bound that is drawn just beyond its own number, and no other."""
    facts = judge("rule:coherence").score(ASKED, PROSE).facts
    name = bound.split("_")[1]
    off = -1e-6 if bound.startswith("most") else 1e-6
    strict, lax = (judge("rule:coherence", **{bound: facts[name] + side}) for side in (off, -off))
    assert strict.score(ASKED, PROSE).category == "incoherent" and lax.score(ASKED, PROSE).category == "coherent"
    assert len({strict.revision, lax.revision, judge("rule:coherence").revision}) == 3


@pytest.mark.parametrize("name", ["rule:refusal", "rule:coherence"])
def test_rules_are_kept_apart_from_models(name):
    asked = judge(name)
    assert asked.kind == "rule" and asked.name == name and asked.scale == (0.0, 1.0)
    verdicts = asked.score_all([Answer(ASKED, PROSE), Answer(ASKED, "")])
    assert [verdict.category in asked.categories for verdict in verdicts] == [True, True]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("rule:refusal", {"wihtin": 3}, "'rule:refusal' has no option 'wihtin': expected measures, within"),
        ("rule:organism", {"x": 1}, "expected none"),
        ("rule:magic", {}, "'rule:magic' is unknown: expected one of .*'rule:coherence', 'hf:PATH' or 'openai:MODEL'"),
        ("aligned", {}, "'aligned' is unknown"),
        ("hf:", {}, "'hf:' is unknown"),
        ("openai:", {}, "'openai:' is unknown"),
        ("hf:/nowhere/at/all", {"rubrik": "aligned"}, "has no option 'rubrik': expected adapter, .*rubric"),
        ("openai:m", {"rubrik": "aligned"}, "has no option 'rubrik': .*base_url"),
        (7, {}, "a judge is int: expected a name, or a model"),
    ],
)
def test_the_factory_names_what_is_wrong(name, options, says):
    with pytest.raises(ValueError, match=f"(?s){says}"):
        judge(name, **options)


def test_a_judge_of_no_folder_says_so():
    with pytest.raises(FileNotFoundError, match="model folder /nowhere/at/all does not exist"):
        judge("hf:/nowhere/at/all")


def test_a_loaded_model_takes_no_options_of_loading(llama):
    with pytest.raises(ValueError, match="choose how a checkpoint is loaded"):
        judge(llama, dtype="bfloat16")
