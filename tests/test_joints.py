"""attn_out, resid_mid and mlp_out: what each half of a block adds to the stream, on every kind of block."""

import pytest
import torch
import transformers as T
from conftest import chat
from own_hooks import everything, noise
from tiny_lm import _IDS, _SIZES, LANGUAGE_MODELS, loud
from tiny_models import byte_tokenizer

from hooks.blocks import UnsupportedArchitecture
from hooks.joints import find_joints
from hooks.load import load_model
from hooks.site import Site
from hooks.spot import Spot
from hooks.stream import find_stream

WORDS = {"vocab_size": len(byte_tokenizer())}
OLD = {"num_hidden_layers": 3, "num_attention_heads": 4, **WORDS, **_IDS}
MORE = {
    "olmo2": lambda: T.Olmo2ForCausalLM(T.Olmo2Config(**_SIZES, **WORDS)),
    "granite": lambda: T.GraniteForCausalLM(T.GraniteConfig(**_SIZES, **WORDS, residual_multiplier=0.22)),
    "mixtral": lambda: T.MixtralForCausalLM(T.MixtralConfig(**_SIZES, **WORDS, num_local_experts=4)),
    "bloom": lambda: T.BloomForCausalLM(T.BloomConfig(hidden_size=32, n_layer=3, n_head=4, **WORDS, **_IDS)),
    "opt": lambda: T.OPTForCausalLM(T.OPTConfig(hidden_size=32, ffn_dim=48, word_embed_proj_dim=32, **OLD)),
    "gptj": lambda: T.GPTJForCausalLM(T.GPTJConfig(n_embd=32, n_layer=3, n_head=4, rotary_dim=8, **WORDS, **_IDS)),
    "phi": lambda: T.PhiForCausalLM(T.PhiConfig(**{**_SIZES, "num_key_value_heads": 4}, **WORDS)),
}
SEQUENTIAL = [*LANGUAGE_MODELS, "olmo2", "granite", "mixtral", "bloom", "opt"]
PARALLEL = ["gptj", "phi"]
# The module that a person would call "what the first half adds", written by hand, with the factor behind it.
ADDS = {
    "llama": ("model.layers.1.self_attn", 1.0),
    "gpt2": ("transformer.h.1.attn", 1.0),
    "gemma3": ("model.layers.1.post_attention_layernorm", 1.0),
    "olmo2": ("model.layers.1.post_attention_layernorm", 1.0),
    "granite": ("model.layers.1.self_attn", 0.22),
    "opt": ("model.decoder.layers.1.self_attn", 1.0),
    "bloom": ("transformer.h.1.self_attention.dense", 1.0),
    "gptj": ("transformer.h.1.attn", 1.0),
    "phi": ("model.layers.1.self_attn", 1.0),
}
BLOCK = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
TEXTS = ["hi", "a somewhat longer question"]


@pytest.fixture(scope="module")
def model_of():
    built = {}

    def model(name):
        if name not in built:
            module = LANGUAGE_MODELS[name]() if name in LANGUAGE_MODELS else loud(MORE[name]())
            built[name] = load_model(module, byte_tokenizer())
        return built[name]

    return model


