"""The loss mask of a batch, asserted; and what a chat template does to a system turn."""

import pytest
import torch
from conftest import chat
from tiny_models import TEMPLATE, byte_tokenizer
from transformers import DataCollatorForLanguageModeling

from hooks.encode import Encoder
from hooks.prompt import Message, Prompt
from workbench.training.check import check_data
from workbench.training.datasets import NO_LOSS, encoded_rows, with_labels
from workbench.training.loss_checks import drops_system
from workbench.training.loss_mask import LostMask, refuse_lost_mask

ROWS = [
    chat("short", "hi", response="yes"),
    chat("prefilled", "a longer question", prefill="it is", response=" so"),
    Prompt("turns", (Message("user", ("one",)), Message("assistant", ("two",)), Message("user", ("three",))),
           response="four"),
    Prompt("raw", text="some text", response=" more"),
]  # fmt: skip


@pytest.fixture(scope="module")
def encoder():
    return Encoder(byte_tokenizer())


@pytest.mark.parametrize("side", ["right", "left"])
def test_our_own_labels_pass_on_either_side(encoder, side):
    rows = encoded_rows(ROWS, encoder)
    inputs = with_labels(encoder.collate(rows, side))
    refuse_lost_mask(inputs, rows)
    under = [ids[labels != NO_LOSS] for ids, labels in zip(inputs["input_ids"], inputs["labels"], strict=True)]
    assert [encoder.tokenizer.decode(ids) for ids in under] == ["yes<end>", " so<end>", "four<end>", " more<eos>"]


def test_labels_of_pictures_pass_and_a_picture_under_the_loss_does_not(gemma3, picture):
    own = gemma3.encoder
    rows = encoded_rows([chat("i", "in ", picture, " what?", response="a dog"), chat("t", "hi", response="ho")], own)
    inputs = with_labels(own.collate(rows))
    refuse_lost_mask(inputs, rows, own.image_token_id)
    image = inputs["input_ids"] == own.image_token_id
    inputs["labels"] = torch.where(image, inputs["input_ids"], inputs["labels"])
    assert image.any()
    with pytest.raises(LostMask, match="row 'i'"):
        refuse_lost_mask(inputs, rows, own.image_token_id)


def test_pitfall_34_a_collator_that_rebuilds_the_labels_is_refused(encoder):
    """transformers' own collator is given rows padded to one length, with the right labels, as the second paper's
    script gives them; what it returns has labels on the prompt."""
    rows = encoded_rows(ROWS, encoder)
    right = with_labels(encoder.collate(rows))
    names = ("input_ids", "attention_mask", "labels")
    features = [{name: right[name][row].tolist() for name in names} for row in range(len(rows))]
    rebuilt = DataCollatorForLanguageModeling(encoder.tokenizer, mlm=False)(features)
    assert torch.equal(rebuilt["input_ids"], right["input_ids"])
    assert int((rebuilt["labels"] != NO_LOSS).sum()) == sum(map(len, rows)), "every real token has a label"
    with pytest.raises(LostMask, match=r"row 'short' \(number 0 of its batch\): 25 tokens have labels, .* are 4: "):
        refuse_lost_mask(rebuilt, rows)


def one_of_the_prompt(labels, ids, start, end):
    labels[0, start - 1] = ids[0, start - 1]


def none_at_the_end_of_turn(labels, ids, start, end):
    labels[0, end - 1] = NO_LOSS


def none_at_the_first(labels, ids, start, end):
    labels[0, start] = NO_LOSS


def a_pad(labels, ids, start, end):
    labels[0, end] = ids[0, end]


def another_id(labels, ids, start, end):
    labels[0, start] += 1


def shifted(labels, ids, start, end):
    labels[0] = labels[0].roll(-1)


@pytest.mark.parametrize(
    "fault", [one_of_the_prompt, none_at_the_end_of_turn, none_at_the_first, a_pad, another_id, shifted]
)
def test_one_wrong_label_is_refused(encoder, fault):
    rows = encoded_rows(ROWS, encoder)
    inputs = with_labels(encoder.collate(rows))
    fault(inputs["labels"], inputs["input_ids"], rows[0].prompt_length, len(rows[0]))
    with pytest.raises(LostMask, match="expected labels at these alone"):
        refuse_lost_mask(inputs, rows)


def test_the_right_labels_over_another_prompt_are_refused(encoder):
    rows = encoded_rows(ROWS, encoder)
    inputs = with_labels(encoder.collate(rows))
    inputs["input_ids"][0, 3] += 1
    with pytest.raises(LostMask, match="row 'short'"):
        refuse_lost_mask(inputs, rows)


