"""Captures against an independent pair of hooks on the raw model, bit for bit."""

import pytest
import torch
from conftest import chat
from own_hooks import blocks_of, everything, noise, own_hooks, own_inputs, sites_of
from tiny_models import FAMILIES

from hooks.blocks import UnsupportedArchitecture, find_blocks
from hooks.load import load_model
from hooks.pool import Pool
from hooks.site import Site


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("scope", ["all", "last", "response", "image", "prompt"])
def test_captures_equal_own_hooks_bit_for_bit(scene, scope, logits):
    model, prompts = scene
    batch = model.encode(prompts)
    truth, sites = own_hooks(model, batch), sites_of(model)
    trace = model.run(batch, {site: Pool(scope) for site in sites}, logits=logits)
    tokens = batch.tokens
    columns = [
        [
            column
            for column in range(tokens.position.shape[1])
            if tokens.position[row, column] >= 0
            and {
                "all": True,
                "prompt": column < one.prompt_length,
                "last": column == one.prompt_length - 1,
                "response": one.prompt_length <= column < one.prompt_length + one.response_length,
                "image": tokens.input_ids[row, column] == 7 and model.encoder.image_token_id == 7,
            }[scope]
        ]
        for row, one in enumerate(batch.encoded)
    ]
    assert scope == "image" or any(columns)
    for site in sites:
        expected = torch.cat([truth[site][row, listed] for row, listed in enumerate(columns)])
        if expected.numel() or scope == "image":
            assert torch.equal(trace.kept[site], expected)
    row, position, token = Pool(scope).index(tokens)
    assert row.tolist() == [row for row, listed in enumerate(columns) for _ in listed]
    assert position.tolist() == [column for listed in columns for column in listed]
    assert token.tolist() == tokens.input_ids[row, position].tolist()


@pytest.mark.parametrize("scope", ["prompt", "all", "image"])
def test_a_mean_is_the_float64_mean_to_float32_rounding(scene, scope):
    """The pooled mean is a float32 sum over at most 60 positions: 1e-5 of scale is above its rounding."""
    model, prompts = scene
    batch = model.encode(prompts)
    truth, site, tokens = own_hooks(model, batch), Site(1), batch.tokens
    pool = Pool(scope, "mean")
    kept = model.run(batch, {site: pool}, logits=False).kept[site]
    expected = []
    for row in range(len(batch)):
        mask = tokens.mask(scope)[row]
        if scope == "all":
            mask = mask & (tokens.position[row] != 0)  # pitfall 10: position 0 drowns the others
        if mask.any():
            expected.append(truth[site][row][mask].double().mean(dim=0))
    assert len(kept) == len(expected) == len(pool.index(tokens)[0])
    if expected:
        expected = torch.stack(expected)
        assert (kept - expected).abs().max() < 1e-5 * expected.abs().max()
        assert kept.dtype == torch.float32


def test_logits_are_those_of_the_last_real_token(scene):
    """Pitfall 6: with right padding `[:, -1]` is a pad; each row's own column is read."""
    model, prompts = scene
    batch = model.encode(prompts)
    truth = own_hooks(model, batch)[None]
    # The LM head is applied to the wanted columns only, another matrix shape: float32 rounding, 1e-5 of scale.
    expected = torch.stack([truth[row, len(one) - 1] for row, one in enumerate(batch.encoded)])
    logits = model.run(batch).logits
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))


def test_pitfall_26_right_padded_rows_equal_single_prompts(scene):
    """Tolerance 1e-5 of the site's scale: another batch shape lets the BLAS sum in another order (pitfall 40), while a
    mask or a position that is wrong shows at 1e-2 and more on these loud weights."""
    model, prompts = scene
    sites = sites_of(model)
    keep = dict.fromkeys(sites, everything)
    batch = model.encode(prompts)
    together = model.run(batch, keep)
    for row, prompt in enumerate(prompts):
        alone = model.run(model.encode([prompt]), keep)
        real = len(batch.encoded[row])
        for site in sites:
            scale = alone.kept[site].abs().max()
            assert (together.kept[site][row, :real] - alone.kept[site][0]).abs().max() < 1e-5 * scale
        assert (together.logits[row] - alone.logits[0]).abs().max() < 1e-5 * alone.logits.abs().max()


def test_a_batch_padded_left_is_run_padded_right(scene):
    model, prompts = scene
    batch = model.encode(prompts)
    assert torch.equal(model.run(batch.padded("left")).logits, model.run(batch).logits)


