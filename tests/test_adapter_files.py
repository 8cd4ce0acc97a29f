"""Adapters from folders: what they add, that they landed, that the base stays the base; what would not is refused."""

import json

import pytest
import torch
from conftest import chat
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
)
from safetensors.torch import load_file, save_file
from tiny_adapters import added_by_hand, noisy_adapter
from tiny_models import FAMILIES, byte_tokenizer

from hooks.load import load_model

PROMPTS = [chat("a", "hi"), chat("b", "a longer question")]
TARGETS = ["q_proj", "down_proj"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    for family in ("llama", "gpt2", "gemma3"):
        module, tokenizer, processor = FAMILIES[family]()
        module.save_pretrained(root / family)
        (processor or tokenizer).save_pretrained(root / family)
    return root


def logits(model):
    return model.run(model.encode(PROMPTS)).logits


@pytest.mark.parametrize(
    ("family", "config", "scaling"),
    [
        ("llama", LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS), 6 / 4),
        ("llama", LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=TARGETS), 6 / 2),
        ("llama", LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], rank_pattern={"q_proj": 3}), 6 / 3),
        ("llama", LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], alpha_pattern={"q_proj": 9}), 9 / 4),
        ("gpt2", LoraConfig(r=4, lora_alpha=6, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True), 6 / 4),
    ],
    ids=["LoRA", "rsLoRA", "rank pattern", "alpha pattern", "fan in fan out"],
)
def test_pitfall_05_an_adapter_adds_scaling_times_b_a(home, tmp_path, family, config, scaling):
    """Against W + scaling·B·A by hand, from the numbers of the file; the base bit for bit what it was."""
    module = FAMILIES[family]()[0]
    folder = noisy_adapter(tmp_path / "it", module, config)
    model, by_hand = load_model(home / family, adapter=folder, check=False), added_by_hand(module, folder, scaling)
    batch = model.encode(PROMPTS)
    with torch.no_grad():
        own = by_hand(**batch.inputs).logits
    expected = torch.stack([own[row, len(one) - 1] for row, one in enumerate(batch.encoded)])
    assert (logits(model) - expected).abs().max() < 1e-5 * expected.abs().max()  # W + ΔW is rounded to float32 once
    plain = logits(load_model(home / family, check=False))
    assert torch.equal(logits(model.variant("base")), plain) and not torch.equal(logits(model), plain)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, target_modules=TARGETS, modules_to_save=["lm_head"]),
        LoraConfig(r=2, target_modules=TARGETS, trainable_token_indices=[20, 21]),
        LoraConfig(r=2, target_modules=TARGETS, use_dora=True),
        LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"]),
        IA3Config(target_modules=TARGETS, feedforward_modules=["down_proj"]),
        LoHaConfig(r=2, target_modules=TARGETS),
        AdaLoraConfig(target_modules=TARGETS, total_step=10),
    ],
    ids=["whole module", "tokens", "DoRA", "embedding", "IA3", "LoHa", "AdaLoRA"],
)
def test_other_kinds_act_as_they_were_trained_and_leave_the_base(home, tmp_path, config):
    """Against peft's own forward of the folder; the base bit for bit."""
    module = FAMILIES["llama"]()[0]
    folder = noisy_adapter(tmp_path / "it", module, config)
    model, batch = load_model(home / "llama", adapter=folder), None
    batch = model.encode(PROMPTS)
    peft = PeftModel.from_pretrained(module, str(folder)).eval()
    with torch.no_grad():
        own = peft(**batch.inputs).logits
    expected = torch.stack([own[row, len(one) - 1] for row, one in enumerate(batch.encoded)])
    assert (logits(model) - expected).abs().max() < 1e-5 * expected.abs().max()
    plain = logits(load_model(home / "llama", check=False))
    assert torch.equal(logits(model.variant("base")), plain) and not torch.equal(logits(model), plain)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "of the kind PROMPT_TUNING, of which a part"),
        (PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "of the kind PREFIX_TUNING, of which a part"),
        (LoraConfig(r=2, target_modules=TARGETS, init_lora_weights="pissa"), "was trained on a base from which its"),
        (LoraConfig(r=2, target_modules=TARGETS, init_lora_weights="olora"), "was trained on a base from which its"),
    ],
    ids=["prompt tuning", "prefix tuning", "PiSSA", "OLoRA"],
)
def test_pitfall_05_kinds_whose_base_would_not_be_the_base_are_refused(home, tmp_path, config, says):
    folder = noisy_adapter(tmp_path / "it", FAMILIES["llama"]()[0], config)
    with pytest.raises(ValueError, match=says):
        load_model(home / "llama", adapter=folder)


