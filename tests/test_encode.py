"""Encoding: the chat template once, ids by concatenation, spans, images, padding on both sides."""

import pytest
import torch
from conftest import chat
from PIL import Image
from tiny_models import TEMPLATE, byte_tokenizer

from hooks.encode import Encoder
from hooks.positions import OPEN_END
from hooks.prompt import Message, Prompt, PromptError


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(byte_tokenizer())


def with_template(template: str) -> Encoder:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return Encoder(tokenizer)


def shown(encoder: Encoder, ids) -> str:
    return encoder.tokenizer.decode(ids)


def test_the_template_is_applied_once_and_spans_are_counted(encoder):
    one = encoder.encode(chat("a", "hi", prefill="ok", response=" yes"))
    assert shown(encoder, one.input_ids) == "<bos><turn>user:hi<end><turn>assistant:ok yes"
    assert one.prompt_length == 1 + 1 + len("user:hi") + 1 + 1 + len("assistant:ok")
    assert one.instruction_end == 1 + 1 + len("user:hi")
    assert one.response_length == len(" yes")


def test_raw_text_gets_no_template(encoder):
    one = encoder.encode(Prompt("a", text="raw", prefill=" and", response=" so"))
    assert shown(encoder, one.input_ids) == "raw and so"
    assert (one.prompt_length, one.instruction_end, one.response_length) == (7, 7, 3)


@pytest.mark.parametrize("response", ["yes", "end", "e", "n", ">", "user:hi", " padded ", "two\nlines"])
def test_the_ids_are_the_prompts_then_the_responses_then_the_end_of_turn(encoder, response):
    """A response such as "end" occurs inside "<end>" too: the end of turn is found by a mark, not by the answer."""
    prompt = chat("a", "hi", response=response)
    alone = encoder.encode(chat("a", "hi"))
    one, closed = encoder.encode(prompt), encoder.encode(prompt, closed=True)
    assert one.input_ids[: one.prompt_length].tolist() == alone.input_ids.tolist()
    assert shown(encoder, one.input_ids[one.prompt_length :]) == response
    assert shown(encoder, closed.input_ids[len(one) :]) == "<end>"
    assert closed.response_length == one.response_length, "the end of turn is no part of the response"


