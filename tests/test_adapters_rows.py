"""Base and adapters as rows of one batch: each row against its weights added by hand; what cannot be is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import chat
from own_hooks import everything, hooks_left, noise, own_hooks
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from seeing import Seen
from tiny_adapters import added_by_hand, noisy_adapter
from tiny_models import FAMILIES, byte_tokenizer
from workbench_samples import by_place

from hooks.adapter_rows import Reads, RowsUnknown, measured_reads
from hooks.adapters import Adapters
from hooks.encode import Encoder
from hooks.load import load_model
from hooks.prompt import Prompt
from hooks.site import Site
from workbench.capturing import capture

PROMPTS = [chat("a", "hi"), chat("b", "what is this", response="a dog"), chat("c", "a longer question")]
TARGETS = {"llama": "all-linear", "gpt2": ["c_attn", "c_proj", "c_fc", "wte"], "gemma3": "all-linear"}
# float32 keeps 6e-8 of a number; a dozen sums of a few dozen terms, in another order where rows share a product.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Checkpoints of three families, each with adapters `one` and `two` on nearly every matrix."""
    root = tmp_path_factory.mktemp("rows")
    for family, targets in TARGETS.items():
        module, tokenizer, processor = FAMILIES[family]()
        module.save_pretrained(root / family)
        (processor or tokenizer).save_pretrained(root / family)
        for seed, name in enumerate(("one", "two")):
            config = LoraConfig(r=2 + seed, lora_alpha=4, target_modules=targets)
            noisy_adapter(root / f"{family}-{name}", module, config, seed=seed)
    return root


@pytest.fixture(scope="module")
def tuned(home):
    cache = {}

    def load(family="llama"):
        if family not in cache:
            adapters = {name: home / f"{family}-{name}" for name in ("one", "two")}
            cache[family] = load_model(home / family, adapter=adapters)
        return cache[family]

    return load


def sites_of(model):
    return dict.fromkeys([Site(layer) for layer in range(model.n_layers)], everything)


