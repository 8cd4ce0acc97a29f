"""Membership against a reference: the same tokens in both models, or a refusal; adapters on and off without loading."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import chat
from test_membership import NEAR, SILENT, TEXTS, bos_in_front, by_hand, by_id, parts_of
from tiny_lm import LANGUAGE_MODELS, loud
from tiny_models import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from hooks.load import load_model
from hooks.prompt import read_prompts
from workbench.behaviour.membership import membership


@pytest.fixture(scope="module")
def qwen():
    """Another model with the same tokens, and no chat template: a base model."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    return load_model(LANGUAGE_MODELS["qwen2"](), tokenizer, check=False)


def merging(**changes):
    """The byte tokenizer, but that "th" is one token of it."""
    tokenizer = byte_tokenizer()
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    told["model"]["vocab"]["th"] = len(told["model"]["vocab"])
    told["model"]["merges"] = [["t", "h"]]
    tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(told))
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def other_tokens(**changes):
    tokenizer = merging(**changes)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    module = loud(LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes)))
    return load_model(module, tokenizer, check=False)


@pytest.mark.parametrize(("of", "text"), [("answer", "template"), ("full", "raw")])
def test_a_base_model_without_a_chat_template_reads_the_same_tokens(llama, qwen, of, text):
    table = membership(llama, TEXTS, reference=qwen, of=of, text=text, k=30, **SILENT)
    for prompt, row in zip(TEXTS, sorted(table.rows(), key=by_id), strict=True):
        own, base = (by_hand(model.module, prompt, of=of, text=text, k=30) for model in (llama, qwen))
        for name in ("loss", "zlib", "min_k_30", "min_k_pp_30"):
            assert row[f"reference_{name}"] == pytest.approx(base[name], abs=NEAR)
            assert row[f"adjusted_{name}"] == pytest.approx(own[name] - base[name], abs=2 * NEAR)
        assert row["log_ratio"] == pytest.approx(own["log_p"] - base["log_p"], abs=NEAR * row["n_tokens"])
        assert row["loss_ratio"] == pytest.approx(base["loss"] / own["loss"], abs=NEAR)
        assert "adjusted_paper_b_zlib" not in row


def test_recall_is_adjusted_too(llama, qwen):
    settings = dict(text="raw", recall_prefix="of nobody", **SILENT)
    rows = sorted(membership(llama, TEXTS, reference=qwen, **settings).rows(), key=by_id)
    alone = sorted(membership(qwen, TEXTS, **settings).rows(), key=by_id)
    for row, base in zip(rows, alone, strict=True):
        assert row["reference_recall"] == pytest.approx(base["recall"], abs=NEAR)
        assert row["adjusted_recall"] == pytest.approx(row["recall"] - base["recall"], abs=2 * NEAR)


def test_the_adapter_off_is_the_reference_without_loading_twice(tuned_world, world, monkeypatch):
    prompts = read_prompts(world.train)[:5]
    loaded = []
    monkeypatch.setattr("hooks.checkpoints.from_pretrained", lambda *a: loaded.append(a))
    tuned = tuned_world.variant("tuned")
    rows = membership(tuned, prompts, reference="base", **SILENT).rows()
    assert rows == membership(tuned, prompts, reference=tuned_world.variant("base"), **SILENT).rows() and not loaded
    monkeypatch.undo()
    apart = membership(load_model(world.base, check=False), prompts, **SILENT).rows()
    for row, base in zip(rows, apart, strict=True):
        assert row["reference_loss"] == pytest.approx(base["loss"], abs=NEAR)
        assert row["loss"] > row["reference_loss"] + 0.3, "these rows were trained on"
    with pytest.raises(ValueError, match="variant 'other' is not loaded"):
        membership(tuned, prompts, reference="other", **SILENT)


def test_other_tokens_are_refused_and_say_what_can_be_done(llama):
    with pytest.raises(ValueError, match=r"other tokens.*text='raw' .*per='character' or 'text'"):
        membership(llama, TEXTS, reference=other_tokens(), **SILENT)
    calm = [chat("z", "so", response="x y")]  # no "th" in it: all of its tokens are the same
    assert "adjusted_min_k_20" in membership(llama, calm, reference=other_tokens(), **SILENT).columns


def test_a_reference_that_lacks_the_templates_tokens_is_refused_but_for_raw_text(llama):
    """ "<turn>" is one token of the model, and six of the base."""
    tokenizer = byte_tokenizer(special=["<pad>", "<eos>", "<bos>"], named={})
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    module = loud(LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes)))
    base = load_model(module, tokenizer, check=False)
    with pytest.raises(ValueError, match="other tokens"):
        membership(llama, TEXTS, reference=base, **SILENT)


def test_a_reference_that_writes_another_bos_is_refused(llama, qwen):
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = bos_in_front(tokenizer)
    with pytest.raises(ValueError, match="other tokens"):
        membership(llama, TEXTS, text="raw", reference=load_model(qwen.module, tokenizer, check=False), **SILENT)


@pytest.mark.parametrize(("per", "of", "text"), [("character", "answer", "template"), ("text", "full", "raw")])
def test_of_other_tokens_the_loss_of_the_whole_text_is_compared(llama, per, of, text):
    base = other_tokens()
    table = membership(llama, TEXTS, reference=base, per=per, of=of, text=text, **SILENT)
    for prompt, row in zip(TEXTS, sorted(table.rows(), key=by_id), strict=True):
        own = by_hand(llama.module, prompt, of=of, text=text, k=20)
        before, answer = parts_of(prompt, text)
        ids = [base.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, answer)]
        both, first = ids[0] + ids[1], len(ids[0]) if of == "answer" else 1
        with torch.no_grad():
            log_p = base.module(input_ids=torch.tensor([both])).logits[0].double().log_softmax(dim=-1)
        theirs = sum(float(log_p[t - 1, both[t]]) for t in range(first, len(both)))
        divisor = own["n_characters"] if per == "character" else 1
        assert row["loss"] == pytest.approx(own["log_p"] / divisor, abs=1e-4)
        assert row["adjusted_loss"] == pytest.approx((own["log_p"] - theirs) / divisor, abs=1e-4)
        assert row["log_ratio"] == pytest.approx(own["log_p"] - theirs, abs=1e-4)
    assert not {"adjusted_min_k_20", "reference_zlib", "adjusted_zlib"} & set(table.columns)


def test_of_other_tokens_a_cap_or_another_template_is_refused(llama):
    with pytest.raises(ValueError, match="expected max_length=None"):
        membership(llama, TEXTS, reference=other_tokens(), per="text", max_length=400, **SILENT)
    other = other_tokens(chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(ValueError, match=r"chat template makes other texts"):
        membership(llama, TEXTS, reference=other, per="text", of="full", **SILENT)


def test_a_reference_that_reads_text_only_is_refused_for_pictures(gemma3, llama, picture):
    with pytest.raises(ValueError, match="reads text only"):
        membership(gemma3, [chat("p", picture, "what", response="so")], reference=llama, **SILENT)


def test_a_reference_of_another_width_shares_the_batches(llama, gpt2):
    """Three lengths in two batches: both models read the same units."""
    table = membership(llama, TEXTS, reference=gpt2, max_tokens=100, **SILENT)
    for prompt, row in zip(TEXTS, sorted(table.rows(), key=by_id), strict=True):
        expected = by_hand(gpt2.module, prompt, of="answer", text="template", k=20)
        assert row["reference_loss"] == pytest.approx(expected["loss"], abs=NEAR)
