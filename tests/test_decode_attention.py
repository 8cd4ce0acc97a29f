"""Attention of few queries on a CPU, against the formula in float64 and against torch's own kernel."""

from __future__ import annotations

import pytest
import torch
from conftest import chat
from tiny_lm import LANGUAGE_MODELS
from tiny_models import byte_tokenizer
from torch.nn import functional

from hooks import decode_attention
from hooks.decode_attention import few_queries, quick_few_queries
from hooks.load import load_model
from hooks.site import Site

CPU, ROWS, KEYS, D = torch.device("cpu"), 3, 11, 8


def drawn(heads, groups, queries=1, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(heads)
    shapes = [(ROWS, heads, queries, D), (ROWS, groups, KEYS, D), (ROWS, groups, KEYS, D)]
    return [torch.randn(*shape, generator=generator).to(dtype) for shape in shapes]


def by_formula(query, key, value, mask, scale):
    query, key, value = query.double(), key.double(), value.double()
    copies = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)
    weight = query @ key.transpose(-1, -2) * scale
    if mask is not None:
        weight = weight.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else weight + mask
    return weight.softmax(-1) @ value


def masks():
    allowed = torch.rand(ROWS, 1, 1, KEYS, generator=torch.Generator().manual_seed(0)) < 0.6
    allowed[..., 0] = True
    return [None, allowed, torch.where(allowed, 0.3, torch.finfo(torch.float32).min)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mask", masks(), ids=["no mask", "bool", "float"])
@pytest.mark.parametrize(("heads", "groups", "queries"), [(6, 6, 1), (6, 2, 1), (6, 1, 3), (4, 2, 5)])
def test_it_is_the_formula(heads, groups, queries, mask, dtype):
    """Within what rounding the weights and the result to the dtype leaves; torch's own kernel is no nearer."""
    given = drawn(heads, groups, queries, dtype)
    scale = 0.37
    expected = by_formula(*given, mask, scale)
    found = few_queries(*given, mask, scale)
    assert found.dtype == dtype and found.shape == expected.shape
    own_mask = mask.to(dtype) if mask is not None and mask.dtype != torch.bool else mask
    own = functional.scaled_dot_product_attention(*given, attn_mask=own_mask, scale=scale, enable_gqa=True)
    error = (found.double() - expected).abs().max()
    assert error <= max(2 * (own.double() - expected).abs().max(), 4 * torch.finfo(dtype).eps)


def test_a_row_without_keys_gives_zeros():
    given = drawn(2, 2)
    mask = torch.ones(ROWS, 1, 1, KEYS, dtype=torch.bool)
    mask[1] = False
    found = few_queries(*given, mask, 1.0)
    assert not found[1].any() and found[0].any() and not found.isnan().any()


def test_only_few_queries_in_half_precision_are_taken(monkeypatch):
    taken = []
    monkeypatch.setattr(decode_attention, "few_queries", lambda *a: taken.append(a[0].shape) or a[0])
    with quick_few_queries(CPU, torch.bfloat16):
        attend = functional.scaled_dot_product_attention
        attend(*drawn(4, 4, queries=17))
        attend(*drawn(4, 4), is_causal=True)
        attend(*drawn(4, 4), dropout_p=0.5)
        attend(*drawn(4, 4, dtype=torch.float32))
        attend(*(each[0] for each in drawn(4, 4)))
        with pytest.raises(RuntimeError):  # heads that do not fit are torch's to refuse
            attend(*drawn(4, 2))
        assert taken == []
        attend(*drawn(4, 4))
        attend(*drawn(4, 2), enable_gqa=True)
        assert taken == [(ROWS, 4, 1, D)] * 2


def test_torchs_own_comes_back():
    own = functional.scaled_dot_product_attention
    with pytest.raises(ValueError), quick_few_queries(CPU, torch.bfloat16):
        assert functional.scaled_dot_product_attention is not own
        raise ValueError
    assert functional.scaled_dot_product_attention is own
    for device, dtype in ((CPU, torch.float32), (torch.device("cuda"), torch.bfloat16)):
        with quick_few_queries(device, dtype):
            assert functional.scaled_dot_product_attention is own


@pytest.mark.parametrize("name", list(LANGUAGE_MODELS))
def test_generation_uses_it_and_keeps_its_logits(name, monkeypatch):
    """bfloat16, left padding, sliding windows: each step's residual within four units in the last place of the largest
    of torch's own attention."""
    model = load_model(LANGUAGE_MODELS[name]().bfloat16(), byte_tokenizer(), check=False)
    batch = model.encode([chat("a", "hi"), chat("b", "what is it, and whose?")])
    keep = {Site(model.n_layers - 1): lambda resid, where: resid[:, -1].clone()}
    calls = []
    ours = decode_attention.few_queries
    monkeypatch.setattr(decode_attention, "few_queries", lambda *a: calls.append(1) or ours(*a))
    found = model.generate(batch, keep, max_new_tokens=2).kept[Site(model.n_layers - 1)]
    sdpa = model.module.config._attn_implementation == "sdpa"  # Gemma2's soft cap needs another
    assert len(calls) == (model.n_layers if sdpa else 0), "one step behind the prompt"
    monkeypatch.setattr(decode_attention, "_SLOW", ())
    expected = model.generate(batch, keep, max_new_tokens=2).kept[Site(model.n_layers - 1)]
    for a, b in zip(found, expected, strict=True):
        assert (a.float() - b.float()).abs().max() <= 4 * torch.finfo(torch.bfloat16).eps * b.float().abs().max()