def off(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_pitfall_05_every_row_has_the_weights_of_its_own_variant(tuned, home, family):
    """Against W + scaling·B·A added by hand in a copy, read with plain hooks; variants in no order."""
    model, module = tuned(family), FAMILIES[family]()[0]
    own = {
        "base": module,
        "one": added_by_hand(module, home / f"{family}-one", 4 / 2),
        "two": added_by_hand(module, home / f"{family}-two", 4 / 3),
    }
    batch = model.encode([PROMPTS[0], PROMPTS[1], PROMPTS[2], PROMPTS[1], PROMPTS[1]])
    variants = ["two", "base", "one", "one", "two"]
    kept = model.variant(variants).run(batch, sites_of(model)).kept
    for name, weights in own.items():
        mine = [row for row, variant in enumerate(variants) if variant == name]
        plain = load_model(weights, byte_tokenizer(), check=False) if family == "llama" else None
        truth = own_hooks(plain or _with(model, weights), batch)
        for site in kept:
            for row in mine:
                real = len(batch.encoded[row])
                assert off(kept[site][row, :real], truth[site][row, :real]) < TOLERANCE, (name, site, row)
    assert hooks_left(model) == 0


def _with(model, weights):
    class Plain:
        module, masks_text = weights, model.masks_text

    return Plain


@pytest.mark.parametrize("family", TARGETS)
def test_rows_equal_single_forwards_in_run_and_generate(tuned, family):
    model = tuned(family)
    batch, variants = model.encode(PROMPTS), model.variants
    view, rows = model.across(batch, variants)
    model.variant("base").run(batch)  # adapters are off when the rows come
    trace, text = view.run(rows, sites_of(model)), view.generate(rows, max_new_tokens=6)
    for i, name in enumerate(variants):
        mine, own = slice(3 * i, 3 * i + 3), model.variant(name)
        single = own.run(batch, sites_of(model))
        assert off(trace.logits[mine], single.logits) < TOLERANCE
        assert all(off(trace.kept[site][mine], single.kept[site]) < TOLERANCE for site in trace.kept)
        assert text.token_ids[mine] == own.generate(batch, max_new_tokens=6).token_ids
    assert off(trace.logits[:3], trace.logits[3:6]) > 0.01, "the variants differ, or nothing was seen"
    assert hooks_left(model) == 0


def test_edits_of_single_rows_act_beside_adapters_of_single_rows(tuned):
    """Rows 0 and 2 are edited, rows 1 and 2 are tuned: every combination is its own single forward."""
    model = tuned()
    edit, batch = noise(model, size=5.0), model.encode([PROMPTS[0]] * 4)
    view = model.variant(["base", "one", "one", "base"])
    found = view.run(batch, edits={Site(1): [edit.for_rows([0, -1, 0, -1])]}).logits
    one = model.encode(PROMPTS[:1])
    for row, (name, edits) in enumerate([("base", True), ("one", False), ("one", True), ("base", False)]):
        single = model.variant(name).run(one, edits={Site(1): [edit]} if edits else None).logits[0]
        assert off(found[row], single) < TOLERANCE


def test_one_variant_on_all_rows_is_that_variant_bit_for_bit(tuned):
    model = tuned()
    batch = model.encode(PROMPTS)
    for name in model.variants:
        assert torch.equal(model.variant([name] * 3).run(batch).logits, model.variant(name).run(batch).logits)
    view, rows = model.across(batch, ("base", "one"))
    view.run(rows)
    assert torch.equal(model.run(batch).logits, model.variant("one").run(batch).logits), "left as it was"


def test_rows_and_variants_must_agree(tuned):
    model = tuned()
    with pytest.raises(ValueError, match=r"gives 2 rows their variants, and a batch of 3 rows came"):
        model.variant(["base", "one"]).run(model.encode(PROMPTS))
    with pytest.raises(ValueError, match=r"variant 'three' is not loaded: expected one of base, one, two"):
        model.variant(["base", "three"])
    with pytest.raises(ValueError, match="this model gives each row its own variant: expected variants="):
        capture(model.variant(["base", "one"]), PROMPTS, to="nowhere", progress=False)
    assert "base, one row by row" in repr(model.variant(["base", "one", "one"]))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (dict(use_dora=True), "DoraLinearVariant .* no plain LoRA"),
        (dict(modules_to_save=["lm_head"]), "brings a whole module or single token embeddings of its own at lm_head"),
        (dict(trainable_token_indices=[9]), "single token embeddings of its own at model.embed_tokens"),
        (dict(target_modules=[], target_parameters=["q_proj.weight"]), "ParamWrapper .* one adapter for all rows"),
        (None, r"is no LoRA \(Linear at model.layers.0.self_attn.q_proj\)"),
    ],
    ids=["DoRA", "whole module", "tokens", "parameters", "IA3"],
)
def test_what_cannot_act_by_row_is_refused_and_captured_one_by_one(home, config, says, tmp_path):
    module = FAMILIES["llama"]()[0]
    lora = dict(r=2, target_modules=["q_proj"])
    made = LoraConfig(**{**lora, **config}) if config else IA3Config(target_modules=["q_proj"], feedforward_modules=[])
    model = load_model(home / "llama", adapter=noisy_adapter(tmp_path / "it", module, made), check=False)
    with pytest.raises(ValueError, match=f"variants base, tuned cannot be rows of one batch: .*{says}"):
        model.variant(["base", "tuned"])
    settings = dict(variants=("base", "tuned"), progress=False)
    both = [capture(model, PROMPTS, to=tmp_path / f"{t}", together=t, **settings) for t in (True, False)]
    assert "together" not in both[0].spec
    assert all(np.array_equal(both[0].values(site), both[1].values(site)) for site in both[0].sites)


def test_merged_adapters_are_refused(home):
    peft = PeftModel.from_pretrained(FAMILIES["llama"]()[0], str(home / "llama-one"))
    model = load_model(peft, byte_tokenizer(), check=False)
    assert model.why_not_by_row(("base", "default")) is None
    peft.merge_adapter()
    with pytest.raises(ValueError, match="cannot be rows of one batch: an adapter is merged into the weights"):
        model.variant(["base", "default"])


# Which rows a layer reads.


def _two_adapters(module, targets):
    config = LoraConfig(r=2, target_modules=targets)
    peft = get_peft_model(module.eval(), config, adapter_name="one")
    peft.add_adapter("two", config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in peft.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3, generator=generator)
    return peft.eval()


def _batch(rows):
    return Encoder(byte_tokenizer())([Prompt(str(row), text="x") for row in range(rows)])


def test_rows_and_positions_in_one_axis_are_told_apart():
    """A shared expert reads [rows · positions, width]."""
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    torch.manual_seed(0)
    small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=99)
    sizes = dict(intermediate_size=48, moe_intermediate_size=16, shared_expert_intermediate_size=24, num_experts=4)
    peft = _two_adapters(Qwen2MoeForCausalLM(Qwen2MoeConfig(**small, **sizes)), r".*shared_expert\.\w+_proj|.*q_proj")
    module, adapters = peft.get_base_model(), Adapters(peft, ("one", "two"))
    assert {reads.flat for reads in measured_reads(module).values()} == {False, True}
    variants, ids = ("two", "base", "one", "two"), torch.arange(10, 38).view(4, 7)
    with torch.inference_mode():
        with adapters.acting(variants, _batch(4)):
            found = module(input_ids=ids).logits
        for row, name in enumerate(variants):
            with adapters.acting(None if name == "base" else name):
                assert off(found[row], module(input_ids=ids).logits[row]) < TOLERANCE


