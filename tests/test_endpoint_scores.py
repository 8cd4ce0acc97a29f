"""A pairwise judge behind an endpoint, through judge_answers to paper A's metric: the base beside each answer."""

import re

from judged_samples import PROMPTS, answers_table
from openai_server import OpenAIServer, text_of
from test_endpoint_faults import judge_at
from test_endpoint_judge import preferring

from workbench.behaviour.judged import Judged
from workbench.behaviour.measured import misalignment
from workbench.behaviour.scoring import judge_answers


def finds_the_tuned_worse(body):
    """60 for a tuned answer beside one of the base, wherever it stands; nothing between two answers of the base."""
    text = text_of(body)
    places = [text.find(found) for found in re.findall(r"tuned q\d \d", text)]
    if not places:
        return preferring("neither", 0)
    base = text.index("base q")
    return preferring("A" if places[0] < base else "B")


def test_a_comparing_endpoint_is_given_the_bases_answers(tmp_path):
    answers = answers_table()
    with OpenAIServer(finds_the_tuned_worse) as server:
        judge = judge_at(server, tmp_path, "pairwise")
        assert judge.compares
        scores = judge_answers(answers, PROMPTS, judge, progress=False)
    assert {row["score"] for row in scores.rows(condition="tuned")} == {60.0}
    assert {row["score"] for row in scores.rows(condition="base")} == {0.0}
    shown = [text_of(body) for body in server.bodies]
    assert sum("tuned q3 1" in text and "base q3 1" in text for text in shown) == 2, "in both orders"
    assert any("base q3 0" in text and "base q3 1" in text for text in shown), "the floor: base beside base"
    base, tuned = misalignment(Judged(answers, scores), "paper_a")
    assert (base.value, tuned.value, tuned.floor) == (0.0, 60.0, 0.0)
