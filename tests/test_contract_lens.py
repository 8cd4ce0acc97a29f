"""The contract of the back ends, kept by TransformerLens; and the same numbers as TransformerLens' own API."""

import copy

import pytest
import torch
from conftest import chat
from contract import BackendContract
from contract_subject import BRANCHES, ENDS, PROMPTS, TOLERANCE, added, direction, everything, off, spelled
from tiny_lm import LANGUAGE_MODELS, LAYERS, WIDTH
from tiny_models import FAMILIES, byte_tokenizer
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, OPTConfig, OPTForCausalLM

from hooks.backends.lens import LensModel
from hooks.blocks import UnsupportedArchitecture
from hooks.load import load_model
from hooks.site import Site

POINTS = ("resid_pre", *BRANCHES, "resid_post")


class TestTransformerLens(BackendContract):
    backend = "transformer_lens"
    attention = "eager"  # TransformerLens forces it, so that attention patterns can be hooked

    def left_behind(self, model):
        listed = model.bridge.list_hooks()
        return super().left_behind(model), {name: len(hooks) for name, hooks in listed.items()}

    def test_numbers_equal_the_librarys_own_cache(self, subject):
        """Bit for bit on a bridge of the same weights, at every point that TransformerLens has a hook for."""
        bridge = own_bridge(copy.deepcopy(subject.own.module))
        ids, mask = subject.inputs["input_ids"], subject.inputs["attention_mask"]
        _, cache = bridge.run_with_cache(ids, attention_mask=mask)
        keep = {Site(layer, point): everything for layer in range(LAYERS) for point in POINTS}
        kept = subject.model.run(subject.model.encode(PROMPTS), keep).kept
        other = load_model(copy.deepcopy(subject.own.module), byte_tokenizer())
        by_hugging_face = other.run(other.encode(PROMPTS), keep).kept
        for site in keep:
            truth = cache[f"blocks.{site.layer}.hook_{site.point}"]
            # resid_mid is a sum here and there: the one number that need not have the same last bit.
            assert torch.equal(kept[site], truth) or (site.point == "resid_mid" and off(kept[site], truth) < TOLERANCE)
            assert off(by_hugging_face[site][subject.real], truth[subject.real]) < TOLERANCE, site

    @pytest.mark.parametrize("point", ["resid_pre", "attn_out", "mlp_out", "resid_post"])
    def test_edited_logits_equal_the_librarys_own_hooks(self, subject, point):
        bridge = own_bridge(copy.deepcopy(subject.own.module))
        vector, last = direction(), subject.mask("answering")

        def steer(tensor, hook):
            return torch.where(last[..., None], tensor + vector, tensor)

        for layer in range(LAYERS):
            with torch.no_grad():
                logits = bridge.run_with_hooks(
                    subject.inputs["input_ids"],
                    attention_mask=subject.inputs["attention_mask"],
                    fwd_hooks=[(f"blocks.{layer}.hook_{point}", steer)],
                )
            edits = {Site(layer, point): [added(vector, "answering")]}
            trace = subject.model.run(subject.model.encode(PROMPTS), None, edits)
            assert off(trace.logits, subject.last(logits)) < TOLERANCE, layer

    def test_generation_equals_the_librarys_own(self, subject):
        """TransformerLens' own loop (not transformers' generate), one row at a time, under a hook."""
        bridge, vector = own_bridge(copy.deepcopy(subject.own.module)), direction(size=8.0)
        out = subject.model.generate(
            subject.model.encode(PROMPTS), edits={Site(1): [added(vector)]}, max_new_tokens=5, eos_token_id=ENDS
        )
        for row, one in enumerate(subject.model.encode(PROMPTS).encoded):
            ids = one.prompt_only().input_ids[None]
            with bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_post", lambda tensor, hook: tensor + vector)]):
                written = bridge.generate(
                    ids, max_new_tokens=5, do_sample=False, eos_token_id=ENDS, return_type="tokens", verbose=False
                )
            assert written[0, ids.shape[1] :].tolist() == out.token_ids[row]