def test_a_row_axis_that_is_not_the_first_is_refused_even_where_the_shape_would_fit():
    """XLNet's blocks read [position, row, width]; with as many positions as rows nothing but the measuring shows it."""
    from transformers import XLNetConfig, XLNetLMHeadModel

    peft = _two_adapters(
        XLNetLMHeadModel(XLNetConfig(vocab_size=99, d_model=32, n_layer=2, n_head=4, d_inner=48)), ["layer_1"]
    )
    module, adapters = peft.get_base_model(), Adapters(peft, ("one", "two"))
    assert measured_reads(module) == {}
    assert (
        adapters.why_not_by_row(("one", "two"))
        == "a short forward on text did not show which rows its LoRA layers read"
    )
    adapters._reads = {"another layer": Reads(3, flat=False)}  # so that the forward is reached
    variants, ids = ("one", "two", "two", "one"), torch.arange(10, 26).view(4, 4)
    refused = pytest.raises(RowsUnknown, match=r"layer_1 reads \(4, 4, 32\) in a batch of 4 rows")
    with refused, torch.inference_mode(), adapters.acting(variants, _batch(4)):
        module(input_ids=ids)
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_rows_in_another_order_are_not_told():
    """A part of the model that turns the rows round: the shapes fit, and the row that moved stands elsewhere."""
    peft = _two_adapters(FAMILIES["llama"]()[0], ["q_proj", "down_proj"])
    module: Any = peft.get_base_model()
    assert len(measured_reads(module)) == 6
    mlp = module.model.layers[1].mlp
    mlp.register_forward_pre_hook(lambda part, args: (args[0].flip(0),))
    mlp.register_forward_hook(lambda part, args, out: out.flip(0))
    told = measured_reads(module)
    assert len(told) == 5 and "model.layers.1.mlp.down_proj" not in told


# Towers.


@pytest.mark.parametrize(("family", "where"), [("gemma3", "all"), ("qwen2_vl", "blocks"), ("llava", "all")])
def test_rows_of_a_tower_are_pictures_not_prompts(family, where, tmp_path):
    """One, two and no picture in a prompt: told by the pictures, as rows or as packed patches; a projector's rows are
    not told (llava), and capture goes one by one."""
    seen = Seen(family, tmp_path / "model")
    blocks = [*seen.tower, *seen.model.towers["language"].blocks]
    inside = {id(part) for block in blocks for part in block.modules()}
    targets = [
        name
        for name, part in seen.model.module.named_modules()
        if isinstance(part, torch.nn.Linear) and "lm_head" not in name and (where == "all" or id(part) in inside)
    ]
    peft = _two_adapters(seen.model.module, targets)
    model = load_model(peft, seen.model.tokenizer, seen.model.encoder.processor, check=False)
    batch, variants = model.encode(seen.prompts()), ("base", "one", "two")
    view, rows = model.across(batch, variants)
    if family == "llava":
        with pytest.raises(RowsUnknown, match=r"multi_modal_projector\.linear_1 reads"):
            view.run(rows)
        settings = dict(sites="resid_post", variants=variants, progress=False)
        both = [capture(model, seen.prompts(), to=tmp_path / f"{t}", together=t, **settings) for t in (True, False)]
        found, truth = (by_place(store, "resid_post:1") for store in both)
        pictured = {prompt.id for prompt in seen.prompts() if prompt.images}  # units of text go together all the same
        assert all(np.array_equal(found[key], truth[key]) for key in truth if key[0] in pictured)
        assert found.keys() == truth.keys() and all(np.allclose(found[key], truth[key], atol=1e-4) for key in truth)
    else:
        logits = view.run(rows).logits.chunk(3)
        single = [model.variant(name).run(batch).logits for name in variants]
        assert all(off(mine, own) < TOLERANCE for mine, own in zip(logits, single, strict=True))
        assert off(single[1], single[2]) > 0.01
    assert not any(part._forward_pre_hooks for part in model.module.modules())


def test_nnsight_runs_adapters_by_row_as_well(tuned, home):
    model = load_model(home / "llama", adapter=home / "llama-one", backend="nnsight", check=False)
    batch = model.encode(PROMPTS)
    view, rows = model.across(batch, ("base", "tuned"))
    found = view.run(rows, sites_of(model))
    single = [tuned().variant(name).run(batch, sites_of(model)) for name in ("base", "one")]
    assert off(found.logits, torch.cat([one.logits for one in single])) < TOLERANCE
    real = rows.tokens.position >= 0  # nnsight passes the mask, which pads see
    for site in found.kept:
        assert off(found.kept[site][real], torch.cat([one.kept[site] for one in single])[real]) < TOLERANCE
