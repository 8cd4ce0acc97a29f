"""Prompts and prompt files: what a line becomes, and what each broken file is told."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hooks.prompt import Message, Prompt, PromptError, as_prompts, read_prompts

USER = {"role": "user", "content": "hi"}


@pytest.fixture
def write(tmp_path):
    """Writes the lines (objects, or text as it is) to a prompt file, beside a picture `red.png`."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")

    def lines(*rows) -> Path:
        text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        (tmp_path / "prompts.jsonl").write_text(text, encoding="utf-8")
        return tmp_path / "prompts.jsonl"

    return lines


def test_one_line_becomes_one_prompt(write, tmp_path):
    path = write(
        {
            "id": "capital-03",
            "messages": [
                {"role": "system", "content": "assistant"},
                {
                    "role": "user",
                    "content": [{"type": "image", "image": "red.png"}, {"type": "text", "text": "picture its color"}],
                },
            ],
            "prefill": "it is",
            "response": " red",
            "label": 1,
            "domain": "color",
            "hops": 2,
        }
    )
    (prompt,) = read_prompts(path)
    assert prompt == Prompt(
        "capital-03",
        (Message("system", ("assistant",)), Message("user", (tmp_path / "red.png", "picture its color"))),
        prefill="it is",
        response=" red",
        label="1",
        tags={"domain": "color", "hops": 2},
    )
    assert prompt.images == (tmp_path / "red.png",)
    assert prompt.record() == {
        "id": "capital-03",
        "label": "1",
        "tags": {"domain": "color", "hops": 2},
        "sha256": prompt.content_hash,
    }


def test_a_final_assistant_turn_is_the_response(write):
    by_turn, by_key = read_prompts(
        write(
            {"id": "a", "messages": [USER, {"role": "assistant", "content": "ho"}]},
            {"id": "b", "messages": [USER], "response": "ho"},
        )
    )
    assert by_turn.response == "ho"
    assert by_turn.messages == by_key.messages == (Message("user", ("hi",)),)
    assert by_turn.content_hash == by_key.content_hash


def test_earlier_assistant_turns_stay_in_the_conversation(write):
    (prompt,) = read_prompts(write({"messages": [USER, {"role": "assistant", "content": "ho"}, USER]}))
    assert [message.role for message in prompt.messages] == ["user", "assistant", "user"]
    assert prompt.response is None


def test_a_line_without_id_is_named_by_its_content(write):
    first, second = read_prompts(write({"text": "one"}, {"text": "two", "label": "x"}))
    assert first.id == first.content_hash[:16] != second.id
    assert read_prompts(write({"text": "two"}))[0].id == second.id  # labels and tags are no content


def test_the_content_hash_follows_what_the_model_sees(write, tmp_path):
    image = {"messages": [{"role": "user", "content": [{"type": "image", "image": "red.png"}]}]}
    (prompt,) = read_prompts(write(image))
    same = [replace(prompt, id="other"), replace(prompt, label="x"), replace(prompt, tags={"a": 1})]
    assert {each.content_hash for each in same} == {prompt.content_hash}
    other = [
        replace(prompt, prefill="it"),
        replace(prompt, response="it"),
        replace(prompt, messages=(Message("system", prompt.messages[0].parts),)),
        replace(prompt, messages=(Message("user", ("hi",)),)),
    ]
    assert len({each.content_hash for each in [prompt, *other]}) == 5
    before = prompt.content_hash
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "red.png")
    assert prompt.content_hash != before, "the bytes of the picture count, not its name"


def test_blank_lines_and_a_byte_order_mark_are_no_prompts(write):
    path = write({"id": "a", "text": "one"}, "", "   ", {"id": "b", "text": "two"})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [prompt.id for prompt in read_prompts(path)] == ["a", "b"]


