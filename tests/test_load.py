"""load_model: folders and modules, adapters on and off, identity, and what is refused."""

import copy
import sys

import pytest
import torch
from conftest import chat
from own_hooks import everything
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, byte_tokenizer
from tiny_models import llama as tiny_llama

from hooks.blocks import find_blocks, unwrapped
from hooks.load import folder_hash, load_model
from hooks.site import Site

PROMPTS = [chat("a", "hi"), chat("b", "a longer question")]


def adapter(folder, module, *, seed=0, targets=("q_proj", "down_proj"), zero=False, rank=2):
    """Writes a LoRA adapter for a copy of the module; its B is noise, or zero (the identity)."""
    peft = get_peft_model(copy.deepcopy(module), LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in peft.named_parameters():
            if "lora_B" in name and not zero:
                weight.normal_(0, 0.5, generator=generator)
    peft.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Folders: `llama` and `gemma3` checkpoints, adapters `one` and `two` of llama."""
    root = tmp_path_factory.mktemp("models")
    for family in ("llama", "gemma3"):
        module, tokenizer, processor = FAMILIES[family]()
        module.save_pretrained(root / family)
        (processor or tokenizer).save_pretrained(root / family)
    module = tiny_llama()[0]
    adapter(root / "one", module, seed=1)
    adapter(root / "two", module, seed=2)
    return root


@pytest.fixture(scope="module")
def tuned(home):
    return load_model(home / "llama", adapter={"one": home / "one", "two": home / "two"})


def logits(model):
    return model.run(model.encode(PROMPTS)).logits


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_folder_gives_the_module_that_was_saved(home, family, request):
    loaded, module = load_model(home / family), request.getfixturevalue(family)
    assert torch.allclose(logits(loaded), logits(module), atol=1e-6)  # see the test below
    assert loaded.identity["model"] == family and loaded.identity["weights"] == folder_hash(home / family)
    assert not loaded.module.training and loaded.variants == ("base",) and loaded.active is None
    assert family in repr(loaded) and "d_model 32" in repr(loaded)


def test_an_image_text_checkpoint_brings_its_processor(home, gemma3, picture):
    rows = [chat("i", picture, "what?")]
    loaded = load_model(home / "gemma3")
    ours, theirs = loaded.encode(rows).inputs, gemma3.encode(rows).inputs
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    # Equal weights at other addresses: in a mapped file they are aligned otherwise, and the BLAS sums in another order.
    assert torch.allclose(loaded.run(loaded.encode(rows)).logits, gemma3.run(gemma3.encode(rows)).logits, atol=1e-6)
    assert loaded.depths == {"language": 4, "vision": 2}


def test_pitfall_05_with_the_adapter_off_it_is_the_base_bit_for_bit(home, tuned):
    plain = logits(load_model(home / "llama"))
    assert torch.equal(logits(tuned.variant("base")), plain)
    one, two = logits(tuned.variant("one")), logits(tuned.variant("two"))
    assert not torch.equal(one, plain) and not torch.equal(two, plain) and not torch.equal(one, two)
    assert torch.equal(logits(tuned.variant("base")), plain), "and again, after the others"
    assert torch.equal(logits(tuned), one), "the model itself is its first adapter"


def test_variants_are_views_that_do_not_disturb_each_other(tuned):
    base, one = tuned.variant("base"), tuned.variant("one")
    first = logits(one)
    assert base.module is one.module and base.active is None and one.active == "one"
    logits(base)
    assert torch.equal(logits(one), first)
    with pytest.raises(ValueError, match="variant 'three' is not loaded: expected one of base, one, two"):
        tuned.variant("three")


def test_an_adapter_is_compared_unmerged_and_agrees_with_peft(home, tuned):
    """PEFT's own forward of the same adapter, and generation under each variant."""
    module = tiny_llama()[0]
    peft = PeftModel.from_pretrained(module, str(home / "one")).eval()
    batch = tuned.encode(PROMPTS)
    with torch.no_grad():
        own = peft(**batch.inputs, use_cache=False).logits
    expected = torch.stack([own[row, len(one) - 1] for row, one in enumerate(batch.encoded)])
    assert (logits(tuned.variant("one")) - expected).abs().max() < 1e-5 * expected.abs().max()  # other matrix shapes
    texts = {name: tuned.variant(name).generate(batch, max_new_tokens=5).token_ids for name in tuned.variants}
    assert texts["base"] == load_model(home / "llama").generate(batch, max_new_tokens=5).token_ids != texts["one"]


def test_hooks_read_the_stream_inside_a_peft_wrapper(tuned, home):
    """The sites of base and tuned are the same blocks; the embedding has no adapter and stays equal."""
    batch = tuned.encode(PROMPTS)
    sites = [Site(0, "resid_pre"), Site(0)]
    base, one = (tuned.variant(name).run(batch, dict.fromkeys(sites, everything)).kept for name in ("base", "one"))
    assert torch.equal(base[sites[0]], one[sites[0]]) and not torch.equal(base[sites[1]], one[sites[1]])
    peft = PeftModel.from_pretrained(tiny_llama()[0], str(home / "one"))
    assert find_blocks(peft) == list(peft.base_model.model.model.layers)
    assert unwrapped(peft) is peft.base_model.model


def test_pitfall_05_a_peft_model_in_memory_keeps_a_true_base(home):
    """`get_base_model()` still has the adapter on: the base variant must switch it off."""
    plain, module = logits(load_model(home / "llama")), tiny_llama()[0]
    peft = PeftModel.from_pretrained(module, str(home / "one"))
    model = load_model(peft, byte_tokenizer())
    assert model.variants == ("base", "default") and model.active == "default"
    assert not torch.equal(logits(model), plain) and torch.equal(logits(model.variant("base")), plain)
    with pytest.raises(ValueError, match=r"adapters inside it \(default\), so what counts as its base is unclear"):
        load_model(module, byte_tokenizer())
    with pytest.raises(ValueError, match=r"expected either a PeftModel, or adapter=..., not both"):
        load_model(peft, byte_tokenizer(), adapter=home / "two")
    merged = load_model(
        PeftModel.from_pretrained(tiny_llama()[0], str(home / "one")).merge_and_unload(), byte_tokenizer()
    )
    assert merged.variants == ("base",)
    assert torch.allclose(logits(merged), logits(model), atol=1e-4)


def test_pitfall_05_an_adapter_that_changes_nothing_is_refused(home, tmp_path):
    idle = adapter(tmp_path / "idle", tiny_llama()[0], zero=True)
    with pytest.raises(ValueError, match=r"adapter 'tuned' changes nothing: .*\(an untrained LoRA has B = 0\)"):
        load_model(home / "llama", adapter=idle)


def test_an_adapter_of_the_vision_tower_alone_is_no_identity(home, tmp_path):
    """A probe of text does not pass the tower, so the adapter's weights are asked."""
    module, _, _ = FAMILIES["gemma3"]()
    towers = "|".join(name for name, _ in module.named_modules() if "vision_tower" in name and name.endswith("q_proj"))
    for zero in (False, True):
        config = LoraConfig(r=2, target_modules=towers.replace(".", r"\."))
        peft = get_peft_model(copy.deepcopy(module), config)
        with torch.no_grad():
            [weight.fill_(0.0 if zero else 0.3) for name, weight in peft.named_parameters() if "lora_B" in name]
        peft.save_pretrained(str(tmp_path / f"{zero}"))
    assert load_model(home / "gemma3", adapter=tmp_path / "False").variants == ("base", "tuned")
    with pytest.raises(ValueError, match="changes nothing"):
        load_model(home / "gemma3", adapter=tmp_path / "True")


def test_an_adapter_of_another_architecture_is_refused(home, tmp_path):
    """Other module names, another depth, another width: none may load in part."""
    gpt2 = adapter(tmp_path / "gpt2", FAMILIES["gpt2"]()[0], targets=["c_attn"])
    deeper = adapter(tmp_path / "deeper", tiny_llama(layers=5)[0])
    shallower = adapter(tmp_path / "shallower", tiny_llama(layers=2)[0])
    with pytest.raises(ValueError, match="c_attn"):
        load_model(home / "llama", adapter=gpt2)
    with pytest.raises(ValueError, match=r"deeper did not load: \d+ of its 20 tensors found no place .*architecture"):
        load_model(home / "llama", adapter=deeper)
    with pytest.raises(ValueError, match=r"shallower did not load: .*4 places stayed empty"):
        load_model(home / "llama", adapter=shallower)


def test_a_folder_that_is_no_adapter_is_refused(home, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no adapter: expected adapter_config\.json and adapter_model"):
        load_model(home / "llama", adapter=tmp_path)
    with pytest.raises(ValueError, match="an adapter cannot be called 'base'"):
        load_model(home / "llama", adapter={"base": home / "one"})


def test_a_missing_folder_and_an_unknown_backend_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist: expected a checkpoint folder, or a hub name"):
        load_model(tmp_path / "nothing")
    with pytest.raises(ValueError, match="backend 'jax' is not available: expected"):
        load_model(tiny_llama()[0], byte_tokenizer(), backend="jax")
    with pytest.raises(ValueError, match=r"expected load_model\(module, tokenizer=...\)"):
        load_model(tiny_llama()[0])
    with pytest.raises(ValueError, match="expected a module as it should be"):
        load_model(tiny_llama()[0], byte_tokenizer(), dtype="bfloat16")


@pytest.mark.parametrize(("backend", "package"), [("transformer_lens", "transformer-lens"), ("nnsight", "nnsight")])
def test_a_back_end_whose_library_is_missing_says_what_installs_it(monkeypatch, tmp_path, backend, package):
    """Before the model is looked for, let alone read."""
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(
        ImportError, match=rf"which is not installed: expected `pip install {package}`, or backend='hf'"
    ):
        load_model(tmp_path / "none", backend=backend)


def test_identity_follows_weights_adapter_and_tokenizer(home, tuned, llama):
    plain = load_model(home / "llama").identity
    assert plain == load_model(home / "llama").identity
    assert tuned.identity["adapters"] == {"one": folder_hash(home / "one"), "two": folder_hash(home / "two")}
    assert folder_hash(home / "one") != folder_hash(home / "two")
    other = tiny_llama()[0]
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    assert load_model(other, byte_tokenizer()).identity["weights"] != llama.identity["weights"]
    tokenizer = byte_tokenizer()
    tokenizer.chat_template += " "
    assert load_model(tiny_llama()[0], tokenizer).identity["tokenizer"] != llama.identity["tokenizer"]
    assert load_model(tiny_llama()[0], byte_tokenizer()).identity == llama.identity


def test_dtype_and_its_residuals(home):
    half = load_model(home / "llama", dtype="bfloat16")
    assert half.dtype == torch.bfloat16 and half.identity["dtype"] == "bfloat16"
    assert half.run(half.encode(PROMPTS), {Site(1): everything}).kept[Site(1)].dtype == torch.bfloat16


def test_a_tower_of_another_name_is_refused(llama):
    with pytest.raises(ValueError, match="tower 'audio' is unknown"):
        find_blocks(llama.module, "audio")


def test_weights_that_are_missing_or_cut_short_are_refused(tmp_path):
    """Transformers would fill what is missing with random numbers, and only log it."""
    module, tokenizer, _ = FAMILIES["llama"]()
    for part in (module, tokenizer):
        part.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    assert load_model(tmp_path).n_layers == 3
    weights = load_file(file)
    lost = weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the weights .*model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(tmp_path)
    save_file({**weights, "model.layers.1.mlp.up_proj.weight": lost[:-1].clone()}, file, {"format": "pt"})
    with pytest.raises(ValueError, match="some have another shape"):
        load_model(tmp_path)
    file.write_bytes(b"xx")
    with pytest.raises(ValueError, match=r"cannot be read .* expected whole"):
        load_model(tmp_path)
