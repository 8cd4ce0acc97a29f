"""Drift: what is measured while an adapter trains, against captures by hand; and that the training does not notice."""

import random

import numpy as np
import pytest
import torch
from conftest import chat
from peft import LoraConfig, get_peft_model
from tiny_models import llama
from tiny_training import ROWS, SETTINGS, direction, same, saved_base
from transformers import Trainer, TrainingArguments

from hooks.load import load_model
from stores import ResultTable
from workbench.interventions.drift import Drift
from workbench.interventions.readout import choice_of, prefilled
from workbench.training import train_lora
from workbench.training.datasets import encoded_rows, with_labels
from workbench.training.drift_rules import EarlyStop, Signal
from workbench.training.lora_files import lora_factors
from workbench.training.rotation import rotation
from workbench.training.undisturbed import undisturbed

V = direction((0, 2))
PROMPTS = [chat(f"p{n}", "word " * (1 + n % 3) + "abcdef"[n], label="ab"[n % 2]) for n in range(6)]
QUESTIONS = [chat(f"q{n}", "is it " * (1 + n), tags={"right": "yes", "contrary": "no"}) for n in range(3)]
RUN = {**SETTINGS, "steps": 5, "dropout": 0.3}


def drift(to, **changes):
    return Drift(**{**dict(prompts=PROMPTS, directions=V, to=to, every=2, questions=QUESTIONS, k=3), **changes})


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return saved_base(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def plain(base, tmp_path_factory):
    return train_lora(base, ROWS, to=tmp_path_factory.mktemp("adapters") / "plain", **RUN)


@pytest.fixture(scope="module")
def watched(base, tmp_path_factory):
    """(adapter, table) of the same training under watch."""
    folder = tmp_path_factory.mktemp("watched")
    adapter = train_lora(base, ROWS, to=folder / "adapter", watch=drift(folder / "drift"), **RUN)
    return adapter, ResultTable.open(folder / "drift")


def residuals(model, layer):
    """The block's output at the last token, one prompt at a time, by torch's own hook."""
    kept = []
    handle = model.module.model.layers[layer].register_forward_hook(lambda m, a, out: kept.append(out[0, -1]))
    with torch.no_grad():
        for prompt in PROMPTS:
            model.module(input_ids=model.encoder.encode(prompt).input_ids[None])
    handle.remove()
    return torch.stack(kept).double().numpy()


def test_the_training_does_not_notice_bit_for_bit(plain, watched):
    """With dropout, so that a random number too many or a mode left behind would show."""
    assert same(watched[0], plain)


def test_every_second_step_the_first_and_the_last_are_measured(watched):
    table = watched[1]
    assert table.missing() == [] and table.plan == ["step 0", "step 2", "step 4", "step 5", "end"]
    assert not (table.path / "snapshots").exists() and table.verify(deep=True) == []
    (end,) = table.rows(measure="end")
    assert end["step"] == 5 and end["stopped"] is False


@pytest.mark.parametrize("layer", [0, 2])
def test_projections_and_spectra_are_those_of_the_two_models(base, watched, layer):
    """At step 0 the base, at the last step the adapter that was saved: numpy on residuals read by hand."""
    adapter, table = watched
    before, after = residuals(load_model(base), layer), residuals(load_model(base, adapter=adapter), layer)
    unit = V.unit[V.sites.index(next(site for site in V.sites if site.layer == layer))]
    for group, index in {"all": range(6), "a": [0, 2, 4], "b": [1, 3, 5]}.items():
        for step, values in ((0, before), (5, after)):
            (row,) = table.rows(measure="projection", step=step, layer=layer, group=group)
            along = values[list(index)] @ unit
            assert row["mean"] == pytest.approx(along.mean(), abs=1e-5) and row["n"] == len(along)
            assert row["sd"] == pytest.approx(along.std(ddof=1), abs=1e-5) and row["direction"] == "v"
            assert row["moved"] == pytest.approx((along - before[list(index)] @ unit).mean(), abs=1e-5)
    shift = after - before
    for decomposed, values in (("paired_shift_raw", shift), ("paired_shift_centered", shift - shift.mean(axis=0))):
        (row,) = table.rows(measure="spectrum", step=5, layer=layer, decomposed=decomposed)
        energy = np.linalg.svd(values, compute_uv=False) ** 2
        share = energy / energy.sum()
        assert [row[f"share_{k}"] for k in (1, 2, 3)] == pytest.approx(share[:3].tolist(), rel=1e-3)
        assert row["participation_ratio"] == pytest.approx(1 / (share**2).sum(), rel=1e-3) and not row["unchanged"]
        assert row["shift"] == pytest.approx(np.linalg.norm(shift, axis=1).mean(), rel=1e-4)
    for row in table.rows(measure="spectrum", step=0, layer=layer):
        assert row["unchanged"] and row["participation_ratio"] is None and row["share_1"] is None


def test_behaviour_is_the_logit_difference_of_the_model_that_was_saved(base, watched):
    adapter, table = watched
    model = load_model(base, adapter=adapter)
    choice = choice_of(QUESTIONS, model.encoder)
    logits = model.run(model.encode([prefilled(one) for one in QUESTIONS])).logits.double()
    at = torch.arange(3)
    difference = (logits[at, choice.contrary] - logits[at, choice.right]).numpy()
    (row,) = table.rows(measure="behaviour", step=5)
    assert row["mean"] == pytest.approx(difference.mean(), abs=1e-4) and row["n"] == 3
    assert row["sd"] == pytest.approx(difference.std(ddof=1), abs=1e-4)
    assert row["p_contrary"] == pytest.approx(logits.softmax(-1)[at, choice.contrary].mean().item(), abs=1e-5)
    assert Signal().series(table.rows())[-1] == (5, row["mean"])


def test_rotation_is_that_of_the_saved_checkpoints(base, tmp_path):
    """transformers' own checkpoints of each step are the twin."""
    kept = {}

    class Keeps(drift_base()):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            model.save_pretrained(tmp_path / f"at{state.global_step}")
            kept[state.global_step] = lora_factors(tmp_path / f"at{state.global_step}")

    train_lora(base, ROWS, to=tmp_path / "a", watch=drift(tmp_path / "d"), callbacks=[Keeps()], **{**RUN, "steps": 4})
    table = ResultTable.open(tmp_path / "d")
    for against, step, since, now, then in (
        ("previous", 4, 2, kept[4], kept[2]),
        ("end", 2, 4, kept[2], kept[4]),
    ):
        found = {row["module"]: row for row in table.rows(measure="rotation", against=against, step=step)}
        expected = rotation(now, then)
        assert len(found) == len(expected) == 21
        for row in expected:
            own = found[row["module"]]
            assert own["since"] == since
            for name in ("norm", "column_cosine", "delta_cosine", "largest_angle", "overlap"):
                assert own[name] == pytest.approx(row[name], rel=1e-6, abs=1e-7), name
    assert all(row["overlap"] is None for row in table.rows(measure="rotation", against="previous", step=2))


def drift_base():
    from transformers import TrainerCallback

    return TrainerCallback


def test_undisturbed_leaves_modes_generators_and_gradients(llama_alone):
    module = llama_alone
    module.train()
    module.model.layers[1].eval()
    modes = [part.training for part in module.modules()]
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    with pytest.raises(RuntimeError, match="inside"), undisturbed(module):
        assert not any(part.training for part in module.modules()) and not torch.is_grad_enabled()
        torch.rand(5), np.random.rand(5), random.random()
        raise RuntimeError("inside")
    assert (torch.rand(1), np.random.rand(), random.random()) == expected
    assert [part.training for part in module.modules()] == modes and torch.is_grad_enabled()


@pytest.fixture
def llama_alone():
    return llama()[0]


def own_trainer(folder, make, steps=4, **arguments):
    """A Trainer of one's own on a loaded module, with the callback that `make(model)` gives."""
    model = load_model(*llama(), check=False)
    torch.manual_seed(1)
    peft = get_peft_model(model.module, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], lora_dropout=0.3))
    settings = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=2, learning_rate=1e-2, report_to=[],
        save_strategy="no", disable_tqdm=True, remove_unused_columns=False, **arguments,
    )  # fmt: skip
    trainer = Trainer(
        model=peft,
        args=settings,
        train_dataset=encoded_rows(ROWS, model.encoder),
        data_collator=lambda rows: with_labels(model.encoder.collate(rows)),
        callbacks=make(model),
    )
    trainer.train()
    return {name: weight.detach().clone() for name, weight in peft.named_parameters() if "lora_" in name}


