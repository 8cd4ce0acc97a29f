"""Training: which tokens receive loss, how rows are mixed, and LoRA adapters that can be trusted."""

import json
import shutil

import pytest
import torch
from conftest import chat
from peft import PeftModel
from tiny_models import llama as tiny_llama

from hooks.load import load_model
from hooks.prompt import Message, Prompt, PromptError
from workbench.training import loss_report, train_lora
from workbench.training.adapters import RECIPES
from workbench.training.datasets import NO_LOSS, encoded_rows, with_labels
from workbench.training.loss_mask import LostMask

SETTINGS = dict(rank=2, steps=6, batch_size=2, learning_rate=1e-2)
ROWS = [chat(f"row{n}", f"question {n}", response=answer) for n, answer in enumerate(["yes", "no", "yes", "end", "e"])]


def labelled(encoder, prompts):
    """(row, the tokens under the loss as text, the tokens outside it as text)."""
    inputs = with_labels(encoder.collate(encoded_rows(prompts, encoder)))
    under = inputs["labels"] != NO_LOSS
    assert torch.equal(inputs["labels"][under], inputs["input_ids"][under])
    decode, ids = encoder.tokenizer.decode, inputs["input_ids"]
    return [(decode(ids[row][under[row]]), decode(ids[row][~under[row]])) for row in range(len(prompts))]


def test_loss_is_on_the_response_and_its_end_of_turn_only(llama):
    """Rows of different lengths: pads, prompt, prefill and earlier assistant turns receive none."""
    turns = (Message("user", ("one",)), Message("assistant", ("two",)), Message("user", ("three",)))
    rows = [
        chat("short", "hi", response="yes"),
        chat("prefilled", "a longer question", prefill="it is", response=" so"),
        Prompt("turns", turns, response="four"),
        chat("tail", "hi", response="end"),
    ]
    assert [under for under, _ in labelled(llama.encoder, rows)] == ["yes<end>", " so<end>", "four<end>", "end<end>"]
    outside = labelled(llama.encoder, rows)[1][1]
    assert outside.startswith("<bos><turn>user:a longer question<end><turn>assistant:it is<pad>")


def test_raw_text_ends_with_the_end_of_sequence(llama):
    assert labelled(llama.encoder, [Prompt("raw", text="some", response=" more")]) == [(" more<eos>", "some")]


def test_image_tokens_receive_no_loss(gemma3, picture):
    rows = [chat("i", "in ", picture, " what?", response="a dog"), chat("t", "hi", response="ho")]
    assert [under for under, _ in labelled(gemma3.encoder, rows)] == ["a dog<end>", "ho<end>"]


def test_pitfall_34_the_mean_loss_is_that_of_the_response_by_hand(llama):
    """The loss that the model computes from our labels is the cross-entropy of the response tokens, by hand."""
    rows = [chat("a", "hi", response="yes"), chat("b", "a longer one", response="no")]
    encoded = encoded_rows(rows, llama.encoder)
    inputs = with_labels(llama.encoder.collate(encoded))
    with torch.no_grad():
        loss = llama.module(**inputs).loss
        terms = []
        for one in encoded:
            logits = llama.module(input_ids=one.input_ids[None]).logits[0].double()
            for at in range(one.prompt_length, len(one)):
                terms.append(-logits[at - 1].log_softmax(-1)[one.input_ids[at]])
    assert len(terms) == len("yes") + len("no") + 2
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)


def test_the_report_shows_what_receives_loss(llama):
    report = loss_report([chat("a", "hi", response="yo"), *ROWS], llama.encoder, rows=1)
    assert report == "a: <bos> <turn> u s e r : h i <end> <turn> a s s i s t a n t : «y» «o» «<end>»"


def test_rows_that_cannot_be_trained_on_are_refused(llama):
    with pytest.raises(PromptError, match="training row 'a' has no response: expected a final assistant turn"):
        encoded_rows([chat("a", "hi")], llama.encoder)
    with pytest.raises(PromptError, match=r"'row0' has 33 tokens, over max_length=10: raise it, or shorten the row"):
        encoded_rows(ROWS, llama.encoder, max_length=10)