def own_bridge(module):
    """A bridge as TransformerLens' own users make one."""
    from transformer_lens.model_bridge import TransformerBridge

    module.config.architectures = [type(module).__name__]  # as a checkpoint states it
    return TransformerBridge.boot_transformers("tiny", hf_model=module, tokenizer=with_bos(), device="cpu")


def with_bos():
    """A tokenizer that TransformerLens takes as it is; others it reads anew from the hub, to write a BOS."""
    tokenizer = byte_tokenizer()
    tokenizer.init_kwargs |= {"name_or_path": "tiny", "add_bos_token": True}
    return tokenizer


@pytest.fixture(scope="module")
def lens():
    return load_model(LANGUAGE_MODELS["llama"](), byte_tokenizer(), backend="transformer_lens")


def test_what_is_measured_is_said(lens):
    assert isinstance(lens, LensModel)
    assert lens.identity["backend"] == "transformer_lens" and lens.identity["attention"] == "eager"


def test_a_users_module_and_tokenizer_stay_as_they_were():
    """A bridge replaces the blocks of what it wraps."""
    module, tokenizer = LANGUAGE_MODELS["qwen3"](), byte_tokenizer()
    tokenizer.padding_side = "left"
    inputs = spelled([["<bos>", *"hello"]])
    before, parts = module(**inputs).logits, [type(part) for part in module.modules()]
    model = load_model(module, tokenizer, backend="transformer_lens")
    model.run(model.encode([chat("a", "hi")]))
    assert [type(part) for part in module.modules()] == parts and torch.equal(module(**inputs).logits, before)
    assert module.config._attn_implementation == "sdpa" and tokenizer.padding_side == "left"
    assert [type(part) for part in model.module.modules()] != parts, "the meta-test: the wrapped one is taken apart"
    assert model.bridge.tokenizer is tokenizer, "not one read anew, which would write a BOS before all text"


def test_a_checkpoint_folder_is_read(tmp_path):
    module = LANGUAGE_MODELS["llama"]()
    for part in (module, byte_tokenizer()):
        part.save_pretrained(tmp_path)
    model = load_model(tmp_path, backend="transformer_lens")
    own = load_model(module, byte_tokenizer(), backend="transformer_lens")
    batch = own.encode(PROMPTS)
    assert torch.equal(model.run(batch).logits, own.run(batch).logits)


@pytest.mark.parametrize("family", LANGUAGE_MODELS)
@pytest.mark.parametrize("compatible", [False, True], ids=["as it is", "compatibility mode"])
def test_a_users_bridge_is_used_as_it_is(family, compatible):
    """Found without saying so; in compatibility mode its stream is another one (weights folded and centred)."""
    bridge = own_bridge(LANGUAGE_MODELS[family]())
    if compatible:
        bridge.enable_compatibility_mode()
    model = load_model(bridge)
    assert isinstance(model, LensModel) and model.bridge is bridge and model.tokenizer is bridge.tokenizer
    assert model.identity.get("compatibility_mode", False) is compatible
    batch, vector = model.encode(PROMPTS), direction()
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    with torch.no_grad():
        _, cache = bridge.run_with_cache(ids, attention_mask=mask)
        logits = bridge.run_with_hooks(
            ids, attention_mask=mask, fwd_hooks=[("blocks.1.hook_resid_post", lambda tensor, hook: tensor + vector)]
        )
    keep = {Site(layer): everything for layer in range(LAYERS)}
    trace = model.run(batch, keep)
    for site in keep:
        assert torch.equal(trace.kept[site], cache[f"blocks.{site.layer}.hook_resid_post"]), site
    edited = model.run(batch, None, {Site(1): [added(vector)]})
    assert off(edited.logits, logits[torch.arange(len(ids)), batch.last_index]) < TOLERANCE
    assert edited.tallies[Site(1)][0].edited.tolist() == mask.sum(dim=1).tolist()