def test_pitfall_05_an_adapter_that_brings_biases_of_the_base_is_refused(home, tmp_path):
    """Switched off, it would leave them behind: the variant `base` would be another model."""
    config = LoraConfig(r=2, target_modules=["c_attn"], bias="lora_only", fan_in_fan_out=True)
    folder = noisy_adapter(tmp_path / "it", FAMILIES["gpt2"]()[0], config)
    with pytest.raises(ValueError, match=r"changes weights of the base itself \(biases, for one\)"):
        load_model(home / "gpt2", adapter=folder)


def _renamed(folder, old, new):
    stored = load_file(folder / "adapter_model.safetensors")
    assert all(old in key for key in stored)
    save_file({key.replace(old, new): value for key, value in stored.items()}, folder / "adapter_model.safetensors")


def test_pitfall_05_names_of_an_older_transformers_land_and_strange_ones_are_refused(home, tmp_path):
    """`language_model.model.layers` became `model.language_model.layers`; what peft does not know how to rename finds
    no place, and would be the identity."""
    module, prefix = FAMILIES["gemma3"]()[0], "base_model.model.model.language_model.layers"
    config = LoraConfig(r=2, target_modules=r".*language_model.*(q_proj|down_proj)")
    folder = noisy_adapter(tmp_path / "it", module, config)
    same = logits(load_model(home / "gemma3", adapter=folder, check=False))
    _renamed(folder, prefix, "base_model.model.language_model.model.layers")
    assert torch.equal(logits(load_model(home / "gemma3", adapter=folder, check=False)), same)
    _renamed(folder, "base_model.model.language_model.model.layers", "base_model.model.model.text_model.layers")
    with pytest.raises(ValueError, match=r"did not load: 16 of its 16 tensors found no place"):
        load_model(home / "gemma3", adapter=folder, check=False)


def test_an_adapter_that_says_it_is_of_another_base_is_refused(home, tmp_path):
    folder = noisy_adapter(tmp_path / "it", FAMILIES["llama"]()[0])
    own = load_model(home / "llama", adapter=folder, check=False).identity["weights"]
    for base, refused in ((own, False), ("0" * 64, True), ("org/name", False)):
        (folder / "training.json").write_text(json.dumps({"base": base}))
        if refused:
            with pytest.raises(ValueError, match=r"was trained on another base \(weights 000000000000; these are"):
                load_model(home / "llama", adapter=folder, check=False)
        else:
            assert load_model(home / "llama", adapter=folder, check=False).variants == ("base", "tuned")


def test_names_kinds_and_merged_adapters_that_cannot_be(home, tmp_path):
    module = FAMILIES["llama"]()[0]
    one = noisy_adapter(tmp_path / "one", module)
    other = noisy_adapter(
        tmp_path / "other", module, IA3Config(target_modules=TARGETS, feedforward_modules=TARGETS[1:])
    )
    with pytest.raises(ValueError, match=r"cannot be called 'r\.128': expected a name without dots"):
        load_model(home / "llama", adapter={"r.128": one})
    with pytest.raises(ValueError, match="different peft types"):
        load_model(home / "llama", adapter={"one": one, "other": other})
    peft = PeftModel.from_pretrained(module, str(one))
    peft.merge_adapter()
    with pytest.raises(ValueError, match="has adapters merged into its weights"):
        load_model(peft, byte_tokenizer())