def test_pitfall_09_ids_are_concatenated_never_retokenised():
    """With a tokenizer that merges across the border, the prompt's ids stay those of the prompt alone."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<eos>", *letters, "ab"])}
    core = Tokenizer(models.BPE(vocabulary, merges=[("a", "b")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoder = Encoder(PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>"))
    whole = encoder.tokenizer("xab")["input_ids"]
    one = encoder.encode(Prompt("a", text="xa", response="b"))
    assert len(whole) == 2, "the meta-test: together the two letters are one token"
    assert one.input_ids.tolist() == [*encoder.encode(Prompt("a", text="xa")).input_ids.tolist(), vocabulary["b"]]
    assert one.prompt_length == 2 and one.response_length == 1


def test_pitfall_09_two_bos_tokens_are_refused(encoder):
    from tokenizers.processors import TemplateProcessing

    encoder.tokenizer._tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    assert encoder.encode(Prompt("raw", text="hi")).input_ids.tolist()[:1] == [2], "raw text gets its BOS"
    assert encoder.encode(chat("chat", "hi")).input_ids.tolist().count(2) == 1, "the template's own BOS is enough"
    with pytest.raises(PromptError, match="'twice' begins with two BOS tokens: expected one"):
        encoder.encode(Prompt("twice", text="<bos>hi"))


def test_pitfall_09_a_dropped_system_turn_is_refused(encoder):
    system = Prompt("s", (Message("system", ("be brief",)), Message("user", ("hi",))))
    assert "system:be brief" in encoder.rendered(system)
    deaf = with_template(TEMPLATE.replace("for m in messages", "for m in messages if m['role'] != 'system'"))
    assert deaf.encode(chat("u", "hi"))
    with pytest.raises(PromptError, match="'s': the chat template drops the system turn 'be brief'"):
        deaf.encode(system)
    repeated = Prompt("r", (Message("system", ("be brief",)), Message("user", ("be brief: hi",))))
    with pytest.raises(PromptError, match="'r': the chat template drops the system turn"):
        deaf.encode(repeated)


def test_a_conversation_needs_a_template():
    bare = with_template("")
    bare.tokenizer.chat_template = None
    with pytest.raises(PromptError, match="has no chat template: expected an instruct model, or prompts with 'text'"):
        bare.encode(chat("a", "hi"))


def test_a_text_model_refuses_images(encoder, picture):
    with pytest.raises(PromptError, match="reads text only: expected an image-text model"):
        encoder.encode(chat("a", picture, "hi"))


def test_a_picture_that_cannot_be_read_is_named(gemma3, tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG no picture")
    with pytest.raises(PromptError, match=r"prompt 'a': image .*torn\.png cannot be read"):
        gemma3.encode([chat("a", tmp_path / "torn.png")])


def test_a_template_that_trims_still_shows_where_the_instruction_ends():
    trims = with_template(TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'] | trim }}"))
    one = trims.encode(chat("a", "  hi  "))
    assert shown(trims, one.input_ids[: one.instruction_end]) == "<bos><turn>user:hi"


def test_the_instruction_ends_at_the_last_user_turn(encoder):
    turns = (Message("user", ("same",)), Message("assistant", ("same",)), Message("user", ("same",)))
    one = encoder.encode(Prompt("a", turns))
    assert shown(encoder, one.input_ids[one.instruction_end :]) == "<end><turn>assistant:"


@pytest.mark.parametrize("order", ["image first", "image in the middle", "image last", "two images"])
def test_an_image_anywhere_leaves_the_spans_right(gemma3, picture, order):
    parts = {
        "image first": (picture, "what?"),
        "image in the middle": ("in ", picture, " what?"),
        "image last": ("what?", picture),
        "two images": (picture, "or", picture, "?"),
    }[order]
    one = gemma3.encoder.encode(chat("a", *parts, response="x"))
    encoder = gemma3.encoder
    assert shown(encoder, one.input_ids[one.instruction_end : one.prompt_length]) == "<end><turn>assistant:"
    soft = int((one.input_ids == 7).sum())
    assert soft == 4 * one.n_images == one.per_token["token_type_ids"].sum()
    assert one.images["pixel_values"].shape == (one.n_images, 3, 32, 32)
    assert len(one.per_token["token_type_ids"]) == len(one)


def test_pitfall_15_image_positions_come_from_the_config(gemma3, picture):
    """Gemma3Processor.image_token_id is the begin-of-image token; the features stand at the config's id."""
    assert gemma3.encoder.processor.image_token_id != gemma3.encoder.image_token_id, "the trap is there"
    batch = gemma3.encode([chat("a", picture, "what?")])
    assert gemma3.encoder.image_token_id == gemma3.module.config.image_token_id == 7
    assert batch.tokens.is_image.sum() == 4
    assert torch.equal(batch.tokens.is_image, batch.inputs["token_type_ids"].bool())


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_are_padded_on_the_side_asked_for(encoder, prompts, side):
    encoded = [encoder.encode(prompt) for prompt in prompts]
    batch = encoder.collate(encoded, side)
    width = max(len(one) for one in encoded)
    for row, one in enumerate(encoded):
        pads = [-1] * (width - len(one))
        real = list(range(len(one)))
        assert batch.tokens.position[row].tolist() == (pads + real if side == "left" else real + pads)
        keep = batch.tokens.position[row] >= 0
        assert batch.inputs["input_ids"][row][keep].tolist() == one.input_ids.tolist()
        assert (batch.inputs["input_ids"][row][~keep] == encoder.pad_id).all()
        assert torch.equal(batch.inputs["attention_mask"][row].bool(), keep)
        assert batch.inputs["input_ids"][row, batch.last_index[row]] == one.input_ids[-1]
    ends = [OPEN_END if prompt.response is None else len(one) for prompt, one in zip(prompts, encoded, strict=True)]
    assert batch.tokens.end.tolist() == ends
    other = "left" if side == "right" else "right"
    assert torch.equal(batch.padded(other).padded(side).inputs["input_ids"], batch.inputs["input_ids"])


def test_rows_can_be_taken_again_and_reordered(gemma3, picture):
    batch = gemma3.encode([chat("t", "hi"), chat("i", picture, "what?", picture)])
    again = batch.rows([1, 0, 1])
    assert again.ids == ("i", "t", "i")
    assert again.image_rows == (0, 0, 2, 2)
    pixels = batch.inputs["pixel_values"]
    assert torch.equal(again.inputs["pixel_values"], torch.cat([pixels, pixels]))
    assert "pixel_values" not in batch.rows([0]).inputs, "pitfall 44: text rows leave the argument out"
    assert batch.rows([0]).inputs["token_type_ids"].sum() == 0


def test_extended_appends_to_an_open_response(gemma3, picture):
    one = gemma3.encoder.encode(chat("i", picture, "what?", response="yes"))
    longer = gemma3.encoder.encode(chat("i", picture, "what?")).extended(one.input_ids[one.prompt_length :].tolist())
    assert torch.equal(longer.input_ids, one.input_ids)
    assert longer.response_length == 0, "open: nobody knows yet where it ends"
    assert longer.per_token["token_type_ids"].tolist() == one.per_token["token_type_ids"].tolist()


def test_pictures_of_all_kinds_are_read_as_rgb(gemma3, tmp_path):
    for mode in ("L", "RGBA", "P", "1"):
        Image.new(mode, (20, 30)).save(tmp_path / f"{mode}.png")
    batch = gemma3.encode([chat(mode, tmp_path / f"{mode}.png") for mode in ("L", "RGBA", "P", "1")])
    assert batch.inputs["pixel_values"].shape == (4, 3, 32, 32)


