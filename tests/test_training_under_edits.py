"""Edits that act while an adapter is trained: gradients, positions, what is counted, and that they are gone after."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import chat
from tiny_models import gemma3, llama
from tiny_training import ROWS, SETTINGS, direction, same, saved_base

from hooks.load import load_model
from hooks.model import NothingEdited
from workbench.interventions.ablate import Ablate
from workbench.interventions.steer import Steer
from workbench.training import train_lora
from workbench.training.acting_identity import identity_of
from workbench.training.datasets import encoded_rows, with_labels
from workbench.training.preventive import TrainingEdits

V = direction(origin=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return saved_base(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def plain(base, tmp_path_factory):
    return train_lora(base, ROWS, to=tmp_path_factory.mktemp("adapters") / "plain", accumulate=2, **SETTINGS)


@pytest.fixture
def own():
    """A model of one's own, in training mode, with gradients everywhere."""
    model = load_model(*llama(), check=False)
    model.module.train()
    return model


def by_hand(module, layer, change, inside):
    """torch's own hook: `change(h)` at the output of a block, on the positions where `inside` is True."""

    def hook(block, args, output):
        return torch.where(inside[..., None], change(output), output)

    return module.model.layers[layer].register_forward_hook(hook)


def columns(batch, scope):
    """The positions of a scope by counting tokens of each row by hand; rows are padded right."""
    inside = torch.zeros(batch.inputs["input_ids"].shape, dtype=torch.bool)
    for row, one in enumerate(batch.encoded):
        p, r = one.prompt_length, one.response_length
        first, last = {"prompt": (0, p), "response": (p, p + r), "answering": (p - 1, p + r - 1)}.get(
            scope, (0, len(one))
        )
        inside[row, first:last] = True
    return inside


@pytest.mark.parametrize("scope", ["all", "prompt", "response", "answering"])
@pytest.mark.parametrize("kind", ["steer", "ablate"])
def test_loss_and_gradients_are_those_of_a_hook_by_hand(own, kind, scope):
    layer, unit = 1, torch.tensor(V.unit[1], dtype=torch.float32)
    c = 2.5 * float(V.norm[1])
    if kind == "steer":
        acts, change = Steer(V, layer, 2.5, at=scope), lambda h: h + c * unit
    else:
        acts, change = Ablate(V, layer, to="mean", at=scope), lambda h: h - ((h - mean) @ unit)[..., None] * unit
    mean = torch.tensor(V.origin[1], dtype=torch.float32)
    batch = own.encoder.collate(encoded_rows(ROWS, own.encoder))
    assert len({len(one) for one in batch.encoded}) > 1, "padded"
    inputs = with_labels(batch)
    edits = TrainingEdits(own, [acts])
    assert own.module.training, "asking for the edits left it in training mode"

    def gradients(context):
        own.module.zero_grad()
        with context:
            loss = own.module(**inputs).loss
        loss.backward()
        return loss.item(), {name: weight.grad.clone() for name, weight in own.module.named_parameters()}

    inside = columns(batch, scope)
    loss, found = gradients(edits.acting(batch))
    handle = by_hand(own.module, layer, change, inside)
    expected_loss, expected = gradients(torch.enable_grad())
    handle.remove()
    unedited_loss, _ = gradients(torch.enable_grad())
    assert loss == pytest.approx(expected_loss, rel=1e-6) and abs(loss - unedited_loss) > 1e-3
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() < 1e-5 * expected[name].abs().max().clamp_min(1e-3), name
    assert edits.positions == [int(inside.sum())]


def test_image_positions_are_edited_in_rows_with_pictures_and_in_no_other(picture):
    """Gemma3 in training mode; the hand counts the image token's id."""
    model = load_model(*gemma3(), check=False)
    model.module.train()
    v = direction((1,))
    rows = [chat("i", "in ", picture, " what?", response="a dog"), chat("t", "hi", response="ho")]
    batch = model.encoder.collate(encoded_rows(rows, model.encoder))
    inside = batch.inputs["input_ids"] == 7
    assert inside.sum(dim=1).tolist() == [4, 0]
    step = 3.0 * torch.tensor(v.vectors[0], dtype=torch.float32)
    edits = TrainingEdits(model, [Steer(v, 1, 3.0, at="image")])
    inputs = with_labels(batch)
    with edits.acting(batch):
        loss = model.module(**inputs).loss
    blocks = model.module.model.language_model
    handle = by_hand(SimpleNamespace(model=blocks), 1, lambda h: h + step, inside)
    expected = model.module(**inputs).loss
    handle.remove()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6) and edits.positions == [4]
    assert abs(loss.item() - model.module(**inputs).loss.item()) > 1e-4
    with pytest.raises(NothingEdited, match="any of the 1 training rows"):
        edits.refuse_scopes_without_tokens(encoded_rows(rows[1:], model.encoder))


