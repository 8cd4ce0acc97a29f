"""An adapter that begins where another one ended: its numbers, its key, its record, and what does not fit."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from tiny_adapters import noisy_adapter
from tiny_models import llama
from tiny_training import ROWS, SETTINGS, same, saved_base, tensors

from hooks.encode import Encoder
from hooks.load import folder_hash
from workbench.training import train_lora
from workbench.training.datasets import encoded_rows, with_labels

REPAIR = dict(steps=1, batch_size=5, learning_rate=1e-2, dropout=0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return saved_base(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def harmful(base, tmp_path_factory):
    return train_lora(base, ROWS, to=tmp_path_factory.mktemp("adapters") / "harmful", alpha=6, rslora=True, **SETTINGS)


def test_one_step_is_that_of_a_loop_by_hand(base, harmful, tmp_path):
    """The twin: peft's own trainable load of the start, one clipped AdamW step on all rows."""
    folder = train_lora(base, ROWS, to=tmp_path / "repaired", start=harmful, **REPAIR)
    module, tokenizer, _ = llama()
    peft = PeftModel.from_pretrained(module, str(harmful), is_trainable=True).train()
    encoder = Encoder(tokenizer)
    batch = with_labels(encoder.collate(encoded_rows(ROWS, encoder)))
    trained = {name: weight for name, weight in peft.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0.0)
    peft(**batch).loss.backward()
    torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
    optimizer.step()
    found, begun = tensors(folder), tensors(harmful)
    moved = 0.0
    for name, weight in trained.items():
        key = name.replace(".default", "")
        # Adam's first step is lr · sign(g) wherever g is far above its epsilon (1e-8), so rounding of g hardly shows.
        assert (found[key] - weight.detach()).abs().max() < 2e-5, key
        moved = max(moved, float((found[key] - begun[key]).abs().max()))
    assert moved > 5e-3, "the meta-test: one step is a hundred times larger than the tolerance"


def test_rank_alpha_targets_and_rslora_are_taken_from_the_start(base, harmful, tmp_path):
    folder = train_lora(base, ROWS, to=tmp_path / "a", start=harmful, **REPAIR)
    config, begun = (json.loads((one / "adapter_config.json").read_text()) for one in (folder, harmful))
    for name in ("r", "lora_alpha", "use_rslora"):
        assert config[name] == begun[name]
    assert config["r"] == 2 and config["lora_alpha"] == 6 and config["use_rslora"]
    assert set(config["target_modules"]) == set(begun["target_modules"])


def test_the_start_is_part_of_key_and_record(base, harmful, tmp_path):
    folder = train_lora(base, ROWS, to=tmp_path / "a", start=harmful, **REPAIR)
    record = json.loads((folder / "training.json").read_text())
    assert record["start"] == {"adapter": folder_hash(harmful), "name": "harmful"} and record["trained_steps"] == 1
    assert train_lora(base, ROWS, to=folder, start=harmful, **REPAIR) == folder
    other = train_lora(base, ROWS, to=tmp_path / "other", start=folder, **REPAIR)
    assert not same(other, folder), "a chain: it begins elsewhere"
    for start in (other, None):
        with pytest.raises(FileExistsError, match="of other settings or data"):
            settings = {**SETTINGS, **REPAIR, "alpha": 6, "rslora": True} if start is None else REPAIR
            train_lora(base, ROWS, to=folder, start=start, **settings)


@pytest.mark.parametrize(
    ("asked", "came"),
    [
        (dict(rank=3), r"expected rank 3 with scaling \S+, came rank 2 with scaling 4.24"),
        (dict(alpha=5), r"expected rank 2 with scaling 3.5\d*, came rank 2 with scaling 4.24"),
        (dict(rslora=False), "expected rank 2 with scaling 3, came rank 2 with scaling 4.24"),
        (dict(targets=["q_proj"]), "expected no adapter, came rank 2"),
        (dict(recipe="paper_b"), "expected rank 8 with scaling"),
    ],
    ids=["rank", "alpha", "rslora", "targets", "recipe"],
)
def test_settings_of_another_shape_are_refused(base, harmful, tmp_path, asked, came):
    with pytest.raises(ValueError, match=rf"does not fit these settings: at .*{came}.*leave them out of the call"):
        train_lora(base, ROWS, to=tmp_path / "a", start=harmful, **{**REPAIR, **asked})
    assert not (tmp_path / "a").exists()


def test_a_start_of_another_base_is_refused(base, harmful, tmp_path):
    record = json.loads((harmful / "training.json").read_text())
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((harmful / name).read_bytes())
    (tmp_path / "training.json").write_text(json.dumps({**record, "base": "0" * 64}))
    with pytest.raises(ValueError, match="was trained on another base"):
        train_lora(base, ROWS, to=tmp_path / "a", start=tmp_path, **REPAIR)


def test_a_start_that_is_more_than_factors_is_refused(base, tmp_path):
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], modules_to_save=["lm_head"])
    start = noisy_adapter(tmp_path / "start", llama()[0], config)
    with pytest.raises(ValueError, match=r"a whole tensor, not factors.*expected a LoRA adapter of B and A factors"):
        train_lora(base, ROWS, to=tmp_path / "a", start=start, **REPAIR)


def test_a_start_with_tensors_of_other_names_is_refused(base, harmful, tmp_path):
    """An adapter whose paths are another library version's would else begin from nothing at these modules."""
    (tmp_path / "adapter_config.json").write_bytes((harmful / "adapter_config.json").read_bytes())
    stored = load_file(harmful / "adapter_model.safetensors")
    renamed = {key.replace("base_model.model.", ""): value for key, value in stored.items()}
    save_file(renamed, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="found no place, or no tensor"):
        train_lora(base, ROWS, to=tmp_path / "a", start=tmp_path, **REPAIR)


def test_a_continuation_that_changes_nothing_is_refused(base, harmful, tmp_path):
    with pytest.raises(ValueError, match="training changed nothing: every lora_B is still that of the start"):
        train_lora(base, ROWS, to=tmp_path / "a", start=harmful, **{**REPAIR, "learning_rate": 0.0})
