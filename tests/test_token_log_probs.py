"""Log-probabilities of given texts against a plain forward of every text alone, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import FAMILIES, chat
from own_hooks import noise
from tiny_lm import LANGUAGE_MODELS
from tiny_models import byte_tokenizer
from transformers import GraniteConfig, GraniteForCausalLM

from hooks import token_log_probs as module_under_test
from hooks.blocks import UnsupportedArchitecture
from hooks.load import load_model
from hooks.model import NothingEdited
from hooks.prompt import Prompt
from hooks.site import Site
from hooks.token_log_probs import moments_of, token_log_probs

TEXTS = [
    chat("a", "hi", response="there you are"),
    chat("b", "a question that is a good deal longer", response="x"),
    chat("c", "no answer"),
    Prompt("d", text="raw text", response=" and more"),
]
NEAR = 5e-6  # nats; float32 logits of some units, of which other pad lengths change the last bits


def by_hand(model, prompt, scope):
    """One text, one forward of the library's own, loops: [(token, log p, mean, sd)]."""
    ids = model.encoder.encode(prompt).input_ids.tolist()
    p = len(model.encoder.encode(chat("p", *prompt.messages[0].parts)).input_ids) if prompt.messages else None
    p = len(byte_tokenizer()(prompt.text)["input_ids"]) if p is None else p
    inputs = model.encoder.collate([model.encoder.encode(prompt)]).inputs
    with torch.no_grad():
        out = model.module(**{name: value for name, value in inputs.items() if name in model._accepts})
    found = []
    for t in range(p if scope == "response" else 1, len(ids)):
        if ids[t] == model.encoder.image_token_id:
            continue
        log_p = out.logits[0, t - 1].double().log_softmax(dim=-1)
        mean = float(sum(log_p.exp() * log_p))
        sd = float(sum(log_p.exp() * (log_p - mean) ** 2)) ** 0.5
        found.append((ids[t], float(log_p[ids[t]]), mean, sd))
    return found


def apart(model, prompts, scope, near=NEAR):
    found, _ = token_log_probs(model, model.encode(prompts), scope)
    assert len(found) == len(prompts)
    for prompt, one in zip(prompts, found, strict=True):
        expected = by_hand(model, prompt, scope)
        assert one.ids.tolist() == [each[0] for each in expected]
        if not expected:
            assert len(one) == 0
            continue
        came = torch.stack([one.log_prob, one.mean, one.sd]).T.double()
        assert torch.allclose(came, torch.tensor([each[1:] for each in expected]).double(), atol=near, rtol=0)


@pytest.mark.parametrize("scope", ["response", "all"])
@pytest.mark.parametrize("family", LANGUAGE_MODELS)
def test_every_token_of_a_padded_batch_as_alone(family, scope, monkeypatch):
    """Rows of four lengths, one without a response; the head three positions at a time, so that chunks cross rows.
    Gemma2 caps its logits behind the head."""
    model = load_model(LANGUAGE_MODELS[family](), byte_tokenizer(), check=False)
    monkeypatch.setattr(module_under_test, "CPU_CHUNK", 4 * 3 * len(byte_tokenizer()))
    apart(model, TEXTS, scope)


def test_logits_that_are_scaled_behind_the_head():
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    config = GraniteConfig(vocab_size=len(byte_tokenizer()), num_key_value_heads=2, logits_scaling=4.0, **sizes)
    torch.manual_seed(3)
    model = load_model(GraniteForCausalLM(config).eval(), byte_tokenizer(), check=False)
    with torch.no_grad():
        model.module.lm_head.weight.mul_(40)
    apart(model, TEXTS, "all")


def test_pictures_are_read_and_not_predicted(gemma3, picture):
    apart(gemma3, [chat("a", picture, "what is this", response="a cat"), chat("b", "no picture", response="so")], "all")


@pytest.mark.parametrize("backend", ["transformer_lens", "nnsight"])
def test_the_other_back_ends_give_the_same(backend):
    """TransformerLens computes attention eagerly: about 1e-6 of a residual from the fused kernels."""
    pytest.importorskip(backend)
    module = LANGUAGE_MODELS["llama"]()
    expected, _ = token_log_probs(
        load_model(module, byte_tokenizer(), check=False),
        load_model(module, byte_tokenizer(), check=False).encode(TEXTS),
        "all",
    )
    model = load_model(module, byte_tokenizer(), check=False, backend=backend)
    found, _ = token_log_probs(model, model.encode(TEXTS), "all")
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one.log_prob, other.log_prob, atol=1e-5)


def test_in_bfloat16_they_are_those_of_its_own_logits(half):
    """Logits of up to 16 have steps of 1/16 in bfloat16, and other shapes of a product round otherwise: 0.15 nats a
    token were allowed before the first run."""
    apart(half, TEXTS, "all", near=0.15)