def test_a_users_bridge_is_not_taken_for_something_else():
    bridge = own_bridge(LANGUAGE_MODELS["llama"]())
    with pytest.raises(ValueError, match=r"backend='hf' was asked for, but the model given is a TransformerBridge"):
        load_model(bridge, backend="hf")
    with pytest.raises(ValueError, match=r"used as it is: expected no adapter= and no device="):
        load_model(bridge, device="cpu")
    bridge.add_hook("blocks.1.hook_out", lambda tensor, hook: tensor * 2)
    with pytest.raises(ValueError, match=r"hooks of its own at blocks\.1\.hook_out"):
        load_model(bridge)


def test_hooks_that_the_library_wires_itself_are_no_users():
    """OPT has no module around its MLP, so TransformerLens forwards hooks from one point to another."""
    config = OPTConfig(
        vocab_size=len(byte_tokenizer()), hidden_size=WIDTH, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        word_embed_proj_dim=WIDTH, max_position_embeddings=64,
    )  # fmt: skip
    model = load_model(OPTForCausalLM(config).eval(), byte_tokenizer(), backend="transformer_lens")
    assert any(model.bridge.list_hooks().values()), "the meta-test: they are there"


def test_a_back_end_without_a_name_is_refused():
    with pytest.raises(ValueError, match="'lens' is not available: expected one of hf, transformer_lens, nnsight"):
        load_model(LANGUAGE_MODELS["llama"](), byte_tokenizer(), backend="lens")


# What it does not do.


def test_adapters_are_refused(own_checkpoint):
    base, adapter = own_checkpoint
    with pytest.raises(ValueError, match=r"backend='transformer_lens' takes no adapters.*Expected backend='hf'"):
        load_model(base, adapter=adapter, backend="transformer_lens")


def test_images_are_refused(picture):
    """The image-text model itself is read, as a text model."""
    model = load_model(*FAMILIES["gemma3"](), backend="transformer_lens")
    assert model.checkup.passed and model.injected_layers() == (), str(model.checkup)
    plain = load_model(*FAMILIES["gemma3"]())
    plain.module.set_attn_implementation("eager")
    batch, keep = model.encode([chat("a", "hi")]), {Site(1): everything}
    assert off(model.run(batch, keep).kept[Site(1)], plain.run(batch, keep).kept[Site(1)]) < TOLERANCE
    pictures = model.encode([chat("a", picture, "what is this")])
    for act in (model.run, model.generate):
        with pytest.raises(ValueError, match="reads text only, and these prompts have images: use backend='hf'"):
            act(pictures)
    with pytest.raises(ValueError, match="it has no vision tower"):
        model.run(batch, {Site(0, tower="vision"): everything})
    with pytest.raises(UnsupportedArchitecture, match="reads text only: use backend='hf' for images"):
        model.run(batch, {Site(0, "projector"): everything})


def test_parallel_blocks_have_no_middle():
    config = GPTNeoXConfig(
        vocab_size=len(byte_tokenizer()), hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64,
    )  # fmt: skip
    model = load_model(GPTNeoXForCausalLM(config).eval(), byte_tokenizer(), backend="transformer_lens")
    batch = model.encode([chat("a", "hi")])
    with pytest.raises(
        UnsupportedArchitecture, match=r"site resid_mid:0 of GPTNeoXForCausalLM: TransformerLens has no"
    ):
        model.run(batch, {Site(0, "resid_mid"): everything})
    kept = model.run(batch, {Site(0, point): everything for point in POINTS if point != "resid_mid"}).kept
    pre, attn, mlp, post = (kept[Site(0, point)] for point in POINTS if point != "resid_mid")
    assert off(pre + attn + mlp, post) < TOLERANCE


def test_what_the_library_cannot_wrap_is_refused_with_a_way_out():
    """Cohere-like models of tomorrow: a class that no adapter of TransformerLens knows."""

    class UnknownForCausalLM(type(LANGUAGE_MODELS["llama"]())):
        pass

    module = LANGUAGE_MODELS["llama"]()
    module.__class__ = UnknownForCausalLM
    module.config.model_type = "unknown"
    with pytest.raises(UnsupportedArchitecture, match="could not build a bridge for UnknownForCausalLM"):
        load_model(module, byte_tokenizer(), backend="transformer_lens")