def test_a_trainer_of_ones_own_takes_the_callback(tmp_path):
    plain = own_trainer(tmp_path / "out", lambda model: [])
    watched = own_trainer(tmp_path / "out", lambda model: [drift(tmp_path / "d").callback(model)])
    assert all(torch.equal(watched[name], plain[name]) for name in plain)
    assert ResultTable.open(tmp_path / "d").missing() == []
    with pytest.raises(FileExistsError, match="holds the drift of a training that was begun before"):
        own_trainer(tmp_path / "out", lambda model: [drift(tmp_path / "d").callback(model)])


def test_a_callback_for_another_model_is_refused(tmp_path, llama):
    with pytest.raises(ValueError, match="was given another model than the Trainer trains"):
        own_trainer(tmp_path / "out", lambda model: [drift(tmp_path / "d").callback(llama)])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (dict(every=0), "expected whole numbers from 1 on"),
        (dict(prompts=PROMPTS[:1]), "expected at least 2"),
        (dict(at="nowhere"), "scope 'nowhere' is unknown"),
    ],
)
def test_a_drift_that_cannot_be_is_refused(tmp_path, changes, why):
    with pytest.raises(ValueError, match=why):
        drift(tmp_path / "d", **changes)


def test_prompts_without_a_token_in_the_scope_are_refused(base, tmp_path):
    with pytest.raises(ValueError, match="drift prompts have no token under the scope 'response'"):
        train_lora(base, ROWS, to=tmp_path / "a", watch=drift(tmp_path / "d", at="response"), **RUN)


# Beyond at every measurement: the n of a mean.
RULE = EarlyStop(Signal("projection", site="resid_post:0", value="n"), threshold=6, patience=2, min_steps=1)
