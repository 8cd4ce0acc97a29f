"""Ways to get a silently wrong number that no other file is about; each test is named by its number in the list that
the others are named by as well, and a meta-test counts them all."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import chat
from own_hooks import everything, noise
from seeing import Seen
from tiny_models import FAMILIES

from hooks.asked import distance, pushed
from hooks.load import load_model
from hooks.pool import Pool
from hooks.prompt import PromptError
from hooks.site import Site
from workbench.interventions.ablate import Ablate
from workbench.interventions.proof import leftover
from workbench.subspace.directions import Directions
from workbench.units import length_sorted

LATER = {39: "leave-one-out predictors come with the study of domains", 41: "membership scores come with it"}


def test_every_pitfall_has_a_test():
    found = {
        int(n)
        for file in Path(__file__).parent.glob("test_*.py")
        for n in re.findall(r"def test_pitfall_(\d+)_", file.read_text())
    }
    assert found | LATER.keys() == set(range(1, 45)), sorted(set(range(1, 45)) - found - LATER.keys())
    assert not found & LATER.keys(), "it came: take it off the list"


# Attention sinks and outliers.


def test_pitfall_10_a_mean_over_all_positions_leaves_the_sink_out(llama):
    """The first position's norm is 10 to 1000 times that of the others in trained models: here it is made so."""

    def sink(resid, where):
        return torch.where((where.tokens.position == 0)[..., None], resid * 1000, resid)

    batch = llama.encode([chat("a", "a somewhat longer question")])
    kept = llama.run(batch, {Site(0): Pool("all", "mean")}, {Site(0): [sink]}).kept[Site(0)]
    whole = llama.run(batch, {Site(0): everything}).kept[Site(0)][0]
    torch.testing.assert_close(kept[0], whole[1:].mean(dim=0), rtol=1e-5, atol=1e-6)
    assert (whole * torch.tensor([1000.0] + [1.0] * (len(whole) - 1))[:, None]).mean(0).norm() > 10 * kept.norm()


# Deepstack: features that are added between the blocks.


@pytest.fixture(scope="module")
def deepstack(tmp_path_factory):
    return Seen("qwen3_vl", tmp_path_factory.mktemp("qwen3_vl"))


@pytest.fixture(scope="module")
def plain_vision(tmp_path_factory):
    return Seen("gemma3", tmp_path_factory.mktemp("gemma3"))


def test_pitfall_14_the_layers_where_image_features_come_in_are_found(deepstack, plain_vision, llama):
    model = deepstack.model
    assert model.injected_layers() and not plain_vision.model.injected_layers() and not llama.injected_layers()
    batch = model.encode([deepstack.prompt("a", "square", "what is it")])
    kept = model.run(
        batch, {Site(layer, p): everything for layer in range(model.n_layers) for p in ("resid_pre", "resid_post")}
    ).kept
    for layer in range(1, model.n_layers):
        moved = (kept[Site(layer, "resid_pre")] != kept[Site(layer - 1)]).any(-1)
        expected = (
            batch.tokens.is_image if layer in model.injected_layers() else torch.zeros_like(batch.tokens.is_image)
        )
        assert torch.equal(moved, expected), "at image positions, and there only"


def test_pitfall_14_an_ablation_everywhere_is_not_undone_by_image_features(deepstack, monkeypatch):
    model = deepstack.model
    sites = [Site(0, "resid_pre"), *(Site(layer) for layer in range(model.n_layers))]
    v = Directions.of(
        tuple(sites), np.random.default_rng(0).standard_normal((len(sites), model.d_model)), kind="random"
    )
    prompts = [deepstack.prompt("a", "square", "what is it"), deepstack.prompt("b", "see ", "wide")]
    proof = leftover(model, prompts, Ablate(v, to="zero"))
    assert proof.complete, str(proof)
    # The meta-test: at block outputs only, the features bring the direction back.
    monkeypatch.setitem(model._found, "injected", ())
    undone = {one.site.layer for one in leftover(model, prompts, Ablate(v, to="zero")).sites if not one.gone}
    monkeypatch.undo()
    assert undone == set(model.injected_layers())


