"""EncodedPrompts: the same readings whether their pixels are kept or read again, and a bound that holds."""

import pytest
import torch
from conftest import chat

from hooks.encoded_prompts import EncodedPrompts
from hooks.prompt import PromptError
from workbench.interventions.generate import generate


@pytest.fixture
def prompts(picture):
    return [chat("a", picture, "what"), chat("b", "no picture"), chat("c", "see ", picture, " and ", picture)]


@pytest.mark.parametrize("limit", [0, 4 * 3 * 32 * 32, 2**30])
def test_what_is_read_again_is_what_was_read_first(gemma3, prompts, limit):
    encoded = EncodedPrompts(gemma3.encoder, prompts, limit)
    assert encoded.pixel_bytes <= limit and len(encoded) == 3
    whole = [gemma3.encoder.encode(prompt) for prompt in prompts]
    assert encoded.lengths == [len(one) for one in whole]
    kept = sum(bool(one.images) for one in encoded._kept)
    assert kept == {0: 0, 4 * 3 * 32 * 32: 1, 2**30: 2}[limit], "float32 pixels of one 32 x 32 image are 12 KiB"
    for one, other in zip(encoded.taken([2, 0, 1]), [whole[2], whole[0], whole[1]], strict=True):
        assert torch.equal(one.input_ids, other.input_ids) and one.images.keys() == other.images.keys()
        assert all(torch.equal(one.images[name], other.images[name]) for name in other.images)


def test_a_picture_that_cannot_be_read_is_refused_before_any_work(gemma3, prompts, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(PromptError, match=r"broken\.png cannot be read"):
        EncodedPrompts(gemma3.encoder, [*prompts, chat("d", broken, "what")], limit=0)


def test_answers_do_not_depend_on_what_is_kept(gemma3, prompts, monkeypatch):
    plenty = [one.text for one in generate(gemma3, prompts, max_new_tokens=4)]
    monkeypatch.setattr(EncodedPrompts.__init__, "__defaults__", (0,))
    assert [one.text for one in generate(gemma3, prompts, max_new_tokens=4)] == plenty