def test_the_edits_own_tensors_get_no_gradient_and_no_hook_is_left(own):
    before = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in own.module.modules()]
    edits = TrainingEdits(own, [Steer(V, [0, 2], 1.0), Ablate(V, "all", to="zero")])
    batch = own.encoder.collate(encoded_rows(ROWS, own.encoder))
    with edits.acting(batch):
        loss = own.module(**with_labels(batch)).loss
    loss.backward()
    values = [v for listed in edits.edits.values() for one in listed for v in vars(one).values() if torch.is_tensor(v)]
    assert values and not any(value.requires_grad or value.grad is not None for value in values)
    assert [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in own.module.modules()] == before
    with pytest.raises(RuntimeError, match="stop"), edits.acting(batch):
        raise RuntimeError("stop")
    assert [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in own.module.modules()] == before


def test_coefficient_zero_trains_the_same_weights_bit_for_bit(base, plain, tmp_path):
    """Over two optimizer steps a batch (accumulate=2), so the loss is scaled as without edits too."""
    settings = dict(accumulate=2, **SETTINGS)
    zero = [Steer(V, [0, 1, 2], 0.0)]
    assert same(train_lora(base, ROWS, to=tmp_path / "zero", during=zero, **settings), plain)
    some = train_lora(base, ROWS, to=tmp_path / "some", during=[Steer(V, 1, 1.0)], **settings)
    assert not same(some, plain), "the meta-test"


def test_the_record_and_the_key_state_what_acted(base, plain, tmp_path):
    acts = [Steer(V, 1, 1.0, at="response"), Ablate(V, 2, at="prompt")]
    settings = dict(SETTINGS, steps=1, batch_size=5)
    folder = train_lora(base, ROWS, to=tmp_path / "a", during=acts, **settings)
    record = json.loads((folder / "training.json").read_text())["during"]
    assert [one["intervention"] for one in record] == ["steer", "ablate"] and record[0]["at"] == "response"
    assert record[0]["positions"] == sum(len(row.response) for row in ROWS)
    encoder = load_model(base, check=False).encoder
    assert record[1]["positions"] == sum(one.prompt_length for one in encoded_rows(ROWS, encoder))
    assert train_lora(base, ROWS, to=folder, during=acts, **settings) == folder
    for other in ([Steer(V, 1, 1.5, at="response"), acts[1]], acts[:1], acts[::-1], []):
        with pytest.raises(FileExistsError, match="of other settings"):
            train_lora(base, ROWS, to=folder, during=other, **settings)
    assert "during" not in json.loads((plain / "training.json").read_text()), "keys of plain adapters stay"


def test_an_edit_without_a_token_is_refused_before_the_first_step(base, tmp_path):
    with pytest.raises(NothingEdited, match="touches no position of any of the 5 training rows"):
        train_lora(base, ROWS, to=tmp_path / "a", during=[Steer(V, 1, 1.0), Steer(V, 1, 1.0, at=400)], **SETTINGS)
    assert not (tmp_path / "a").exists() and not list(tmp_path.iterdir())


def test_an_edit_that_no_step_reached_is_refused(base, tmp_path):
    """A row has such a token, but the one step that was made had another row."""
    rows = [ROWS[0], replace(ROWS[1], id="odd", messages=chat("x", "a question with zebra").messages)]
    acts = [Steer(V, 1, 1.0, at="re:z")]
    seen = []
    for seed in range(6):
        try:
            train_lora(
                base, rows, to=tmp_path / str(seed), during=acts, **dict(SETTINGS, steps=1, batch_size=1, seed=seed)
            )
            seen.append("trained")
        except NothingEdited as error:
            assert "touches no position of any training step" in str(error)
            seen.append("refused")
    assert set(seen) == {"trained", "refused"}


def test_pitfall_19_gradient_checkpointing_is_refused(own):
    """The blocks would run again in the backward, without the edits."""
    edits = TrainingEdits(own, [Steer(V, 1, 1.0)])
    own.module.gradient_checkpointing_enable()
    batch = own.encoder.collate(encoded_rows(ROWS, own.encoder))
    with pytest.raises(ValueError, match=r"gradient_checkpointing_disable\(\)"), edits.acting(batch):
        pass
    with pytest.raises(ValueError, match="checkpoints its gradients"):
        TrainingEdits(own, [Steer(V, 1, 1.0)])
    own.module.gradient_checkpointing_disable()
    TrainingEdits(own, [Steer(V, 1, 1.0)])


def test_identity_is_that_of_the_numbers_not_of_their_last_bits():
    again = V.replace(unit=V.unit / np.linalg.norm(V.unit * (1 + 1e-12), axis=1, keepdims=True))
    assert identity_of(Steer(V, 1, 1.0)) == identity_of(Steer(again, 1, 1.0))
    others = [Steer(V, 2, 1.0), Steer(V, 1, 1.1), Steer(V, 1, 1.0, at="last"), Steer(-V, 1, 1.0), Ablate(V, 1)]
    assert len({identity_of(one) for one in [Steer(V, 1, 1.0), *others]}) == 6
    assert identity_of(Steer(V, np.int64(1), 1.0, at="re:a")) == identity_of(Steer(V, 1, 1.0, at="re:a"))
    with pytest.raises(TypeError, match="has no identity to record: expected a dataclass"):
        identity_of(lambda resid, where: resid)
