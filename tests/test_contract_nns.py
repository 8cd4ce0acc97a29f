"""The contract of the back ends, kept by nnsight; and the same numbers as nnsight's own traces."""

import copy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from conftest import chat
from contract import BackendContract
from contract_subject import BRANCHES, ENDS, PROMPTS, TOLERANCE, added, direction, everything, off, spelled
from own_forward import BLOCKS_AT
from own_hooks import everything as whole
from own_hooks import noise, sites_of
from tiny_lm import LANGUAGE_MODELS, LAYERS
from tiny_models import FAMILIES, byte_tokenizer

from hooks.backends.hf import HuggingFaceModel
from hooks.backends.nns import NNsightModel
from hooks.load import load_model
from hooks.site import Site

# nnsight runs the module's own forward, with the module's own kernels: the same numbers to the last bit. Only logits
# have the usual tolerance, since the back end computes them at the wanted positions alone.


class TestNNsight(BackendContract):
    backend = "nnsight"

    def left_behind(self, model):
        interleaver = model.envoy.interleaver
        return super().left_behind(model), list(interleaver.mediators), interleaver.interleaving, model._waiting[0]

    def test_numbers_equal_the_librarys_own_trace(self, subject):
        from nnsight import NNsight

        own = NNsight(copy.deepcopy(subject.own.module))
        blocks = own.get(BLOCKS_AT[type(subject.own.module).__name__])
        before, after = [], []
        with torch.no_grad(), own.trace(**subject.inputs, use_cache=False):
            for layer in range(LAYERS):
                before.append(blocks[layer].input.save())
                after.append(blocks[layer].output.save())
        keep = {Site(layer, point): everything for layer in range(LAYERS) for point in ("resid_pre", "resid_post")}
        plain = load_model(copy.deepcopy(subject.own.module), byte_tokenizer(), check=False)  # passes the mask, as here
        for model in (subject.model, plain):
            kept = model.run(model.encode(PROMPTS), keep).kept
            for layer in range(LAYERS):
                assert torch.equal(kept[Site(layer, "resid_pre")], before[layer]), (model, layer)
                assert torch.equal(kept[Site(layer)], after[layer]), (model, layer)

    def test_branches_equal_the_librarys_own_trace(self, subject):
        """On the families without norms behind the branches: there the branch is what the module returns."""
        from nnsight import NNsight

        kind = type(subject.own.module).__name__
        if kind.startswith("Gemma"):
            names = ("post_attention_layernorm", "post_feedforward_layernorm")
        else:
            names = ("attn", "mlp") if kind == "GPT2LMHeadModel" else ("self_attn", "mlp")
        own = NNsight(copy.deepcopy(subject.own.module))
        block = own.get(BLOCKS_AT[kind])[1]
        attention, mlp = (getattr(block, name) for name in names)
        with torch.no_grad(), own.trace(**subject.inputs, use_cache=False):
            added_first = attention.output.save()
            added_second = mlp.output.save()
        keep = {Site(1, point): everything for point in BRANCHES}
        kept = subject.model.run(subject.model.encode(PROMPTS), keep).kept
        added_first = added_first[0] if isinstance(added_first, tuple) else added_first
        assert torch.equal(kept[Site(1, "attn_out")], added_first) and torch.equal(
            kept[Site(1, "mlp_out")], added_second
        )

    @pytest.mark.parametrize("side", ["input", "output"])
    def test_edited_logits_equal_the_librarys_own_assignment(self, subject, side):
        from nnsight import NNsight

        own = NNsight(copy.deepcopy(subject.own.module))
        blocks = own.get(BLOCKS_AT[type(subject.own.module).__name__])
        moved = torch.where(subject.mask("answering")[..., None], direction(), 0.0)
        for layer in range(LAYERS):
            with torch.no_grad(), own.trace(**subject.inputs, use_cache=False) as tracer:
                if side == "input":
                    blocks[layer].input = blocks[layer].input + moved
                else:
                    blocks[layer].output = blocks[layer].output + moved
                out = tracer.result.save()
            edits = {
                Site(layer, {"input": "resid_pre", "output": "resid_post"}[side]): [added(direction(), "answering")]
            }
            trace = subject.model.run(subject.model.encode(PROMPTS), None, edits)
            assert off(trace.logits, subject.last(out.logits)) < TOLERANCE, layer

    def test_generation_equals_the_librarys_own(self, subject):
        """One row at a time, its own loop over the steps."""
        from nnsight import NNsight

        own, vector = NNsight(copy.deepcopy(subject.own.module)), direction(size=8.0)
        block = own.get(BLOCKS_AT[type(subject.own.module).__name__])[1]
        out = subject.model.generate(
            subject.model.encode(PROMPTS), edits={Site(1): [added(vector)]}, max_new_tokens=5, eos_token_id=ENDS
        )
        for row, one in enumerate(subject.model.encode(PROMPTS).encoded):
            ids = one.prompt_only().input_ids[None]
            options = dict(do_sample=False, max_new_tokens=5, eos_token_id=ENDS, pad_token_id=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its loop ends with a warning
                with torch.no_grad(), own.trace(fn="generate") as tracer:
                    with tracer.invoke(ids, attention_mask=torch.ones_like(ids), **options):
                        for _ in tracer.iter[:]:
                            block.output = block.output + vector
                    with tracer.invoke():
                        written = tracer.result.save()
            assert written[0, ids.shape[1] :].tolist() == out.token_ids[row]


@pytest.fixture(scope="module")
def sight():
    return load_model(LANGUAGE_MODELS["llama"](), byte_tokenizer(), backend="nnsight")


def test_what_is_measured_is_said(sight):
    assert isinstance(sight, NNsightModel) and sight.identity["backend"] == "nnsight"


def test_a_users_module_keeps_its_numbers():
    module = LANGUAGE_MODELS["gemma2"]()
    inputs = spelled([["<bos>", *"hello"]])
    before = module(**inputs).logits
    model = load_model(module, byte_tokenizer(), backend="nnsight")
    assert model.module is module
    model.run(model.encode(PROMPTS), None, {Site(1): [added(direction())]})
    assert torch.equal(module(**inputs).logits, before)


def test_nothing_is_warned_about(sight):
    """nnsight warns where a loop over all steps ends; here every loop does."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sight.run(sight.encode(PROMPTS), {Site(1): everything}, {Site(0): [added(direction())]})
        sight.generate(sight.encode(PROMPTS), {Site(1): everything}, {Site(0): [added(direction())]}, max_new_tokens=3)


def test_a_block_that_never_runs_is_named(sight):
    block, layers = sight.module.model.layers[1], sight.module.model.layers
    layers[1] = torch.nn.Identity()  # the forward passes another module
    layers[1].forward = lambda hidden_states, **rest: hidden_states
    try:
        with pytest.raises(RuntimeError, match="the hooks at resid_post:1 never fired"):
            sight.run(sight.encode(PROMPTS), {Site(1): everything})
    finally:
        layers[1] = block


# A user's own object.


def test_a_users_model_is_used_as_it_is():
    """Found without saying so; it still traces afterwards."""
    from nnsight import NNsight

    own, inputs = NNsight(LANGUAGE_MODELS["qwen2"]()), spelled([["<bos>", *"hello"]])
    model = load_model(own, byte_tokenizer())
    assert isinstance(model, NNsightModel) and model.module is own._module
    batch = model.encode(PROMPTS)
    kept = model.run(batch, {Site(1): everything}, {Site(0): [added(direction())]}).kept[Site(1)]
    plain = load_model(LANGUAGE_MODELS["qwen2"](), byte_tokenizer(), check=False)  # passes the mask, as nnsight does
    truth = plain.run(batch, {Site(1): everything}, {Site(0): [added(direction())]}).kept[Site(1)]
    assert torch.equal(kept, truth)
    with torch.no_grad(), own.trace(**inputs, use_cache=False):
        block = own.model.layers[1].output.save()
    assert block.shape == (1, 6, 32)


@pytest.mark.parametrize("kind", ["LanguageModel", "TransformersModel"])
@pytest.mark.parametrize("dispatch", [False, True], ids=["weights not yet loaded", "weights loaded"])
def test_a_users_language_model_of_a_folder(kind, dispatch, tmp_path):
    """Its tokenizer comes along; rows are padded and placed by us, not by nnsight (which pads left)."""
    import nnsight

    module = LANGUAGE_MODELS["gpt2"]()  # learned positions: the family that shows it
    for part in (module, byte_tokenizer()):
        part.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nnsight.NNsightDeprecationWarning)
        options = dict(task="text-generation", tokenizer=byte_tokenizer(), dispatch=dispatch)
        own = getattr(nnsight, kind)(str(tmp_path), **options)
    model = load_model(own)
    assert isinstance(model, NNsightModel) and model.module is own._module and model.tokenizer is own.tokenizer
    plain = load_model(module, byte_tokenizer())
    batch, edits = plain.encode(PROMPTS), {Site(1): [added(direction(), "answering")]}
    found, truth = model.run(model.encode(PROMPTS), None, edits), plain.run(batch, None, edits)
    assert torch.equal(found.logits, truth.logits)
    options = dict(max_new_tokens=4, eos_token_id=ENDS)
    answers = [one.generate(batch, None, edits, **options).token_ids for one in (model, plain)]
    assert answers[0] == answers[1]
    with torch.no_grad(), own.trace("hello"):
        block = own.transformer.h[1].output.save()
    assert block.shape == (1, len("hello"), 32), "it still traces by itself"


def test_a_users_model_is_not_taken_for_something_else():
    from nnsight import NNsight

    own = NNsight(LANGUAGE_MODELS["llama"]())
    with pytest.raises(ValueError, match=r"backend='transformer_lens' was asked for, but the model given is a NNsight"):
        load_model(own, byte_tokenizer(), backend="transformer_lens")
    with pytest.raises(ValueError, match="is a part of an nnsight model"):
        load_model(own.model.layers[0], byte_tokenizer())
    with pytest.raises(ValueError, match="a module alone cannot read prompts"):
        load_model(own)
    with own.edit(inplace=True):
        own.model.layers[1].output = own.model.layers[1].output * 2
    with pytest.raises(ValueError, match="has 1 edits of its own"):
        load_model(own, byte_tokenizer())


# What it does besides.


def test_adapters_act(own_checkpoint):
    base, adapter = own_checkpoint
    plain, model = (load_model(base, adapter=adapter, backend=backend) for backend in ("hf", "nnsight"))
    batch, edits = plain.encode(PROMPTS), {Site(0): [added(direction())]}
    logits = {}
    for variant in ("base", "tuned"):
        found, truth = (one.variant(variant).run(batch, None, edits).logits for one in (model, plain))
        assert torch.equal(found, truth)
        logits[variant] = found
    assert off(logits["tuned"], logits["base"]) > 1e-3, "the meta-test: the adapter does something"
    view, rows = model.across(batch, ("base", "tuned"))
    assert off(view.run(rows, None, edits).logits, torch.cat([logits["base"], logits["tuned"]])) < TOLERANCE


def test_images_and_the_vision_tower_equal_the_hugging_face_back_end(picture):
    plain, model = (load_model(*FAMILIES["gemma3"](), backend=backend) for backend in ("hf", "nnsight"))
    batch = model.encode([chat("a", picture, "what is this"), chat("b", "no picture"), chat("c", picture, picture)])
    sites = [*sites_of(model), *sites_of(model, "vision")]
    steer = noise(plain, scope="image")
    for act, options in (("run", {}), ("generate", {"max_new_tokens": 3})):
        found, truth = (
            getattr(one, act)(batch, dict.fromkeys(sites, whole), {Site(1): [steer]}, **options)
            for one in (model, plain)
        )
        assert found.tallies[Site(1)][0].edited.tolist() == truth.tallies[Site(1)][0].edited.tolist()
        for site in sites:
            pairs = zip(
                *(one.kept[site] if act == "generate" else [one.kept[site]] for one in (found, truth)), strict=True
            )
            assert all(torch.equal(a, b) for a, b in pairs), (act, site)


# Nobody pays for what he does not use.

LOADED = """
import sys
sys.path.insert(0, {tests!r})
from tiny_models import FAMILIES
from hooks.load import load_model
for backend in ("hf", "nnsight"):
    load_model(*FAMILIES["llama"](), backend=backend)
    print(sorted({{"transformer_lens", "nnsight"}} & set(sys.modules)))
"""


def test_a_library_is_imported_only_for_its_back_end():
    """In a process of its own: here, both are loaded already."""
    tests = Path(__file__).resolve().parent
    command = [sys.executable, "-c", LOADED.format(tests=str(tests))]
    done = subprocess.run(command, cwd=tests.parent, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "['nnsight']"], done.stderr


def test_the_default_is_hugging_face():
    model = load_model(LANGUAGE_MODELS["llama"](), byte_tokenizer())
    assert type(model) is HuggingFaceModel and "backend" not in model.identity
