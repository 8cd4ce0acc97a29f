"""Labels of rows with pictures: the response and its end of turn receive loss, and nothing else, whatever the family,
the number of pictures and the side of the pads."""

import pytest
import torch
from conftest import chat
from tiny_user_files import CHECKPOINTS, checkpoint, pictures

from hooks.load import load_model
from hooks.prompt import Message, Prompt
from workbench.training.datasets import NO_LOSS, encoded_rows, with_labels
from workbench.training.loss_mask import LostMask, refuse_lost_mask
from workbench.training.loss_tally import LossTally

ANSWER = "<turn>assistant:"


@pytest.fixture(scope="module", params=CHECKPOINTS)
def subject(request, tmp_path_factory):
    """(the loaded model, rows of different lengths with no picture, one, and several)."""
    folder = tmp_path_factory.mktemp(request.param)
    a, b, c, _ = pictures(folder / "pictures")
    turns = (
        Message("user", (a, "first")),
        Message("assistant", ("an earlier answer",)),
        Message("user", ("then ", b, " and ", c)),
    )
    rows = [
        chat("one", a, "what", response="a dog"),
        chat("three", "is ", b, " like ", c, " or ", a, "?", response="neither of them"),
        Prompt("turns", turns, response="so it is"),
        chat("none", "no picture here", response="end"),
        chat("prefilled", c, "go on", prefill="I think", response=" not"),
    ]
    return load_model(checkpoint(request.param, folder / "base"), check=False), rows


def labelled(model, rows, side="right"):
    encoded = encoded_rows(rows, model.encoder)
    return encoded, with_labels(model.encoder.collate(encoded, side))


def by_hand(model, ids, pads, prefill=""):
    """The naive twin: the row as text, token by token; what begins behind the last assistant header is the answer."""
    texts = ["" if pad else model.tokenizer.decode([token]) for token, pad in zip(ids, pads, strict=True)]
    answer = "".join(texts).rindex(ANSWER) + len(ANSWER + prefill)
    begins = [len("".join(texts[:at])) for at in range(len(texts))]
    return [NO_LOSS if pad or begin < answer else token for token, pad, begin in zip(ids, pads, begins, strict=True)]


@pytest.mark.parametrize("side", ["right", "left"])
def test_labels_are_the_response_alone(subject, side):
    model, rows = subject
    encoded, inputs = labelled(model, rows, side)
    ids, labels, pads = inputs["input_ids"], inputs["labels"], inputs["attention_mask"] == 0
    assert pads.any() and bool(pads[:, 0].any()) == (side == "left")
    for at, row in enumerate(rows):
        under = labels[at] != NO_LOSS
        assert model.tokenizer.decode(ids[at][under]) == f"{row.response}<end>"
        assert labels[at].tolist() == by_hand(model, ids[at].tolist(), pads[at].tolist(), row.prefill or "")
    image = ids == model.encoder.image_token_id
    assert not (image & (labels != NO_LOSS)).any()
    assert [bool(found) for found in image.any(dim=1)] == [bool(row.images) for row in rows]
    assert int(image[1].sum()) > 2 * int(image[0].sum()), "three pictures, one picture"
    refuse_lost_mask(inputs, encoded, model.encoder.image_token_id)


def test_the_loss_is_the_same_on_both_sides_and_by_hand(subject):
    """The mean cross-entropy of the response tokens, each row run alone without pads."""
    model, rows = subject
    losses = {}
    for side in ("right", "left"):
        _, inputs = labelled(model, rows, side)
        with torch.no_grad():
            losses[side] = model.module(**inputs).loss.item()
    terms = []
    for row in rows:
        (one,), inputs = labelled(model, [row])
        given = {name: value for name, value in inputs.items() if name != "labels"}
        with torch.no_grad():
            logits = model.module(**given).logits[0].double()
        terms += [-logits[at - 1].log_softmax(-1)[one.input_ids[at]] for at in range(one.prompt_length, len(one))]
    assert len(terms) == sum(len(row.response) + 1 for row in rows)
    # One number over ~50 tokens in float32, from batches of other shapes.
    assert losses["right"] == pytest.approx(torch.stack(terms).mean().item(), rel=1e-4)
    assert losses["left"] == pytest.approx(losses["right"], rel=1e-4)


def test_an_image_token_in_a_response_receives_none(subject):
    """A response may have the placeholder's text in it; the token of that id is never learnt."""
    model, _ = subject
    image = model.tokenizer.decode([model.encoder.image_token_id])
    _, inputs = labelled(model, [chat("odd", "what", response=f"see {image} there")])
    under = inputs["labels"][0] != NO_LOSS
    assert model.encoder.image_token_id in inputs["input_ids"][0]
    assert model.tokenizer.decode(inputs["input_ids"][0][under]) == "see  there<end>"


def test_labels_on_image_tokens_are_noticed(subject):
    model, rows = subject
    encoded, inputs = labelled(model, rows)
    image = inputs["input_ids"] == model.encoder.image_token_id
    wrong = {**inputs, "labels": torch.where(image, inputs["input_ids"], inputs["labels"])}
    with pytest.raises(LostMask, match="row 'one'"):
        refuse_lost_mask(wrong, encoded, model.encoder.image_token_id)


class Door(torch.nn.Module):
    def forward(self, **_):
        return None


@pytest.mark.parametrize("spoilt", [None, "image", "pads"])
def test_the_tally_counts_at_the_models_door(subject, spoilt):
    model, rows = subject
    encoded, inputs = labelled(model, rows)
    image = inputs["input_ids"] == model.encoder.image_token_id
    pads = inputs["attention_mask"] == 0
    under = inputs["labels"] != NO_LOSS
    door = Door()
    tally = LossTally(door, model.encoder.image_token_id)
    where = {"image": image, "pads": pads}.get(spoilt, torch.zeros_like(image))
    door(**{**inputs, "labels": torch.where(where, inputs["input_ids"], inputs["labels"])})
    door(input_ids=inputs["input_ids"])  # no labels: not counted
    door.eval()(**inputs)  # no training: not counted
    if spoilt:
        with pytest.raises(LostMask, match=f"{int(image.sum()) if spoilt == 'image' else 0} image tokens and"):
            tally.finish()
        return
    found = tally.finish()
    rest = sum(map(len, encoded)) - int(under.sum()) - int(image.sum())
    assert found == {
        "forwards": 1, "under loss": int(under.sum()), "image": int(image.sum()), "image under loss": 0, "other": rest
    }  # fmt: skip
    door.train()(**inputs)
    assert tally.forwards == 1, "the hook is gone"
