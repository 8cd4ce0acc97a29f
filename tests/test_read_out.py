"""wb.read_out against the tail written by hand: final norm, head, scaling and soft cap of four architectures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import chat
from tiny_lm import LANGUAGE_MODELS
from tiny_models import byte_tokenizer
from workbench_samples import random_directions

import workbench as wb
from hooks.load import load_model
from workbench.interventions.read_out import tail_length, through_tail


def rms(norm, h, plus_one):
    scaled = h / torch.sqrt(
        h.square().mean(-1, keepdim=True) + getattr(norm, "variance_epsilon", getattr(norm, "eps", 0))
    )
    return scaled * (1 + norm.weight if plus_one else norm.weight)


def by_hand(family, module, h):
    """The tail, written down from each architecture's definition."""
    if family == "gpt2":
        norm = module.transformer.ln_f
        centred = h - h.mean(-1, keepdim=True)
        normed = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + norm.eps) * norm.weight + norm.bias
        return normed @ module.lm_head.weight.T
    logits = rms(module.model.norm, h, family.startswith("gemma")) @ module.lm_head.weight.T
    cap = getattr(module.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


@pytest.fixture(scope="module")
def model_of():
    cache = {}

    def load(family):
        if family not in cache:
            module = LANGUAGE_MODELS[family]()
            if family == "gemma2":
                module.config.final_logit_softcapping = 0.5  # low enough to bend every logit
            cache[family] = load_model(module, byte_tokenizer(), check=False)
        return cache[family]

    return load


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "gemma2"])
def test_the_tail_is_the_models_own(model_of, family):
    """lm_head(norm(±s·v̂)) by hand, capped where the model caps; a batch of 70 directions goes in several forwards."""
    model = model_of(family)
    units = np.random.default_rng(0).standard_normal((70, model.d_model))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    found = through_tail(model, units, 2.5)
    with torch.no_grad():
        h = torch.tensor(2.5 * units, dtype=torch.float32)
        truth = (by_hand(family, model.module, h) - by_hand(family, model.module, -h)) / 2
    # float32, a norm and one product of width 32
    assert (found - truth).abs().max() < 1e-5 * truth.abs().max() and found.dtype == torch.float64


def test_the_soft_cap_is_seen(model_of):
    """Without it the numbers are others: the tail that is read is not norm and head alone."""
    model = model_of("gemma2")
    unit = random_directions(model).unit[:1]
    capped = through_tail(model, unit, 5.0)
    assert capped.abs().max() <= 0.5
    model.module.config.final_logit_softcapping, before = None, model.module.config.final_logit_softcapping
    try:
        assert (through_tail(model, unit, 5.0) - capped).abs().max() > 0.1
    finally:
        model.module.config.final_logit_softcapping = before


def test_a_planted_unembedding_row_promotes_its_token(model_of):
    """Each site holds another token's row; its opposite suppresses it."""
    model = model_of("llama")
    head = (model.module.lm_head.weight * model.module.model.norm.weight).detach().double().numpy()
    tokens = [40, 77, 120]
    v = wb.Directions.of(["resid_pre:0", "resid_post:0", "resid_post:2"], head[tokens], model="LlamaForCausalLM")
    out = wb.read_out(v, model, k=5)
    assert [listed[0].id for listed in out.promoted] == tokens
    assert [listed[0].id for listed in wb.read_out(-v, model, k=5).suppressed] == tokens
    for up, down in zip(out.promoted, out.suppressed, strict=True):
        assert [one.value for one in up] == sorted((one.value for one in up), reverse=True)
        assert [one.value for one in down] == sorted(one.value for one in down)
    assert [str(site) for site in wb.read_out(v, model, layer=2).sites] == ["resid_post:2"]
    rows = out.rows()
    assert len(rows) == 3 * 2 * 5 and rows[0] == {
        "site": "resid_pre:0", "layer": 0, "side": "promoted", "rank": 0, "token": out.promoted[0][0].text,
        "id": 40, "value": out.promoted[0][0].value,
    }  # fmt: skip
    text = str(out)
    assert text.startswith("imported on ") and "half difference of logits" in text.splitlines()[0]
    assert len(text.splitlines()) == 1 + 2 * 3 and repr(out.promoted[0][0].text) in text.splitlines()[1]