def test_edits_act_and_are_counted(llama):
    edit = noise(llama, 3.0, "prompt", seed=1)
    batch = llama.encode(TEXTS)
    plain, _ = token_log_probs(llama, batch, "response")
    found, trace = token_log_probs(llama, batch, "response", {Site(1): [edit]})
    assert trace.tallies[Site(1)][0].edited.tolist() == batch.tokens.mask("prompt").sum(dim=1).tolist()
    assert float((found[0].log_prob - plain[0].log_prob).abs().max()) > 0.01
    logits = llama.run(llama.encode([chat("a", "hi")]), edits={Site(1): [edit]}).logits
    first = logits[0].double().log_softmax(dim=-1)[found[0].ids[0]]
    assert float(found[0].log_prob[0]) == pytest.approx(float(first), abs=NEAR)
    with pytest.raises(NothingEdited):
        token_log_probs(llama, batch, "response", {Site(1): [noise(llama, 3.0, "image")]})
    again, _ = token_log_probs(llama, batch, "response")
    assert torch.equal(again[0].log_prob, plain[0].log_prob), "nothing of it stays in the model"


def test_the_head_never_reads_a_whole_batch(llama, monkeypatch):
    monkeypatch.setattr(module_under_test, "CPU_CHUNK", 4 * 5 * len(byte_tokenizer()))
    widths = []
    hook = llama.module.lm_head.register_forward_hook(lambda m, a, out: widths.append(out.shape[:-1].numel()))
    found, _ = token_log_probs(llama, llama.encode(TEXTS), "all")
    hook.remove()
    n = sum(map(len, found))
    assert max(widths) <= 5 and sum(widths) == n + 2 * len(TEXTS), "the last tokens are read twice, for the check"


def test_moments_in_the_corners():
    """A token that is all but sure keeps its digits, where log_softmax in float32 says 0; a forbidden one is -inf, and
    no NaN comes of it; a uniform distribution has no spread."""
    sure = torch.tensor([[30.0, 0.0, -2.0], [0.0, 0.0, -torch.inf], [1.0, 1.0, 1.0]])
    chosen, mean, sd = moments_of(sure.clone(), torch.tensor([0, 2, 1]))
    rest = math.exp(-30) + math.exp(-32)  # float64 would lose digits in 1 + rest too
    log_p = [0 - math.log1p(rest), -30 - math.log1p(rest), -32 - math.log1p(rest)]
    centre = sum(math.exp(each) * each for each in log_p)
    spread = sum(math.exp(each) * (each - centre) ** 2 for each in log_p) ** 0.5
    assert float(chosen[0]) == pytest.approx(log_p[0], rel=1e-5, abs=0) and float(sure[0].log_softmax(-1)[0]) == 0.0
    assert float(mean[0]) == pytest.approx(centre, rel=1e-5, abs=0)
    assert float(sd[0]) == pytest.approx(spread, rel=1e-5, abs=0)
    assert float(chosen[1]) == -torch.inf and torch.isfinite(mean).all() and torch.isfinite(sd).all()
    assert float(sd[2]) < 1e-6 and float(mean[2]) == pytest.approx(-torch.tensor(3.0).log().item(), rel=1e-6, abs=0)


def test_what_stands_behind_the_body_must_be_all(llama, monkeypatch):
    """A wrapper that changes the logits of its own forward only: found by comparing with what the forward said."""
    own = llama.run

    def run(*args, **kwargs):
        trace = own(*args, **kwargs)
        trace.logits.mul_(1.5)
        return trace

    monkeypatch.setattr(llama, "run", run)
    with pytest.raises(UnsupportedArchitecture, match="stands more than its head"):
        token_log_probs(llama, llama.encode(TEXTS))


def test_a_model_without_a_body_is_refused(llama, monkeypatch):
    monkeypatch.setattr(type(llama.module), "base_model_prefix", "nothing")
    with pytest.raises(UnsupportedArchitecture, match="no body of its own below its head"):
        token_log_probs(llama, llama.encode(TEXTS))


def test_rows_with_variants_of_their_own_are_refused(tuned_world):
    model = tuned_world.variant(["base", "tuned"])
    with pytest.raises(ValueError, match="one a call"):
        token_log_probs(model, model.encode([chat("a", "france its capital", response="rome")] * 2))


def test_an_adapter_acts_on_the_head_too(tmp_path):
    """A LoRA on lm_head: the chunks behind the body read it as the forward does."""
    from peft import LoraConfig, get_peft_model

    module, tokenizer, _ = FAMILIES["llama"]()
    module.save_pretrained(tmp_path / "base"), tokenizer.save_pretrained(tmp_path / "base")
    peft = get_peft_model(module, LoraConfig(r=2, target_modules=["lm_head", "q_proj"], init_lora_weights=False))
    peft.save_pretrained(tmp_path / "adapter")
    model = load_model(tmp_path / "base", adapter=tmp_path / "adapter", check=False)
    apart(model, TEXTS, "all")
    base, tuned = (token_log_probs(model.variant(v), model.encode(TEXTS), "all")[0] for v in ("base", "tuned"))
    assert float((base[0].log_prob - tuned[0].log_prob).abs().max()) > 0.1
