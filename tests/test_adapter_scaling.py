"""scaled_adapter against W + factor · scaling · B A by hand, with rsLoRA and rank patterns; and its refusals."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from tiny_adapters import noisy_adapter, settings_of
from tiny_models import llama

from hooks.load import folder_hash
from workbench.training.lora_files import lora_factors
from workbench.training.scaling import scaled_adapter

TARGETS = ["q_proj", "down_proj"]
KINDS = {
    "plain": dict(r=2, lora_alpha=4, target_modules=TARGETS),
    "rslora": dict(r=3, lora_alpha=5, target_modules=TARGETS, use_rslora=True),
    "patterns": dict(
        r=4, lora_alpha=6, target_modules=[*TARGETS, "embed_tokens"], rank_pattern={"1.mlp.down_proj": 3},
        alpha_pattern={"q_proj": 10}, use_rslora=True,
    ),
}  # fmt: skip
IDS = torch.arange(5, 25)[None]


@pytest.fixture(scope="module", params=list(KINDS))
def adapter(request, tmp_path_factory):
    return noisy_adapter(
        tmp_path_factory.mktemp("scaling") / request.param, llama()[0], LoraConfig(**KINDS[request.param])
    )


@torch.no_grad()
def logits(folder=None):
    module = llama()[0]
    model = module if folder is None else PeftModel.from_pretrained(module, str(folder)).eval()
    return model(input_ids=IDS).logits


@torch.no_grad()
def logits_by_hand(folder, factor):
    """The base with factor · ΔW added to its weights, ΔW from peft's own delta weights."""
    peft = PeftModel.from_pretrained(llama()[0], str(folder))
    module = llama()[0]
    for name, part in peft.get_base_model().named_modules():
        if hasattr(part, "lora_A"):
            weight = module.get_submodule(name).weight
            weight += (factor * part.get_delta_weight("default").double()).float()
    return module(input_ids=IDS).logits


@pytest.mark.parametrize("factor", [0.5, -1, 1 / 3, 2])
def test_the_effect_is_factor_times_b_a(adapter, factor, tmp_path):
    folder = scaled_adapter(adapter, factor, to=tmp_path / "scaled")
    # Merged weights against unmerged: a few float32 roundings of logits of size ~5; the effect itself is above 0.1.
    assert (logits(folder) - logits_by_hand(adapter, factor)).abs().max() < 2e-4
    assert (logits(folder) - logits(adapter)).abs().max() > 0.05
    for one, own in zip(lora_factors(folder), lora_factors(adapter), strict=True):
        assert one.scaling == pytest.approx(factor * own.scaling, rel=1e-15)
        assert (one.a == own.a).all() and (one.b == own.b).all()


def test_factor_zero_is_the_base_and_one_the_adapter_bit_for_bit(adapter, tmp_path):
    assert torch.equal(logits(scaled_adapter(adapter, 0, to=tmp_path / "none")), logits())
    assert torch.equal(logits(scaled_adapter(adapter, 1.0, to=tmp_path / "all")), logits(adapter))
    assert not torch.equal(logits(adapter), logits()), "the meta-test"


def test_the_record_says_whose_and_how_much(adapter, tmp_path):
    (adapter / "training.json").write_text(json.dumps({"key": "k", "base": "b" * 64, "rank": 2, "alpha": 4}))
    folder = scaled_adapter(adapter, 0.25, to=tmp_path / "a")
    record = json.loads((folder / "training.json").read_text())
    assert record["scaled_from"] == {"adapter": folder_hash(adapter), "name": adapter.name, "factor": 0.25}
    assert record["base"] == "b" * 64 and record["key"] != "k" and "alpha" not in record
    assert scaled_adapter(adapter, 0.25, to=folder) == folder, "finished"
    with pytest.raises(FileExistsError, match="holds an adapter of other settings"):
        scaled_adapter(adapter, 0.5, to=folder)
    twice = scaled_adapter(folder, 4, to=tmp_path / "b")
    assert torch.equal(logits(twice), logits(adapter)) and folder_hash(folder) != folder_hash(adapter)
    (adapter / "training.json").unlink()
    source, copy = (load_file(one / "adapter_model.safetensors") for one in (adapter, folder))
    assert all(torch.equal(source[key], copy[key]) for key in source)
    assert isinstance(settings_of(twice)["lora_alpha"], int), "a whole alpha is written as peft writes it"


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_factor_that_is_no_number_is_refused(adapter, factor, tmp_path):
    with pytest.raises(ValueError, match="expected a finite number"):
        scaled_adapter(adapter, factor, to=tmp_path / "a")


def test_adapters_that_are_not_b_a_alone_are_refused(tmp_path):
    dora = LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
    with pytest.raises(ValueError, match="is a DoRA"):
        scaled_adapter(noisy_adapter(tmp_path / "dora", llama()[0], dora), 0.5, to=tmp_path / "a")
    head = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    with pytest.raises(ValueError, match=r"brings 1 whole tensors \(first: .*lm_head"):
        scaled_adapter(noisy_adapter(tmp_path / "head", llama()[0], head), 0.5, to=tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="is no adapter"):
        scaled_adapter(tmp_path / "nothing", 0.5, to=tmp_path / "a")