def test_the_length_is_the_median_at_the_last_block(model_of):
    model = model_of("llama")
    batch = model.encode([chat("neutral", "The next word is")])
    with torch.no_grad():
        last = model.module.model(**batch.inputs, output_hidden_states=False)
    seen = []
    handle = model.module.model.layers[-1].register_forward_hook(lambda m, a, o: seen.append(o))
    with torch.no_grad():
        model.module.model(**batch.inputs)
    handle.remove()
    assert last is not None
    assert tail_length(model) == pytest.approx(float(seen[0][0, 1:].norm(dim=-1).median()), rel=1e-6)


def test_through_the_model_is_the_mean_change_under_steering(model_of):
    """A plain hook that adds the vector at its own layer, prompt by prompt."""
    model, v = model_of("llama"), random_directions(model_of("llama"))
    prompts = [chat("a", "hi"), chat("b", "something longer to read"), chat("c", "so")]
    out = wb.read_out(v, model, k=4, layer=[0, 1], through="model", prompts=prompts, coefficient=2.0)
    for site, promoted in zip(out.sites, out.promoted, strict=True):
        push, moved = torch.tensor(2 * v.vector(site), dtype=torch.float32), 0
        for prompt in prompts:
            inputs = model.encode([prompt]).inputs
            with torch.no_grad():
                plain = model.module(**inputs).logits[0, -1]
                block = model.module.model.layers[site.layer]
                handle = block.register_forward_hook(lambda m, a, o, push=push: o + push)
                steered = model.module(**inputs).logits[0, -1]
                handle.remove()
            moved = moved + (steered - plain).double() / 3
        top = moved.argsort(descending=True)[:4].tolist()
        assert [one.id for one in promoted] == top
        assert np.allclose([one.value for one in promoted], moved[top].numpy(), atol=1e-4 * float(moved.abs().max()))
    assert "mean change of logits over 3 prompts, 2 x the vector" in out.convention


def test_tokens_that_are_no_text_have_a_name(model_of):
    """Half a character, and an id that only fills the vocabulary up."""
    model = model_of("llama")
    size = model.module.lm_head.weight.shape[0]
    out = wb.read_out(random_directions(model), model, k=size)
    texts = {one.id: one.text for listed in (*out.promoted, *out.suppressed) for one in listed}
    assert len(texts) == size and all(texts.values()) and "\ufffd" not in "".join(texts.values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"through": "model"}, "expected through='tail' without prompts, or through='model' with the prompts"),
        ({"prompts": [chat("a", "hi")]}, "expected through='tail' without prompts"),
        ({"through": "head"}, r"read_out\(through='head'"),
        ({"role": "read"}, "was given a read-out vector: expected a write vector"),
        ({"model": "another"}, "read_out has vectors of the model 'another'"),
        ({"norm": 0.0}, "has nothing to read at resid_post:0"),
        ({"layer": 9}, "resid_post:9|layer 9|9"),
    ],
)
def test_what_says_nothing_is_refused(model_of, arguments, says):
    model = model_of("llama")
    v = random_directions(model)[0]
    changes = {name: arguments.pop(name) for name in ("role", "model", "norm") if name in arguments}
    v = v * 0.0 if "norm" in changes else v.replace(**changes)
    with pytest.raises(ValueError, match=says):
        wb.read_out(v, model, **arguments)


def test_an_image_text_model_and_a_deep_site_read_out_alike(gemma3):
    """The language tower's tail, scale free: RMSNorm forgets the length."""
    v = random_directions(gemma3)[1]
    short, long = (through_tail(gemma3, v.unit, length) for length in (5.0, 50.0))
    assert (short - long).abs().max() < 1e-3 * short.abs().max()
    assert len(wb.read_out(v, gemma3).promoted[0]) == 10