# Tokenizers in Python, which have no offsets.


class Slow:
    """A tokenizer without offsets; in "merging" ones, a letter and the "<" behind it are one token."""

    is_fast = False

    def __init__(self, merging: bool) -> None:
        self._fast, self._merging = byte_tokenizer(), merging

    def __getattr__(self, name):
        return getattr(self._fast, name)

    def __call__(self, text, add_special_tokens=True, **options):
        assert "return_offsets_mapping" not in options, "there are none"
        ids = self._fast(text, add_special_tokens=add_special_tokens)["input_ids"]
        joint = (self._fast.convert_tokens_to_ids("i"), self._fast.convert_tokens_to_ids("<end>"))
        out = []
        for token in ids:
            merges = self._merging and out and (out[-1], token) == joint
            out[-1:] = [999] if merges else [*out[-1:], token]
        return {"input_ids": out}


@pytest.mark.parametrize("text", ["hi", "hi there", "x"])
@pytest.mark.parametrize("merging", [False, True])
def test_a_tokenizer_without_offsets_knows_where_the_instruction_ends(encoder, text, merging):
    slow, prompt = Encoder(Slow(merging)), chat("a", text, prefill="ok")
    one, fast = slow.encode(prompt), encoder.encode(prompt)
    tail = one.input_ids[one.instruction_end :].tolist()
    whole = encoder.tokenizer("<end><turn>assistant:ok", add_special_tokens=False)["input_ids"]
    if merging and text == "hi":  # "i<end>" is one token, which begins in the instruction
        assert 999 in one.input_ids[: one.instruction_end].tolist() and tail == whole[1:]
    else:
        assert tail == whole and one.instruction_end == fast.instruction_end
    mask = slow.collate([one]).tokens.mask("post_instruction")
    assert int(mask.sum()) == len(tail) > 0


# Pictures.


def test_raw_text_shows_pictures_where_its_placeholders_are(gemma3, picture):
    """Prompts for models without a chat template; without a placeholder the pictures come first."""
    encoder = gemma3.encoder
    within = encoder.encode(Prompt("a", text="in <boi> this", pictures=(picture,)))
    front = encoder.encode(Prompt("a", text=" this", pictures=(picture,)))
    image = "\n\n<boi>" + "<img>" * 4 + "<eoi>\n\n"
    assert shown(encoder, within.input_ids) == f"in {image} this" and within.n_images == 1
    assert shown(encoder, front.input_ids) == f"{image} this"
    with pytest.raises(PromptError, match="'a' has 2 images and 1 times the placeholder '<boi>'"):
        encoder.encode(Prompt("a", text="in <boi> this", pictures=(picture, picture)))


def test_pictures_of_raw_text_count_in_its_content(picture, tmp_path):
    other = tmp_path / "other.png"
    Image.new("RGB", (8, 8)).save(other)
    hashes = {
        Prompt("a", text="t", pictures=shown).content_hash for shown in [(), (picture,), (other,), (other, picture)]
    }
    assert len(hashes) == 4
    with pytest.raises(PromptError, match="pictures go with raw text: expected images as parts of a message"):
        Prompt("a", (Message("user", ("hi",)),), pictures=(picture,))


def test_what_the_processor_refuses_is_a_prompt_error(gemma3, picture, monkeypatch):
    def truncates(text, text_inputs, modalities):
        raise ValueError("Mismatch in `image` token count between text and `input_ids`")

    monkeypatch.setattr(gemma3.encoder.processor, "_check_special_mm_tokens", truncates)
    with pytest.raises(PromptError, match=r"prompt 'a': the model's processor refuses it .*Mismatch in `image` token"):
        gemma3.encode([chat("a", picture)])


def test_image_tokens_that_went_missing_are_seen(gemma3, picture):
    """A processor and a model of different checkpoints: the ids hold none of the config's image tokens."""
    encoder = Encoder(gemma3.tokenizer, gemma3.encoder.processor, image_token_id=8)
    with pytest.raises(PromptError, match="'a' has 1 images and 0 tokens with the id 8, the config's"):
        encoder.encode(chat("a", picture))


def test_a_prefill_that_the_processor_writes_behind_is_refused(gemma3, picture, monkeypatch):
    kind = type(gemma3.encoder.processor)
    layout = kind.prepare_inputs_layout

    def with_newline(self, images=None, text=None, **options):
        return layout(self, images=images, text=[one + "\n" for one in text], **options)

    assert gemma3.encode([chat("a", picture, prefill="It is ")]), "the meta-test"
    monkeypatch.setattr(kind, "prepare_inputs_layout", with_newline)
    assert gemma3.encode([chat("a", picture)])
    with pytest.raises(PromptError, match="writes text after the prefill 'It is '"):
        gemma3.encode([chat("a", picture, prefill="It is ")])