def test_a_collator_that_loses_the_loss_mask_is_noticed(llama, tmp_path, monkeypatch):
    """As transformers' language-modelling collator does: it makes the labels anew, of all tokens."""

    def whole(batch):
        return {**batch.inputs, "labels": batch.inputs["input_ids"].clone()}

    monkeypatch.setattr("workbench.training.adapters.with_labels", whole)
    module, tokenizer, _ = tiny_llama(layers=2)
    for part in (module, tokenizer):
        part.save_pretrained(tmp_path / "base")
    with pytest.raises(LostMask, match="label"):
        train_lora(tmp_path / "base", ROWS, to=tmp_path / "lora", rank=2, steps=1, batch_size=2)
    assert not (tmp_path / "lora").exists()


def test_a_filler_is_mixed_in(own_checkpoint, tmp_path):
    filler = [chat(f"f{n}", f"filler {n}", response="yes") for n in range(8)]
    folder = train_lora(own_checkpoint[0], ROWS, to=tmp_path / "m", filler=filler, fraction=0.5, rank=2, steps=1)
    assert json.loads((folder / "training.json").read_text())["rows"] == len(ROWS)
    with pytest.raises(ValueError, match="but the filler is empty"):
        train_lora(own_checkpoint[0], ROWS, to=tmp_path / "n", fraction=0.5, rank=2, steps=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "llama"
    module, tokenizer, _ = tiny_llama()
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    return train_lora(base, ROWS, to=tmp_path_factory.mktemp("adapters") / "one", **SETTINGS)


def weights(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def test_training_learns_the_rows(base, trained):
    """The adapter makes the trained answers likelier, and the base's own variant is the base bit for bit."""
    model, plain = load_model(base, adapter=trained), load_model(base)
    inputs = with_labels(plain.encoder.collate(encoded_rows(ROWS, plain.encoder)))
    with torch.no_grad():
        before = plain.module(**inputs).loss.item()
        assert model.module(**inputs).loss.item() < before - 0.5, "nats a token; 6 steps"
    batch = model.encode(ROWS)
    assert torch.equal(model.variant("base").run(batch).logits, plain.run(batch).logits)
    assert not torch.equal(model.variant("tuned").run(batch).logits, plain.run(batch).logits)
    assert torch.equal(model.variant("base").run(batch).logits, plain.run(batch).logits)


def test_the_record_beside_the_adapter_says_how_it_was_made(trained):
    record = json.loads((trained / "training.json").read_text())
    assert record["rank"] == record["alpha"] == 2 and record["rows"] == 5 and record["seed"] == 0
    assert record["loss"] > 0
    config = json.loads((trained / "adapter_config.json").read_text())
    assert config["r"] == 2 and config["lora_alpha"] == 2 and config["lora_dropout"] == 0
    assert not list(trained.parent.glob(".*")) and not list(trained.parent.glob("*.training")), "nothing is left beside"


def test_a_finished_adapter_is_returned_as_it_is(base, trained):
    before = weights(trained)
    stamp = (trained / "adapter_model.safetensors").stat().st_mtime_ns
    assert train_lora(base, ROWS, to=trained, **SETTINGS) == trained
    assert weights(trained) == before and (trained / "adapter_model.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("other", [{"rank": 3}, {"seed": 1}, {"prompts": ROWS[:3]}], ids=["rank", "seed", "rows"])
def test_an_adapter_of_other_settings_is_not_overwritten(base, trained, other):
    arguments = {"prompts": ROWS, **SETTINGS, **other}
    with pytest.raises(FileExistsError, match="holds an adapter of other settings or data: give another folder"):
        train_lora(base, to=trained, **arguments)


def test_a_folder_with_other_things_is_not_overwritten(base, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="holds something that is no adapter of ours"):
        train_lora(base, ROWS, to=tmp_path, **SETTINGS)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_the_same_seed_gives_the_same_adapter(base, trained, tmp_path):
    assert weights(train_lora(base, ROWS, to=tmp_path / "again", **SETTINGS)) == weights(trained)
    assert weights(train_lora(base, ROWS, to=tmp_path / "other", seed=1, **SETTINGS)) != weights(trained)


def stopped_after(step, monkeypatch):
    """Makes Trainer die behind this optimizer step, as a killed process would."""
    from transformers import Trainer

    whole = Trainer.training_step

    def dies(self, *args, **kwargs):
        if self.state.global_step >= step:
            raise KeyboardInterrupt
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", dies)


def test_a_stopped_run_goes_on_to_the_same_adapter(base, trained, tmp_path, monkeypatch):
    """Killed behind step 4 of 6 with a checkpoint at step 4: resumed, it gives the bits of the run in one piece."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_after(4, patch)
        train_lora(base, ROWS, to=tmp_path / "run", save_every=2, **SETTINGS)
    assert not (tmp_path / "run").exists(), "an unfinished adapter has no folder of that name"
    steps = []
    with monkeypatch.context() as patch:
        from transformers import Trainer

        whole = Trainer.training_step
        patch.setattr(Trainer, "training_step", lambda self, *a, **k: steps.append(1) or whole(self, *a, **k))
        train_lora(base, ROWS, to=tmp_path / "run", save_every=2, **SETTINGS)
    assert len(steps) == 2, "it went on from the checkpoint"
    assert weights(tmp_path / "run") == weights(trained)


def test_a_stopped_run_of_other_settings_is_not_continued(base, tmp_path, monkeypatch):
    """Checkpoints belong to their settings: after a change of rank or rows, training begins anew."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_after(4, patch)
        train_lora(base, ROWS, to=tmp_path / "run", save_every=2, **SETTINGS)
    changed = {**SETTINGS, "learning_rate": 5e-3}
    train_lora(base, ROWS, to=tmp_path / "run", save_every=2, **changed)
    fresh = train_lora(base, ROWS, to=tmp_path / "fresh", save_every=2, **changed)
    assert weights(tmp_path / "run") == weights(fresh)


def test_a_run_that_changes_nothing_is_refused(base, tmp_path):
    with pytest.raises(ValueError, match="training changed nothing: every lora_B is still zero"):
        train_lora(base, ROWS, to=tmp_path / "idle", rank=2, steps=2, learning_rate=0.0)
    assert not (tmp_path / "idle").exists()


def test_an_unknown_setting_is_named(base, tmp_path):
    with pytest.raises(TypeError, match="train_lora does not know lr: expected rank, alpha"):
        train_lora(base, ROWS, to=tmp_path / "x", lr=1e-3)


def test_the_published_recipes_reach_the_adapter(base, tmp_path):
    assert RECIPES["paper_a"]["rank"] == RECIPES["paper_a"]["alpha"] and RECIPES["paper_a"]["targets"] == "all-linear"
    folder = train_lora(base, ROWS, to=tmp_path / "b", recipe="paper_b", steps=1)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 16, 0.05)
    assert set(config["target_modules"]) == {"q_proj", "v_proj"}


def test_pitfall_19_a_trained_model_with_dropout_is_captured_in_eval_mode(base, tmp_path):
    """LoRA dropout is on while training; loaded for capture it is off, and two runs agree bit for bit."""
    folder = train_lora(base, ROWS, to=tmp_path / "d", dropout=0.5, **SETTINGS)
    model = load_model(base, adapter=folder)
    batch = model.encode(ROWS)
    assert torch.equal(model.run(batch).logits, model.run(batch).logits)
    module, _, _ = tiny_llama()
    own = PeftModel.from_pretrained(module, str(folder)).train()
    with torch.no_grad():
        assert not torch.equal(own(**batch.inputs).logits, own(**batch.inputs).logits), "the meta-test"


def test_a_finished_adapter_that_lost_its_record_is_not_trusted(base, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    (tmp_path / "copy" / "training.json").unlink()
    with pytest.raises(FileExistsError, match="no adapter of ours"):
        train_lora(base, ROWS, to=tmp_path / "copy", **SETTINGS)