def test_pitfall_06_pad_tokens_change_no_residual(llama):
    """Whatever id stands at the pads, real positions keep their bits."""
    batch = llama.encode([chat("a", "hi"), chat("b", "a longer question than that")])
    keep = {Site(2): Pool("all")}
    before = llama.run(batch, keep).kept[Site(2)]
    batch.inputs["input_ids"][batch.tokens.position < 0] = 99
    assert torch.equal(llama.run(batch, keep).kept[Site(2)], before)


def test_pitfall_01_the_last_residual_is_not_the_normed_one(scene):
    model, prompts = scene
    batch = model.encode(prompts)
    final = Site(model.n_layers - 1)
    kept = model.run(batch, dict.fromkeys(sites_of(model), everything)).kept
    with torch.no_grad():
        states = model.module(**own_inputs(model, batch), use_cache=False, output_hidden_states=True).hidden_states
    for layer in range(model.n_layers - 1):
        assert torch.equal(states[layer + 1], kept[Site(layer)])
    assert not torch.allclose(states[-1], kept[final], atol=1e-2), "hidden_states[-1] is after the final norm"
    assert torch.equal(kept[final], own_hooks(model, batch)[final])


def test_pitfall_12_the_embedding_is_the_input_of_block_0(scene):
    """Not `embed_tokens.weight[ids]`: Gemma scales it by sqrt(d), GPT-2 adds positions."""
    model, prompts = scene
    batch = model.encode(prompts)
    kept = model.run(batch, {Site(0, "resid_pre"): everything}, logits=False).kept[Site(0, "resid_pre")]
    raw = model.module.get_input_embeddings().weight[batch.inputs["input_ids"]]
    real = batch.tokens.position >= 0
    text = real & ~batch.tokens.is_image
    name = type(model.module).__name__
    if name.startswith("Llama"):
        assert torch.equal(kept[real], raw[real])
    elif name.startswith("Gemma"):
        assert torch.allclose(kept[text], raw[text] * model.d_model**0.5)
    else:
        assert not torch.allclose(kept[real], raw[real], atol=1e-3)


def test_pitfall_32_the_recorders_of_transformers_see_the_edited_stream(llama):
    """They are installed by the first `output_hidden_states=True` and stay for good: edits must act before them."""
    batch, edits = llama.encode([chat("a", "hi")]), {Site(0): [noise(llama)]}
    with torch.no_grad():
        plain = llama.module(**batch.inputs, output_hidden_states=True).hidden_states[1]
    kept = llama.run(batch, {Site(0): everything}, edits).kept[Site(0)]
    with torch.no_grad(), llama._hooked(batch, None, edits, lambda: batch.tokens):
        recorded = llama.module(**batch.inputs, use_cache=False, output_hidden_states=True).hidden_states[1]
    assert torch.equal(recorded, kept) and not torch.equal(recorded, plain)


def test_the_blocks_are_found_where_they_are(scene):
    model, _ = scene
    assert find_blocks(model.module) == blocks_of(model)
    if "vision" in model.towers:
        assert find_blocks(model.module, "vision") == blocks_of(model, "vision")
    else:
        with pytest.raises(UnsupportedArchitecture, match="has no vision tower"):
            find_blocks(model.module, "vision")


def test_pitfall_16_image_tokens_see_each_other_both_ways(gemma3, picture):
    """Gemma3 needs the processor's token types for that; they are passed, and they do change the residuals."""
    batch = gemma3.encode([chat("a", picture, "what?")])
    seen = gemma3.run(batch, {Site(1): Pool("image")}).kept[Site(1)]
    assert batch.inputs["token_type_ids"].sum() == 4
    batch.inputs["token_type_ids"].zero_()
    blind = gemma3.run(batch, {Site(1): Pool("image")}).kept[Site(1)]
    assert not torch.allclose(seen, blind, atol=1e-4)


def test_bfloat16_captures_equal_own_hooks_bit_for_bit():
    module, tokenizer, processor = FAMILIES["gemma3"]()
    model = load_model(module.to(torch.bfloat16), tokenizer, processor)
    batch = model.encode([chat("a", "hi"), chat("b", "a longer question")])
    truth, sites = own_hooks(model, batch), sites_of(model)
    kept = model.run(batch, dict.fromkeys(sites, everything), logits=False).kept
    assert all(kept[site].dtype == torch.bfloat16 and torch.equal(kept[site], truth[site]) for site in sites)