def test_pitfall_15_a_truncated_image_is_refused(plain_vision):
    """Placeholders cut off by a length limit: the model would fill the wrong tokens, or crash deep inside."""
    encoder, prompt = plain_vision.model.encoder, plain_vision.prompt("a", "square", "what")
    processor = encoder.processor
    whole = type(processor).__call__

    def cut(self, *args, **kwargs):
        out = whole(self, *args, **kwargs)
        ids = out["input_ids"]
        keep = torch.ones_like(ids, dtype=torch.bool)
        keep[0, (ids[0] == encoder.image_token_id).nonzero()[-1]] = False
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            if name in out:
                out[name] = out[name][keep][None]
        return out

    with pytest.MonkeyPatch.context() as patch, pytest.raises((PromptError, ValueError), match=r"(?i)image"):
        patch.setattr(type(processor), "__call__", cut)
        plain_vision.model.run(plain_vision.model.encode([prompt]))


def test_pitfall_16_a_static_cache_is_refused_and_a_checkpoints_wish_for_one_does_not_count(gemma3, llama, monkeypatch):
    """With a static cache the image tokens' view of each other is dropped."""
    batch = llama.encode([chat("a", "hi")])
    with pytest.raises(ValueError, match=r"cache_implementation='static': .* expected 'dynamic'"):
        llama.generate(batch, max_new_tokens=2, cache_implementation="static")
    plain = llama.generate(batch, max_new_tokens=3).token_ids
    seen = {}
    forward = llama.module.generate
    monkeypatch.setattr(llama.module.generation_config, "cache_implementation", "static")
    config = llama.module.generation_config
    monkeypatch.setattr(
        llama.module,
        "generate",
        lambda **options: seen.update(vars(llama.module.generation_config)) or forward(**options),
    )
    assert llama.generate(batch, max_new_tokens=3).token_ids == plain
    assert seen["cache_implementation"] is None and seen["eos_token_id"] == config.eos_token_id
    assert llama.module.generation_config is config, "it is the user's again"


def test_pitfall_17_the_identity_states_which_layers_see_how_far(gemma3, llama):
    """A last-token reading at a sliding layer cannot know of what lies before its window."""
    assert gemma3.identity["sliding_window"] == 16
    assert gemma3.identity["layer_types"] == ["sliding_attention", "full_attention"] * 2
    assert "sliding_window" not in llama.identity
    # The fact behind it: the first layer's last residual does not move when a token beyond its window changes.
    one = gemma3.encode([chat("a", "Xbcdefghijklmnopqrstuvwxyz and so on")])
    two = gemma3.encode([chat("a", "Ybcdefghijklmnopqrstuvwxyz and so on")])
    last = [gemma3.run(batch, {Site(n): Pool("last") for n in range(2)}).kept for batch in (one, two)]
    assert torch.equal(last[0][Site(0)], last[1][Site(0)]) and not torch.equal(last[0][Site(1)], last[1][Site(1)])


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
    return Seen("mllama", tmp_path_factory.mktemp("mllama"))


def test_pitfall_18_a_block_that_text_does_not_pass_leaves_the_stream_as_it_is(crossing):
    """Mllama's cross-attention blocks stand in the same list and do not run without an image."""
    model = crossing.model
    (skipped,) = model.towers["language"].skipped
    batch = model.encode([crossing.prompt("a", "no picture")])
    sites = [Site(skipped - 1), Site(skipped, "resid_pre"), Site(skipped), Site(skipped + 1, "resid_pre")]
    kept = model.run(batch, dict.fromkeys(sites, everything)).kept
    assert all(torch.equal(kept[site], kept[sites[0]]) for site in sites)
    edited = [model.run(batch, edits={site: [noise(model)]}).logits for site in (Site(skipped - 1), Site(skipped))]
    assert torch.equal(*edited) and not torch.equal(edited[0], model.run(batch).logits)
    seeing = model.encode([crossing.prompt("a", "square", "what")])
    kept = model.run(seeing, dict.fromkeys(sites, everything)).kept
    assert not torch.equal(kept[Site(skipped)], kept[Site(skipped - 1)]), "with an image the block acts"