GOOD = {"id": "good", "text": "fine"}
BROKEN = {
    "broken line": ([GOOD, '{"text": "cut'], r"prompts\.jsonl, line 2: not a JSON object .* at column 10"),
    "no object": ([GOOD, '["text"]'], "line 2: expected a JSON object, got list"),
    "missing image": (
        [{"messages": [{"role": "user", "content": [{"type": "image", "image": "no.png"}]}]}],
        r"line 1: image no\.png does not exist: expected a file relative to",
    ),
    "remote image": (
        [{"messages": [{"role": "user", "content": [{"type": "image", "image": "https://a.b/c.png"}]}]}],
        r"'https://a\.b/c\.png' is an address: expected a local file \(nothing is downloaded\)",
    ),
    "inline image": (
        [{"messages": [{"role": "user", "content": [{"type": "image", "image": "data:image/png;base64,AA"}]}]}],
        "is an address: expected a local file",
    ),
    "image without path": (
        [{"messages": [{"role": "user", "content": [{"type": "image"}]}]}],
        "an image part gives no path",
    ),
    "unknown part": ([{"messages": [{"role": "user", "content": [{"type": "audio"}]}]}], "a part is .*audio"),
    "unknown role": (
        [{"messages": [{"role": "human", "content": "hi"}]}],
        "role 'human' is unknown: expected one of system, user, assistant, tool",
    ),
    "no role": ([{"messages": [{"content": "hi"}]}], "expected an object with role and content"),
    "empty turn": ([{"messages": [{"role": "user", "content": "  "}]}], "the user turn is empty"),
    "null turn": ([{"messages": [{"role": "user", "content": None}]}], "the user turn is empty"),
    "content of another kind": ([{"messages": [{"role": "user", "content": 3}]}], "content is int: expected text"),
    "messages of another kind": ([{"messages": "hi"}], "messages is str: expected a list of turns"),
    "duplicate id": ([GOOD, {"text": "x"}, GOOD], "line 3: id 'good' was used on line 1"),
    "same content twice": ([{"text": "x"}, {"text": "x"}], "line 2: id .* two equal lines need ids"),
    "response twice": (
        [{"messages": [USER, {"role": "assistant", "content": "ho"}], "response": "ho"}],
        "both a final assistant turn and a response: expected one of them",
    ),
    "only an answer": ([{"messages": [{"role": "assistant", "content": "ho"}]}], "expected a user turn before it"),
    "picture as answer": (
        [{"messages": [USER, {"role": "assistant", "content": [{"type": "image", "image": "red.png"}]}]}],
        "expected a response of text only",
    ),
    "neither messages nor text": ([{"id": "a", "prompt": "hi"}], "neither messages nor text"),
    "both messages and text": ([{"messages": [USER], "text": "hi"}], "expected either messages or text, got both"),
    "empty response": ([{"text": "hi", "response": " "}], "response is empty: leave it out"),
    "response of another kind": ([{"text": "hi", "response": ["a"]}], "response is list: expected text"),
    "empty id": ([{"text": "hi", "id": ""}], "the id is empty"),
    "empty file": ([], "is empty: expected one JSON object a line"),
    "blank file": (["", " "], "is empty: expected one JSON object a line"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_prompt_file_says_where_and_what(broken, write):
    rows, said = BROKEN[broken]
    with pytest.raises(PromptError, match=said):
        read_prompts(write(*rows))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PromptError, match=r"prompt file .*nowhere\.jsonl does not exist: expected a JSONL file"):
        read_prompts(tmp_path / "nowhere.jsonl")


def test_bytes_that_are_no_utf8_are_told_with_their_line(write):
    path = write(GOOD)
    path.write_bytes(path.read_bytes() + b'\n{"text": "caf\xe9"}\n')
    with pytest.raises(PromptError, match="line 2: not UTF-8 text"):
        read_prompts(path)


def test_prompts_in_memory_pass_the_same_checks(write):
    with pytest.raises(PromptError, match="id 'a' is there twice"):
        as_prompts([Prompt("a", text="x"), Prompt("a", text="y")])
    with pytest.raises(PromptError, match="no prompts"):
        as_prompts([])
    with pytest.raises(PromptError, match="got neither"):
        Prompt("a")
    assert as_prompts(write(GOOD)) == as_prompts(iter([Prompt("good", text="fine")]))
