"""Stacked adapters: the update of every row against W + s·B·A of its own adapter, written out in float64."""

from __future__ import annotations

import pytest
import torch
from conftest import chat
from peft import LoraConfig, get_peft_model
from tiny_models import FAMILIES, byte_tokenizer
from torch import nn

from hooks.load import load_model
from hooks.stacked_adapters import Groups, Stacks, stackable
from workbench.behaviour.answering import sample_answers

RANKS = {"a": (2, 4), "b": (3, 3), "c": (1, 8)}  # adapter: (rank, alpha)
QUESTIONS = [chat("q0", "hi"), chat("q1", "what is this"), chat("q2", "a longer question")]
SILENT = {"progress": False, "max_new_tokens": 5}


def layer_of(targets=("one",), dtype=torch.float32, **config):
    """A peft layer of width 5 to 7 under three adapters of unlike rank and scale."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"one": nn.Linear(5, 7), "two": nn.Linear(5, 7)}).to(dtype)
    peft = None
    for name, (rank, alpha) in RANKS.items():
        made = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), **config)
        if peft is None:
            peft = get_peft_model(model, made, name)
        else:
            peft.add_adapter(name, made)
    for weight_name, weight in peft.named_parameters():
        if "lora_B" in weight_name:
            nn.init.normal_(weight)
    return model["one"].eval()


def by_hand(layer, names, x):
    """Row by row, in float64."""
    rows = []
    for name, row in zip(names, x.double(), strict=True):
        out = row @ layer.base_layer.weight.double().T + layer.base_layer.bias.double()
        if name in RANKS:
            rank, alpha = RANKS[name]
            out = out + alpha / rank * row @ layer.lora_A[name].weight.double().T @ layer.lora_B[name].weight.double().T
        rows.append(out)
    return torch.stack(rows)


@pytest.mark.parametrize(
    "names",
    ["aabbcc", "__ab", "ba", "aab", "abab", "_a_b", "a", "cc_a"],
    ids=["blocks", "base first", "another order", "unequal", "mixed", "base between", "one", "base within"],
)
@pytest.mark.parametrize("shape", [(3, 5), (5,)], ids=["row pos d", "row d"])
@torch.inference_mode()
def test_every_entry_gets_its_own_update(names, shape):
    layer, x = layer_of(), torch.randn(len(names), *shape, generator=torch.Generator().manual_seed(1))
    found = Stacks().add("one", layer, list(names), x, layer.base_layer(x))
    torch.testing.assert_close(found.double(), by_hand(layer, names, x), atol=2e-5, rtol=0)
    assert set(names) == {"_"} or not torch.allclose(found, layer.base_layer(x))


@torch.inference_mode()
def test_an_adapter_in_another_precision_is_added_in_its_own():
    """peft keeps adapters in float32 on a base in bfloat16: the update is computed there and rounded once."""
    layer = layer_of(dtype=torch.bfloat16)
    assert layer.lora_A["a"].weight.dtype == torch.float32
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1)).bfloat16()
    for names in ("aabb", "abab"):
        found = Stacks().add("one", layer, list(names), x, layer.base_layer(x))
        exact = by_hand(layer, names, x)
        assert found.dtype == torch.bfloat16
        assert ((found - exact).abs() <= 2**-7 * (1 + exact.abs())).all()


def test_groups_say_where_no_row_has_to_move():
    assert Groups.of(["a", "a", "b", "b"]).span == (0, 4) and Groups.of([None, "b", "a"]).span == (1, 3)
    unequal = Groups.of(["a", None, "b", "a"])
    assert unequal.span is None and unequal.index.tolist() == [[0, 3], [2, -1]]
    assert Groups.of([None, None]).adapters == ()


def test_what_is_more_than_two_products_is_left_to_peft():
    assert stackable(layer_of(), "abc")
    assert not stackable(layer_of(lora_bias=True), "abc") and not stackable(layer_of(use_dora=True), "abc")
    assert not stackable(nn.Linear(2, 2), "abc")


# Answers of several variants as rows of one batch.


@pytest.fixture
def population():
    """A tiny llama under four adapters that answer differently."""
    module = FAMILIES["llama"]()[0]
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    peft = get_peft_model(module, config, "a0")
    for n in range(1, 4):
        peft.add_adapter(f"a{n}", config)
    torch.manual_seed(0)
    for name, weight in peft.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.5)
    return load_model(peft.eval(), byte_tokenizer(), check=False)


def answers(table):
    return {(row["condition"], row["prompt"], row["sample"]): row["token_ids"] for row in table.rows()}


@pytest.mark.parametrize("samples", [1, 3])
def test_answers_of_a_population_are_those_of_its_members(population, samples, monkeypatch):
    drawn = dict(samples=samples, temperature=0.9, top_p=0.9, repetition_penalty=1.1)
    alone = {}
    for name in population.variants:
        alone |= answers(sample_answers(population, QUESTIONS, conditions=[name], **drawn, **SILENT))
    batches = []
    own = type(population).generate
    monkeypatch.setattr(type(population), "generate", lambda self, *a, **k: (batches.append(1), own(self, *a, **k))[1])
    together = sample_answers(population, QUESTIONS, conditions=population.variants, **drawn, **SILENT)
    assert answers(together) == alone and len(set(alone.values())) > len(QUESTIONS) * samples
    assert len(batches) == len(together.plan) == 2, "two lengths of prompts, all five variants in each batch"


def test_as_many_variants_as_fit_share_a_batch(population):
    room = 2 * (len(population.encoder.encode(QUESTIONS[0])) + SILENT["max_new_tokens"])
    few = sample_answers(population, QUESTIONS[:1], conditions=population.variants, max_tokens=room, **SILENT)
    assert {key.split(".batch")[0] for key in few.plan} == {"base..a0", "a1..a2", "a3"}
    whole = sample_answers(population, QUESTIONS[:1], conditions=population.variants, **SILENT)
    assert {key.split(".batch")[0] for key in whole.plan} == {"base..a3"} and answers(few) == answers(whole)


def test_a_layer_that_hides_its_rows_is_asked_variant_by_variant(population):
    alone = {}
    for name in population.variants:
        alone |= answers(sample_answers(population, QUESTIONS, conditions=[name], **SILENT))
    population.why_not_by_row(("a0", "a1"))
    reads = population.adapters._reads
    assert reads.pop("model.layers.0.mlp.down_proj")
    assert answers(sample_answers(population, QUESTIONS, conditions=population.variants, **SILENT)) == alone


def test_adapters_that_cannot_be_rows_are_asked_variant_by_variant():
    peft = get_peft_model(FAMILIES["llama"]()[0], LoraConfig(r=2, target_modules=["q_proj"], use_dora=True), "a0")
    for name, weight in peft.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight)
    model = load_model(peft.eval(), byte_tokenizer(), check=False)
    table = sample_answers(model, QUESTIONS[:1], conditions=model.variants, **SILENT)
    assert set(table.plan) == {"base.batch0", "a0.batch0"} and len(table.rows()) == 2


def test_the_head_reads_a_contiguous_tensor_while_it_generates(population):
    """Of several rows the library hands it a strided slice, which torch multiplies a hundred times more slowly."""
    strided = []
    head = population.module.get_output_embeddings()
    batch = population.encode(QUESTIONS)
    head.register_forward_hook(lambda module, args, out: strided.append(not args[0].is_contiguous()))
    population.generate(batch, max_new_tokens=3)
    assert strided and not any(strided)