def test_pitfall_18_rows_that_would_misalign_do_not_share_a_batch(crossing):
    prompts = [crossing.prompt("a", "square", "what"), crossing.prompt("b", "no picture")]
    with pytest.raises(PromptError, match=r"(?i)batch"):
        crossing.model.encode(prompts)


# What runs the model, and what its weights are.


def test_pitfall_22_the_attention_kernel_is_part_of_the_identity():
    """Eager and SDPA differ by a rounding or more: rows of both do not belong into one store."""
    module, tokenizer, _ = FAMILIES["llama"]()
    sdpa = load_model(module, tokenizer)
    other, _, _ = FAMILIES["llama"]()
    other.set_attn_implementation("eager")
    eager = load_model(other, tokenizer)
    assert (sdpa.identity["attention"], eager.identity["attention"]) == ("sdpa", "eager")
    assert {k: v for k, v in sdpa.identity.items() if k != "attention"} == {
        k: v for k, v in eager.identity.items() if k != "attention"
    }


def test_pitfall_23_vllm_is_refused_with_the_reason():
    module, tokenizer, _ = FAMILIES["llama"]()
    with pytest.raises(ValueError, match=r"backend 'vllm' is not available: .* vLLM fuses the residual"):
        load_model(module, tokenizer, backend="vllm")


def test_pitfall_24_packed_weights_are_refused():
    """Two numbers to a byte, as bitsandbytes keeps them: a matrix product with them is nonsense."""
    module, tokenizer, _ = FAMILIES["llama"]()
    linear = module.model.layers[1].mlp.up_proj
    linear.weight = torch.nn.Parameter(torch.zeros(768, 1, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight is packed \(uint8, .*dequantised"):
        load_model(module, tokenizer)


# How we test, and how fast.


def test_pitfall_33_self_tests_push_along_a_random_vector(gpt2):
    """LayerNorm takes the all-ones direction out again: a self-test by it would see nothing at the last block."""
    batch, last = gpt2.encode([chat("a", "hi")]), Site(gpt2.n_layers - 1)
    plain = gpt2.run(batch).logits
    ones = gpt2.run(batch, edits={last: [lambda resid, where: resid + 1.0]}).logits
    random = gpt2.run(batch, edits={last: [pushed(gpt2, 0.3)]}).logits
    assert distance(ones, plain) < 1e-4 and distance(random, plain) > 1e-2


def test_pitfall_35_what_is_selected_is_contiguous(llama):
    """A linear layer on a strided [row, 1, d_model] slice in bfloat16 is 100 times slower on a CPU."""
    batch = llama.encode([chat("a", "hi"), chat("b", "a somewhat longer question")])
    trace = llama.run(batch, {Site(0): Pool("last"), Site(1): Pool("all")})
    assert all(kept.is_contiguous() for kept in trace.kept.values()) and trace.logits.is_contiguous()


def test_pitfall_40_the_plan_of_batches_depends_on_the_prompts_alone():
    """Another pad length changes float32 by 3e-7 and bfloat16 by .9 % of scale: the same units, the same bits."""
    lengths = [5, 9, 5, 30, 12, 9]
    assert length_sorted(lengths, 40) == length_sorted(list(lengths), 40)
    assert sorted(i for unit in length_sorted(lengths, 40) for i in unit) == list(range(6))


def test_pitfall_44_text_rows_of_an_image_model_give_generate_no_pixels(gemma3, monkeypatch):
    """`generate(pixel_values=None)` runs the vision tower and crashes: the argument is left out."""
    seen = {}
    forward = gemma3.module.generate
    monkeypatch.setattr(gemma3.module, "generate", lambda **options: seen.update(options) or forward(**options))
    out = gemma3.generate(gemma3.encode([chat("a", "no picture")]), max_new_tokens=2)
    assert len(out.token_ids[0]) in (1, 2) and "pixel_values" not in seen and "input_ids" in seen
