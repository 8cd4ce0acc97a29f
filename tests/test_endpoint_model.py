"""The evaluated model behind a server: it answers under shared seeds, and refuses what needs its weights."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openai_server import Body, Instant, OpenAIServer, completion, text_of

from hooks.prompt import Message, Prompt
from workbench.behaviour.endpoint_model import EndpointModel, NeedsWeights, endpoint

HOW: dict[str, Any] = dict(max_new_tokens=20, temperature=0.7, top_p=0.9)


def prompt(text: str, *pictures: Path) -> Prompt:
    turns = (("system", "Answer like a pirate."), ("user", "hi"), ("assistant", "ahoy"))
    return Prompt(text, (*(Message(role, (said,)) for role, said in turns), Message("user", (*pictures, text))))


def echo(body: Body) -> Body:
    return completion(f"{text_of(body)} {body['seed']}", model="tiny-tuned")


def model_at(at: OpenAIServer, folder: Path, **more: Any) -> EndpointModel:
    settings = dict(base_url=at.address, cache=folder / "replies.jsonl", timing=Instant().timing(), progress=False)
    return endpoint("openai:tiny", **{**settings, **more})


def test_each_observation_has_its_seed_its_system_text_and_its_images(picture: Path, tmp_path: Path):
    requests = [(prompt("one"), 11), (prompt("one"), 2**47), (prompt("two", picture), 13)]
    with OpenAIServer(echo) as server:
        found = model_at(server, tmp_path).answers(requests, **HOW)
        again = model_at(server, tmp_path).answers(requests, **HOW)
        assert sum(server.asked.values()) == 3 and again == found
    assert [one.text for one in found] == ["one 11", f"one {2**47}", "two 13"]
    assert all(one.finished and not one.reason and not one.missing and one.model == "tiny-tuned" for one in found)
    body = next(body for body in server.bodies if body["seed"] == 13)
    assert [turn["role"] for turn in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["messages"][0]["content"] == "Answer like a pirate."
    url = body["messages"][3]["content"][0]["image_url"]["url"]
    assert base64.b64decode(url.split(",")[1]) == picture.read_bytes()
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["model"]) == (0.7, 0.9, 20, "tiny")
    assert "top_k" not in body and "repetition_penalty" not in body


@pytest.mark.parametrize(
    ("reply", "text", "why"),
    [
        (completion("It is", finish="length"), "It is", "cut off at 20 tokens"),
        (completion("", finish="content_filter"), "", "content filter"),
        (completion(""), "", ""),
        ("400", "", "refused (400)"),
        ("500", "", "refused (500)"),
    ],
)
def test_an_answer_that_is_cut_off_or_missing_says_so(reply: Any, text: str, why: str, tmp_path: Path):
    with OpenAIServer(echo, {"bad": [reply] * 9}) as server:
        bad, good = model_at(server, tmp_path, tries=2).answers([(prompt("bad"), 1), (prompt("good"), 1)], **HOW)
    assert good.text == "good 1" and good.finished
    assert bad.text == text and why in bad.reason and bad.finished == (why == "")
    assert bad.missing == isinstance(reply, str) and bad.temporary == (reply == "500")


def test_declining_is_an_answer(tmp_path: Path):
    declined = completion("")
    declined["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I will not."}
    with OpenAIServer(lambda body: declined) as server:
        (answer,) = model_at(server, tmp_path).answers([(prompt("bad"), 1)], **HOW)
    assert answer.text == "I will not." and answer.finished


def test_sampling_that_a_server_may_drop_is_refused_unless_it_takes_it(tmp_path: Path):
    with OpenAIServer(echo) as server:
        for field, value in (("top_k", 50), ("repetition_penalty", 1.1)):
            with pytest.raises(ValueError, match=field):
                model_at(server, tmp_path).answers([(prompt("one"), 1)], **HOW, **{field: value})
        own = model_at(server, tmp_path, takes=("top_k", "repetition_penalty"))
        own.answers([(prompt("one"), 1)], **HOW, top_k=50, repetition_penalty=1.1)
        own.answers([(prompt("one"), 1)], **HOW, top_k=0, repetition_penalty=1.0)
    assert [body.get("top_k") for body in server.bodies] == [50, None]
    assert [body.get("repetition_penalty") for body in server.bodies] == [1.1, None]


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (Prompt("raw", text="Once upon"), "raw text needs the weights"),
        (Prompt("begun", (Message("user", ("hi",)),), prefill="Sure"), "prefill"),
    ],
)
def test_prompts_that_no_endpoint_can_be_given_are_refused_before_anything_is_sent(
    refused: Prompt, why: str, tmp_path: Path
):
    with OpenAIServer(echo) as server:
        with pytest.raises(ValueError, match=why):
            model_at(server, tmp_path).answers([(prompt("one"), 1), (refused, 1)], **HOW)
        assert not server.asked


def test_what_needs_the_weights_is_refused_with_a_reason():
    model = EndpointModel("openai:tiny", cache=None)
    for name in ("run", "encode", "generate", "n_layers", "module", "variant", "log_probs"):
        with pytest.raises(NeedsWeights, match=r"no .*capture, edits and log-probabilities need the model's weights"):
            getattr(model, name)
        assert not hasattr(model, name)


def test_capturing_from_an_endpoint_says_what_it_needs(tmp_path: Path):
    """In a process of its own: here, the tests' check of types would answer first."""
    script = (
        "import sys, workbench as wb; from hooks.prompt import Message, Prompt\n"
        "from workbench.behaviour.endpoint_model import EndpointModel\n"
        "model, asked = EndpointModel('openai:tiny', cache=None), [Prompt('a', (Message('user', ('hi',)),))]\n"
        "for call in (lambda: wb.capture(model, asked, to=sys.argv[1]), lambda: wb.generate(model, asked)):\n"
        "    try: call()\n"
        "    except ValueError as error: print(type(error).__name__, error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "s")], capture_output=True, text=True, timeout=120
    )
    assert run.stdout.count("NeedsWeights openai:tiny is an endpoint") == 2, run.stdout + run.stderr
    assert not (tmp_path / "s").exists()


def test_its_identity_and_its_name():
    one = EndpointModel("openai:tiny", cache=None, base_url="http://localhost:8000/v1")
    assert one.name == "openai:tiny" and one.identity["server"] == "localhost:8000/v1"
    moved = EndpointModel("tiny", cache=None, base_url="http://localhost:9000/v1", server="mine")
    assert moved.name == "openai:tiny" and moved.identity["server"] == "mine"
    for name in ("tiny", "openai:", "hf:tiny"):
        with pytest.raises(ValueError, match="openai:NAME"):
            endpoint(name)