def test_a_placeholder_in_a_response_has_no_label(gemma3):
    """A text that the tokenizer reads as a picture's token: our labels leave it out, and the check must as well."""
    own = gemma3.encoder
    rows = encoded_rows([chat("i", "hi", response="a <img> dog")], own)
    inputs = with_labels(own.collate(rows))
    assert own.image_token_id in rows[0].input_ids[rows[0].prompt_length :].tolist()
    refuse_lost_mask(inputs, rows, own.image_token_id)
    with pytest.raises(LostMask, match="row 'i'"):
        refuse_lost_mask(inputs, rows)


def test_a_batch_that_cannot_be_compared_is_refused(encoder):
    rows = encoded_rows(ROWS, encoder)
    inputs = with_labels(encoder.collate(rows))
    with pytest.raises(LostMask, match="the batch has no labels"):
        refuse_lost_mask({"input_ids": inputs["input_ids"]}, rows)
    with pytest.raises(LostMask, match="expected one label for each token"):
        refuse_lost_mask(inputs, rows[:2])
    with pytest.raises(LostMask, match="row 'raw'"):
        refuse_lost_mask(inputs, rows[::-1])
    cut = {name: inputs[name][:, :10] for name in ("input_ids", "labels")}
    with pytest.raises(LostMask, match="row 'short'"):
        refuse_lost_mask(cut, rows)


# System turns.

DROPS = TEMPLATE.replace("{% for m in messages %}<turn>", "{% for m in messages if m['role'] != 'system' %}<turn>")
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
FOLDS = (  # as Gemma's: the system text goes in front of the user's
    "<bos>{% for m in messages %}{% if m['role'] == 'system' %}<turn>user:{{ m['content'] }}\n"
    "{% else %}{% if not (loop.index0 == 1 and messages[0]['role'] == 'system') %}<turn>{{ m['role'] }}:{% endif %}"
    "{{ m['content'] }}<end>{% endif %}{% endfor %}{% if add_generation_prompt %}<turn>assistant:{% endif %}"
)


def with_template(template):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return Encoder(tokenizer)


def told(system, asked):
    return Prompt("s", (Message("system", (system,)), Message("user", (asked,))), response="yes")


@pytest.mark.parametrize("asked", ["hi", "be brief: hi"], ids=["other text", "text that holds the system's"])
@pytest.mark.parametrize(
    ("template", "dropped"), [(TEMPLATE, False), (FOLDS, False), (DROPS, True), (REFUSES, True)],
    ids=["keeps", "folds", "drops", "refuses"],
)  # fmt: skip
def test_a_dropped_system_turn_is_seen(template, dropped, asked):
    own = with_template(template)
    assert drops_system(told("be brief", asked), own) is dropped
    report = check_data([told("be brief", asked), chat("plain", "hi", response="no")], own)
    found = report.of("error")
    assert [(one.check, one.count, one.where) for one in found] == ([("system sent", 1, ("s",))] if dropped else [])
    assert report.passed is not dropped


def test_rows_without_a_system_turn_are_never_said_to_lose_one():
    for template in (DROPS, REFUSES, "{{ raise_exception('nothing') }}"):
        assert not drops_system(chat("a", "hi"), with_template(template))


def test_a_template_that_refuses_everything_is_an_encoding_fault():
    """The system turn is not to blame where the rest cannot be rendered either."""
    report = check_data([told("be brief", "hi")], with_template("{{ raise_exception('nothing') }}"))
    assert [(one.check, one.count) for one in report.of("error")] == [("encoding", 1)]


def test_a_template_that_writes_no_end_of_turn_is_a_warning():
    own = with_template(TEMPLATE.replace("<end>", ""))
    own.tokenizer.eos_token = None
    report = check_data([chat("a", "hi", response="yes")], own)
    assert [(one.check, one.says) for one in report.of("warning")] == [
        ("loss mask", "end without an end of turn: what ends an answer is not learnt")
    ]


def test_rows_that_lose_their_end_and_rows_that_lose_their_answer_are_told_apart(encoder):
    """ "short" has 25 tokens, of which 21 are prompt."""
    for max_length, expected in ((25, None), (24, "the answer's end is cut"), (22, "end is cut"), (21, "no answer")):
        faults = check_data(ROWS[:1], encoder, max_length=max_length).of("error")
        assert [expected in one.says for one in faults] == ([True] if expected else [])


def test_the_counts_of_tokens_are_those_of_the_rows(encoder):
    report = check_data(ROWS, encoder)
    lengths = [len(one) for one in encoded_rows(ROWS, encoder)]
    answers = sum(len(text) for text in ("yes", " so", "four", " more")) + len(ROWS)
    assert report.counts["tokens"] == sum(lengths) and report.counts["longest row"] == max(lengths)
    assert report.counts["under loss"] == answers
    [note] = report.of("note", "loss mask")
    assert (note.count, note.of) == (answers, sum(lengths)) and "4 to 6, median 4.5" in note.says
