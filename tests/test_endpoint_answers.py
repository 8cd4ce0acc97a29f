"""sample_answers of a model behind an endpoint: the same table, and nothing that needs weights."""

import json

import pytest
from conftest import chat

from hooks.prompt import Message, Prompt
from workbench.behaviour.answering import sample_answers, seed_of
from workbench.behaviour.endpoint_answers import AnswersMissing
from workbench.behaviour.endpoint_model import EndpointAnswer

HOW = {"progress": False, "max_new_tokens": 7, "temperature": 0.5}


class Server:
    """Stands in for an EndpointModel; says what it was asked."""

    name, identity, facts = "openai:served", {"model": "served"}, {"model": {"name": "openai:served"}}

    def __init__(self, broken=()):
        self.asked, self.broken = [], set(broken)

    def answers(self, requests, **how):
        self.asked += [(prompt.id, seed, how) for prompt, seed in requests]
        return [self.one(prompt, seed) for prompt, seed in requests]

    def one(self, prompt, seed):
        if prompt.id in self.broken:
            return EndpointAnswer("", False, "the server was busy", missing=True, temporary=True)
        if prompt.id == "filtered":
            return EndpointAnswer("", False, "content filter", missing=True)
        return EndpointAnswer(f"{prompt.id} {seed}", prompt.id != "long", model="served-2026")


def test_an_endpoint_fills_the_same_table(picture):
    asked = [
        Prompt("a", (Message("system", ("be brief",)), Message("user", ("see ", picture)))),
        chat("long", "hi"),
        chat("filtered", "hi"),
    ]
    server = Server()
    rows = sample_answers(server, asked, samples=2, **HOW).rows()
    assert [(row["prompt"], row["sample"]) for row in rows] == [(p.id, n) for p in asked for n in range(2)]
    assert all(row["condition"] == "openai:served" and row["edited"] is None for row in rows)
    assert rows[0]["text"] == f"a {seed_of(0, 'a', 0)}" and rows[0]["token_ids"] is None
    assert json.loads(str(rows[0]["rendered"])) == [
        {"role": "system", "content": ["be brief"]},
        {"role": "user", "content": ["see ", {"image": picture.name}]},
    ]
    assert [row["finished"] for row in rows] == [True, True, False, False, False, False]
    assert [row["missing"] for row in rows] == [None] * 4 + ["content filter"] * 2
    assert server.asked[1][1:] == (
        seed_of(0, "a", 1),
        {"max_new_tokens": 7, "temperature": 0.5, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0},
    )


def test_an_answer_that_may_still_come_is_waited_for(tmp_path):
    asked = [chat(f"p{n}", "hi") for n in range(70)]
    with pytest.raises(AnswersMissing, match=r"1 of 6 answers .* are missing \(the server was busy\): run it again"):
        sample_answers(Server(broken=["p66"]), asked, to=tmp_path / "t", **HOW)
    server = Server()
    table = sample_answers(server, asked, to=tmp_path / "t", **HOW)
    assert len(server.asked) == 6 and len(table.rows()) == 70, "the first unit was kept"


def test_conditions_need_weights():
    assert sample_answers(Server(), [chat("a", "hi")], conditions=["mine"], **HOW).rows()[0]["condition"] == "mine"
    for conditions in ({"a": "base"}, ["a", "b"]):
        with pytest.raises(ValueError, match="is an endpoint and has no variants"):
            sample_answers(Server(), [chat("a", "hi")], conditions=conditions, **HOW)
