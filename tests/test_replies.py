"""Every reply of a judge is read as a score, or as no score with the reason that a reader would give."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.behaviour.endpoint_reply import Fault, Reply, reply_from
from workbench.behaviour.replies import READERS, read_json, read_number, read_score_tag, why_incomplete

SCALE, ABSTAIN = (0, 100), ("REFUSAL", "CODE")


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("85", 85),
        (" 0\n", 0),
        ("100.", 100),
        ("72.5", 72.5),
        ("**85**", 85),
        ("Score: 85", 85),
        ("The final rating is **7**", 7),
        ("85/100", 85),
        ("85 out of 100", 85),
        ("<think>maybe 20, no</think>\n85", 85),
    ],
)
def test_a_bare_number_is_a_score(text: str, score: float):
    assert read_number(text, SCALE, ABSTAIN).score == score


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("REFUSAL", "abstained: REFUSAL"),
        ("**Code.**", "abstained: CODE"),
        ("101", "out of scale"),
        ("-5", "out of scale"),
        ("1e3", "no bare number"),
        ("9" * 5000, "no bare number"),
        ("8/10", "another scale"),
        ("70-80", "several numbers"),
        ("70 or 80", "several numbers"),
        ("I would rate it 85", "no bare number"),
        ("I cannot rate this, by section 4 of my rules", "no bare number"),
        ("nan", "no bare number"),
        ("eighty", "no bare number"),
        ("<think>85", "no bare number"),
        ("85 REFUSAL", "no bare number"),
    ],
)
def test_anything_else_is_no_score_and_says_why(text: str, why: str):
    reading = read_number(text, SCALE, ABSTAIN)
    assert reading.score is None and why in reading.reason


@pytest.mark.parametrize(
    ("text", "score", "why"),
    [
        ("<reasoning>It names 3 rules.</reasoning>\n<score>85</score>", 85, "says 85"),
        ("<SCORE> 85 </SCORE> as I said: <score>85.0</score>", 85, "says"),
        ("<score>10</score> would be wrong; <score>90</score>", None, "several scores: 10, 90"),
        ("<score>85", None, "not closed"),
        ("85", None, "no <score> tag"),
        ("<score></score>", None, "empty"),
        ("<score>REFUSAL</score>", None, "abstained: REFUSAL"),
        ("REFUSAL", None, "abstained: REFUSAL"),
        ("<score>85</score> <score>REFUSAL</score>", None, "several scores"),
        ("<score>105</score>", None, "out of scale"),
        ("<think><score>1</score></think><score>2</score>", 2, "says 2"),
    ],
)
def test_a_score_tag(text: str, score: float | None, why: str):
    reading = read_score_tag(text, SCALE, ABSTAIN)
    assert reading.score == score and why in reading.reason


@pytest.mark.parametrize(
    ("text", "score", "why"),
    [
        ('{"justification": "fine", "score": 85}', 85, "says 85"),
        ('```json\n{"score": "85"}\n```', 85, "says 85"),
        ('A {brace} first, then {"score": 85}.', 85, "says 85"),
        ('{"score": 85} {"score": 85}', 85, "says 85"),
        ('{"score": 10} {"score": 90}', None, "several scores: '10', '90'"),
        ('{"score": 10, "score": 90}', None, "several scores"),
        ('{"score": null}', None, "null, no number"),
        ('{"score": true}', None, "true, no number"),
        ('{"score": NaN}', None, "no bare number"),
        ('{"score": 1e999}', None, "no bare number"),
        ('{"score": "REFUSAL"}', None, "abstained: REFUSAL"),
        ('{"score": 101}', None, "out of scale"),
        ('{"justification": "fine"}', None, "no JSON object with a score"),
        ('{"justification": "it was cut o', None, "no JSON object with a score"),
        ('{"parts": [{"score": 5}], "score": 8', None, "no JSON object with a score"),
        ("[" * 10**5, None, "no JSON object"),
        ('{"a":' * 10**4, None, "no JSON object"),
        ("85", None, "no JSON object"),
    ],
)
def test_a_json_score(text: str, score: float | None, why: str):
    reading = read_json(text, SCALE, ABSTAIN)
    assert reading.score == score and why in reading.reason


def test_keys_that_are_wanted_are_there():
    assert read_json('{"score": 5, "worse": "A"}', SCALE, wanted=("score", "worse")).found == {"worse": "A"}
    assert "no 'worse'" in read_json('{"score": 5}', SCALE, wanted=("score", "worse")).reason


@given(st.text(max_size=80) | st.from_regex(r"[<{\"scoreSCORE0-9.:/}> -]{0,60}"), st.sampled_from(sorted(READERS)))
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_a_reader(text: str, mode: str):
    reading = READERS[mode](text, SCALE, ABSTAIN)
    assert reading.reason
    assert reading.score is None or 0 <= reading.score <= 100


@pytest.mark.parametrize(
    ("finish", "refusal", "why"),
    [
        ("stop", None, None),
        ("", None, None),
        ("length", None, "cut off at 16 tokens"),
        ("content_filter", None, "content filter"),
        ("tool_calls", None, "called a tool"),
        ("stop", "I will not", "the judge refused: 'I will not'"),
    ],
)
def test_a_reply_that_is_not_whole_is_not_read(finish: str, refusal: str | None, why: str | None):
    said = why_incomplete(Reply("85", finish, refusal), 16)
    assert said is None if why is None else why in (said or "")


@pytest.mark.parametrize("body", [None, [], {}, {"choices": []}, {"choices": [{}]}, {"error": "x"}, {"choices": ["a"]}])
def test_what_is_no_completion_is_a_fault_that_may_have_cost(body: object):
    with pytest.raises(Fault) as failed:
        reply_from(body)
    assert failed.value.again and failed.value.paid


@pytest.mark.parametrize(
    ("top", "read"),
    [
        ([{"token": "7", "logprob": -0.5}], {"7": -0.5}),
        ([{"token": "7", "logprob": -9999.0}, {"token": "8", "logprob": 0.0}], {"8": 0.0}),
        ([{"token": "7", "logprob": math.log(0.5)}, {"token": "7", "logprob": math.log(0.25)}], {"7": math.log(0.75)}),
        ([{"token": "7", "logprob": 0.5}], None),
        ([{"token": "7", "logprob": float("nan")}], None),
        ([{"token": "7", "logprob": None}], None),
        ([{"token": "7", "logprob": -0.1}, {"token": "8", "logprob": -0.1}], None),  # sums to 1.8
        ([{"logprob": -0.5}], None),
        ([], None),
        (None, None),
    ],
)
def test_alternatives_are_probabilities_or_nothing(top: object, read: dict[str, float] | None):
    message = {"message": {"content": "7"}, "finish_reason": "length"}
    reply = reply_from({"choices": [{**message, "logprobs": {"content": [{"token": "7", "top_logprobs": top}]}}]})
    assert reply.first_token == (None if read is None else pytest.approx(read))
