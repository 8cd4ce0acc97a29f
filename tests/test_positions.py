"""Scopes: each against what a person would mark by hand, on both padding sides, whole and step by step."""

import re

import pytest
import torch
from conftest import chat

from hooks.positions import SCOPES, Tokens, checked_scope, scope_name
from hooks.prompt import Prompt

IMAGE = "\n\n<boi><img><img><img><img><eoi>\n\n"  # what the processor makes of one picture


@pytest.fixture(scope="module")
def rows(picture) -> dict[str, Prompt]:
    return {
        "plain": chat("plain", "hi"),
        "full": chat("full", "hi you", prefill="ok", response="yes"),
        "picture": chat("picture", "a ", picture, " b", response="no"),
        "raw": Prompt("raw", text="raw text"),
    }


# The tokens of each scope, as text; a token is a byte, so the texts can be read off the prompt.
BY_HAND = {
    "plain": {
        "prompt": "<bos><turn>user:hi<end><turn>assistant:",
        "last": ":",
        "post_instruction": "<end><turn>assistant:",
        "response": "",
        "answering": ":",
        "image": "",
        "text": "<bos><turn>user:hi<end><turn>assistant:",
        "text_after_image": "",
        "all": "<bos><turn>user:hi<end><turn>assistant:",
        3: "s",
        "re:^[st]$": "sssstt",
        "re:turn": "<turn><turn>",
    },
    "full": {
        "prompt": "<bos><turn>user:hi you<end><turn>assistant:ok",
        "last": "k",
        "post_instruction": "<end><turn>assistant:ok",
        "response": "yes",
        "answering": "kye",
        "image": "",
        "text": "<bos><turn>user:hi you<end><turn>assistant:okyes",
        "text_after_image": "",
        "all": "<bos><turn>user:hi you<end><turn>assistant:okyes",
        0: "<bos>",
        "re:y": "yy",
    },
    "picture": {
        "prompt": f"<bos><turn>user:a {IMAGE} b<end><turn>assistant:",
        "last": ":",
        "post_instruction": "<end><turn>assistant:",
        "response": "no",
        "answering": ":n",
        "image": "<img><img><img><img>",
        "text": f"<bos><turn>user:a {IMAGE} b<end><turn>assistant:no".replace("<img>", ""),
        "text_after_image": "<eoi>\n\n b<end><turn>assistant:no",
        "all": f"<bos><turn>user:a {IMAGE} b<end><turn>assistant:no",
        9: "\n",
        "re:img|boi": "<boi><img><img><img><img>",
    },
    "raw": {
        "prompt": "raw text",
        "last": "t",
        "post_instruction": "",
        "response": "",
        "answering": "t",
        "all": "raw text",
        99: "",
        "re:[aeiou]": "ae",
    },
}
CASES = [(name, scope) for name, scopes in BY_HAND.items() for scope in scopes]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("name", "scope"), CASES, ids=[f"{name}-{scope}" for name, scope in CASES])
def test_a_scope_marks_what_a_person_would_mark(gemma3, rows, name, scope, side):
    encoder = gemma3.encoder
    batch = encoder.collate([encoder.encode(prompt) for prompt in rows.values()], side)
    row = list(rows).index(name)
    mask = batch.tokens.mask(scope)[row]
    assert encoder.tokenizer.decode(batch.inputs["input_ids"][row][mask]) == BY_HAND[name][scope]
    assert not mask[batch.tokens.position[row] < 0].any(), "a pad is in no scope"


def test_every_scope_has_an_expectation_by_hand():
    assert set(SCOPES) <= {scope for scopes in BY_HAND.values() for scope in scopes}


def test_positions_of_the_table(gemma3, rows):
    """The table of the module's docstring, in numbers, for one prompt with p = 28 and r = 3."""
    one = gemma3.encoder.encode(rows["full"])
    p, r = one.prompt_length, one.response_length
    tokens = gemma3.encoder.collate([one]).tokens
    at = {scope: tokens.mask(scope)[0].nonzero().flatten().tolist() for scope in SCOPES}
    assert at["prompt"] == list(range(p))
    assert at["last"] == [p - 1]
    assert at["response"] == list(range(p, p + r))
    assert at["answering"] == list(range(p - 1, p + r - 1))
    assert at["post_instruction"] == list(range(one.instruction_end, p))


@pytest.mark.parametrize("scope", [*SCOPES, 3, 30, "re:[aeiou]"])
def test_pitfall_07_step_by_step_equals_the_whole_sequence(gemma3, rows, scope):
    """What a scope marks while a response is being written is what it marks on the same tokens in one piece."""
    encoder = gemma3.encoder
    open_ended = [encoder.encode(rows["plain"]), encoder.encode(rows["raw"])]
    batch = encoder.collate(open_ended, "left")
    tokens, written = batch.tokens, torch.tensor([[40, 80, 90], [70, 85, 75]])
    pieces = [[tokens.mask(scope)[row][tokens.position[row] >= 0]] for row in range(2)]
    for n in range(3):
        tokens = tokens.step(written[:, n : n + 1], tokens.prompt_length[:, None] + n)
        for row in range(2):
            pieces[row].append(tokens.mask(scope)[row])
    for row, one in enumerate(open_ended):
        whole = encoder.collate([one.extended(written[row].tolist())]).tokens.mask(scope)[0]
        assert torch.cat(pieces[row]).tolist() == whole.tolist()


@pytest.mark.parametrize("scope", ["all", "response", "answering", "text", "re:.", 30])
def test_a_finished_row_is_in_no_scope(gemma3, rows, scope):
    batch = gemma3.encode([rows["plain"], rows["plain"]])
    assert batch.tokens.prompt_length[0] < 30
    step = batch.tokens.step(torch.tensor([[50], [50]]), torch.tensor([[30], [-1]]))
    assert step.mask(scope).tolist() == [[True], [False]]


def test_inside_the_vision_tower_only_image_and_all_have_meaning():
    tokens = Tokens.of_patches(2, 5, torch.device("cpu"), owner=[0, 3])
    assert tokens.mask("image").all() and tokens.mask("all").all() and tokens.mask("all").shape == (2, 5)
    for scope in {*SCOPES, 0, "re:a"} - {"image", "all"}:
        with pytest.raises(ValueError, match="has no meaning inside the vision tower: expected 'image' or 'all'"):
            tokens.mask(scope)


@pytest.mark.parametrize("scope", ["first", "", "Last", True])
def test_an_unknown_scope_is_refused_with_the_list(scope):
    with pytest.raises(ValueError, match=r"expected one of prompt, last, .*, an int, or a regex"):
        checked_scope(scope)


def test_a_negative_position_is_refused(gemma3, rows):
    with pytest.raises(ValueError, match=r"position -1 is negative: .*the scope 'last'"):
        gemma3.encode([rows["plain"]]).tokens.mask(-1)


@pytest.mark.parametrize("scope", [*SCOPES, "re:^the$"])
def test_the_name_of_a_scope_reads_back(scope):
    assert checked_scope(scope_name(checked_scope(scope))) == checked_scope(scope)
    assert scope_name(re.compile("^the$")) == "re:^the$"


def test_a_regex_needs_the_tokenizers_texts(gemma3, rows):
    from dataclasses import replace

    tokens = replace(gemma3.encode([rows["plain"]]).tokens, text_of=None)
    with pytest.raises(ValueError, match="needs the tokenizer's texts"):
        tokens.mask("re:a")