def kept_by(model, points):
    sites = {Site(layer, point): everything for layer in range(model.n_layers) for point in points}
    return model.run(model.encode([chat(str(n), text) for n, text in enumerate(TEXTS)]), sites).kept


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_the_parts_of_a_block_add_up_to_it(model_of, name):
    """resid_pre + attn_out = resid_mid, and + mlp_out = resid_post: exact up to one rounding of a float32 sum."""
    model = model_of(name)
    kept = kept_by(model, BLOCK)
    for layer in range(model.n_layers):
        pre, attn, mid, mlp, post = (kept[Site(layer, point)] for point in BLOCK)
        torch.testing.assert_close(pre + attn, mid, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(mid + mlp, post, rtol=1e-5, atol=1e-5)
        assert attn.norm() > 0.05 * pre.norm() and mlp.norm() > 0.05 * mid.norm(), (
            "a part that adds nothing says little"
        )


@pytest.mark.parametrize("name", PARALLEL)
def test_parallel_blocks_have_both_parts_and_nothing_between(model_of, name):
    model = model_of(name)
    kept = kept_by(model, ("resid_pre", "attn_out", "mlp_out", "resid_post"))
    for layer in range(model.n_layers):
        pre, attn, mlp, post = (kept[Site(layer, p)] for p in ("resid_pre", "attn_out", "mlp_out", "resid_post"))
        torch.testing.assert_close(pre + attn + mlp, post, rtol=1e-5, atol=1e-5)
    with pytest.raises(
        UnsupportedArchitecture, match=r"site resid_mid:0 .*\(parallel\), so no residual stands between"
    ):
        kept_by(model, ["resid_mid"])


@pytest.mark.parametrize("name", ADDS)
def test_attn_out_is_the_output_that_a_person_would_hook(model_of, name):
    model, (path, factor) = model_of(name), ADDS[name]
    batch, seen = model.encode([chat("0", TEXTS[1])]), []
    handle = model.module.get_submodule(path).register_forward_hook(
        lambda m, a, out: seen.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    try:
        kept = model.run(batch, {Site(1, "attn_out"): everything}).kept[Site(1, "attn_out")]
    finally:
        handle.remove()
    torch.testing.assert_close(kept, factor * seen[-1].view(kept.shape), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ADDS if name not in PARALLEL])
def test_an_edit_between_the_halves_changes_both_the_stream_and_what_the_second_half_reads(model_of, name):
    """By hand: the vector is added to what the first half adds. Editing only the second half's input would not do."""
    model, (path, factor) = model_of(name), ADDS[name]
    batch, edit = model.encode([chat("0", TEXTS[1])]), noise(model, size=2.0)
    vector = edit.write[0, 0]

    def shifted(module, args, out):
        tensor = (out if isinstance(out, torch.Tensor) else out[0]) + vector / factor
        return tensor if isinstance(out, torch.Tensor) else (tensor, *out[1:])

    handle = model.module.get_submodule(path).register_forward_hook(shifted)
    try:
        by_hand = model.run(batch).logits
    finally:
        handle.remove()
    plain = model.run(batch).logits
    for point in ("attn_out", "resid_mid"):
        edited = model.run(batch, edits={Site(1, point): [edit]}).logits
        torch.testing.assert_close(edited, by_hand, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(edited, plain, atol=1e-2)


@pytest.mark.parametrize("name", ["llama", "granite", "opt"])
def test_edits_of_one_block_act_in_the_order_of_the_stream(model_of, name):
    """resid_mid sees what resid_pre and attn_out have become, and an edit of nothing changes no bit."""
    model = model_of(name)
    batch = model.encode([chat("0", TEXTS[0])])
    edits = {Site(1, point): [noise(model, seed=n)] for n, point in enumerate(BLOCK)}
    kept = model.run(batch, {Site(1, point): everything for point in BLOCK}, edits).kept
    pre, attn, mid, mlp, post = (kept[Site(1, point)] for point in BLOCK)
    vectors = [edits[Site(1, point)][0].write[0, 0] for point in BLOCK]
    torch.testing.assert_close(mid, pre + attn + vectors[2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(post, mid + mlp + vectors[4], rtol=1e-4, atol=1e-4)
    nothing = {Site(1, point): [lambda resid, where: resid] for point in BLOCK}
    still = model.run(batch, edits=nothing, must_edit=False).logits
    assert torch.equal(still, model.run(batch).logits)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_generation_under_an_edit_between_the_halves_equals_full_forwards(model_of, name):
    model, edits = model_of(name), {Site(1, "resid_mid"): [noise(model_of(name), size=3.0)]}
    batch = model.encode([chat("0", TEXTS[0]), chat("1", TEXTS[1])])
    out = model.generate(batch, edits=edits, max_new_tokens=4)
    for one, ids in zip(batch.encoded, out.token_ids, strict=True):
        for n, token in enumerate(ids):
            logits = model.run(model.encoder.collate([one.extended(ids[:n])]), edits=edits).logits
            assert int(logits[0].argmax()) == token


class Blockwise:
    """Modules whose blocks have no two halves to tell apart."""

    bert = T.BertConfig(hidden_size=32, intermediate_size=48, is_decoder=True, **OLD)
    mamba = T.MambaConfig(hidden_size=32, num_hidden_layers=3, state_size=4, **WORDS, **_IDS)


@pytest.mark.parametrize(("name", "why"), [("bert", "norm the stream itself"), ("mamba", "has one branch")])
def test_pitfall_03_blocks_that_are_not_a_sum_are_refused(name, why):
    module = loud(T.AutoModelForCausalLM.from_config(getattr(Blockwise, name)))
    joints = find_joints(module, find_stream(module))
    for point in ("attn_out", "resid_mid", "mlp_out"):
        with pytest.raises(UnsupportedArchitecture, match=why):
            joints[1].spot(point, Spot(module, "input"))
