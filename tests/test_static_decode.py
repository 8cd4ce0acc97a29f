"""Decoding on a cache of fixed size writes what the library's own loop writes, and counts the same edits; where it
cannot, the ordinary loop does, and says why."""

from dataclasses import replace

import pytest
import tiny_lm
import torch
from own_hooks import everything, hooks_left, noise
from tiny_models import byte_tokenizer

import workbench as wb
from hooks import static_cache, static_decode, static_step
from hooks.decoding import plainly
from hooks.edits import bank
from hooks.load import load_model
from hooks.prefix_cache import prefix
from hooks.site import Site
from hooks.static_decode import WAYS

STOPS = list(range(10, 264, 9))  # one token in nine ends a row, so rows of one batch end at different steps
OPTIONS = {"max_new_tokens": 24, "eos_token_id": STOPS}
LONG = {"max_new_tokens": 24, "eos_token_id": [1]}


@pytest.fixture(scope="module", params=list(tiny_lm.LANGUAGE_MODELS))
def family(request):
    return load_model(tiny_lm.LANGUAGE_MODELS[request.param](), byte_tokenizer())


@pytest.fixture(scope="module")
def qwen():
    return load_model(tiny_lm.qwen2(), byte_tokenizer())


def ablation(model, scope, seed=0, at=0.5):
    """Measures what it removes."""
    v = torch.randn(1, 2, model.d_model, generator=torch.Generator().manual_seed(seed))
    v = torch.linalg.qr(v[0].T).Q.T[None].contiguous()
    kept = torch.full((1, 2), at)
    edit = replace(noise(model, 1.0, scope), read=v, write=v, gain=-torch.ones(1, 2), shift=kept)
    return replace(edit, centre=torch.zeros(1, model.d_model), remaining=kept)


def edits_of(model, kind):
    cells = [noise(model, 2.0, scope, seed) for seed, scope in enumerate(["prompt", "answering", "all"])]
    ablations = [ablation(model, "all", seed) for seed in range(2)]
    gated = replace(noise(model, 3.0, "all", 5), gain=torch.ones(1, 1), threshold=0.05, power=1)
    return {
        "none": None,
        "all": {Site(0): [noise(model, 2.0)], Site(1, "resid_pre"): [noise(model, k=2), ablation(model, "all")]},
        "response": {Site(1): [ablation(model, "response", 3)], Site(0, "mlp_out"): [noise(model, 1.0, "response")]},
        "answering": {Site(2): [noise(model, 2.0, "answering", 4)]},
        "position 24": {Site(1): [noise(model, 9.0, 24), noise(model, 9.0, "last", 6)], Site(2): [noise(model, 1.0)]},
        "rows are cells": {Site(1): [bank(cells, model.d_model).for_rows([0, 1, 2, -1])]},
        "ablated rows": {Site(0): [bank(ablations, model.d_model).for_rows([1, -1, 0, 1])]},
        "gated": {Site(1): [gated]},
    }[kind]  # fmt: skip


KINDS = ["none", "all", "response", "answering", "position 24", "rows are cells", "ablated rows", "gated"]


def compared(model, prompts, edits, way="static", said=None, **options):
    """Both generations, asserted to be alike, the same draws where they sample."""
    batch, left = model.encode(prompts), hooks_left(model)
    torch.manual_seed(3)
    ordinary = model.generate(batch, edits=edits, must_edit=False, **options)
    torch.manual_seed(3)
    other = model.generate(batch, edits=edits, must_edit=False, decode=way, **options)
    assert other.decoding == (said or way) and ordinary.decoding == "dynamic"
    assert other.token_ids == ordinary.token_ids and other.finished == ordinary.finished
    assert other.texts == ordinary.texts and hooks_left(model) == left
    assert_same_counts(ordinary.tallies, other.tallies)
    return ordinary, other


def assert_same_counts(ordinary, other):
    """Positions to the last one; energies of the same float32 residuals, to the rounding of another attention shape."""
    assert ordinary.keys() == other.keys()
    for site, tallies in ordinary.items():
        for a, b in zip(tallies, other[site], strict=True):
            assert a.edited.tolist() == b.edited.tolist()
            assert torch.allclose(a.removed, b.removed, rtol=1e-4) and torch.allclose(a.energy, b.energy, rtol=1e-4)
            assert torch.allclose(a.leftover, b.leftover, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_writes_what_its_own_loop_writes(family, prompts, kind):
    """Rows of four lengths padded left, a window shorter than the prompts; some rows end early, in the second run
    none."""
    edits = edits_of(family, kind)
    early, _ = compared(family, prompts, edits, **OPTIONS)
    compared(family, prompts, edits, **LONG)
    assert (
        kind not in ("all", "response")
        or early.tallies[Site(1) if kind == "response" else Site(1, "resid_pre")][-1].removed.any()
    )


def test_the_comparison_above_can_fail(qwen, prompts):
    """Rows do end at different steps, and the edits of the response alone do change the answers."""
    plain, _ = compared(qwen, prompts, None, **OPTIONS)
    assert len({len(ids) for ids in plain.token_ids}) > 2
    for kind in KINDS[1:]:
        assert (
            compared(qwen, prompts, edits_of(qwen, kind), **LONG)[1].token_ids
            != qwen.generate(qwen.encode(prompts), **LONG).token_ids
        )


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_a_window_that_the_answer_outgrows(name, prompts, monkeypatch):
    """Wider than the shorter prompts: it begins to hide columns while the answer is written."""
    monkeypatch.setitem(tiny_lm._GEMMA, "sliding_window", 26)
    model = load_model(tiny_lm.LANGUAGE_MODELS[name](), byte_tokenizer())
    compared(model, prompts, edits_of(model, "all"), **LONG)


def test_eager_attention_reads_masks_that_are_added(prompts):
    module = tiny_lm.gemma2()
    module.config._attn_implementation = "eager"
    compared(load_model(module, byte_tokenizer()), prompts, None, **LONG)


def test_pictures_and_their_tower(scene):
    """The prompt is read by the model's own prefill, so that pictures attend to themselves; edits of a vision tower act
    there and nowhere else."""
    model, prompts = scene
    edits = {Site(1): [noise(model, 2.0, "response")]}
    compared(model, prompts, edits, **LONG)
    if any(prompt.images for prompt in prompts):
        shown = [prompt for prompt in prompts if prompt.images]
        write = torch.randn(1, 1, 24, generator=torch.Generator().manual_seed(1))  # the tower's own width
        inside = replace(noise(model, scope="image"), read=write, write=write)
        _, other = compared(model, shown, {**edits, Site(0, tower="vision"): [inside]}, **LONG)
        assert other.tallies[Site(0, tower="vision")][0].edited.min() > 0


@pytest.mark.parametrize(
    "sampling",
    [
        {"do_sample": True},
        {"do_sample": True, "temperature": 0.6, "top_k": 20},
        {"do_sample": True, "top_p": 0.7, "suppress_tokens": [11, 12]},
        {"suppress_tokens": list(range(100, 200))},
    ],
    ids=lambda sampling: ", ".join(sampling),
)
def test_the_same_seed_draws_the_same_tokens(qwen, prompts, sampling):
    compared(qwen, prompts, edits_of(qwen, "answering"), **OPTIONS, **sampling)


def test_steps_end_with_the_last_row(qwen, prompts, monkeypatch):
    steps, step = [], static_step.StaticStep.step
    monkeypatch.setattr(static_step.StaticStep, "step", lambda self: (steps.append(1), step(self))[1])
    plain, _ = compared(qwen, prompts, None, **OPTIONS)
    longest = max(len(ids) for ids in plain.token_ids)
    assert 2 < longest < 24 and len(steps) == 1 + longest - 2, "the repeated first step, and one for each token after"


def test_rows_that_have_ended_go_on_with_pads(qwen, prompts):
    """To the last column, as the library's own loop leaves them: experts may route by every row of a batch."""
    batch, stops = qwen.encode(prompts).padded("left"), frozenset(STOPS)
    options = plainly({}, qwen.encoder.pad_id, stops) | {"max_new_tokens": 24}
    rows = [static_decode.generated(qwen, batch, None, None, stops, options, None, way)[0] for way in WAYS[:2]]
    assert torch.equal(rows[0], rows[1]) and bool((rows[0][:, -1] == qwen.encoder.pad_id).any())


def test_answers_behind_a_shared_prefix(qwen, prompts):
    batch = qwen.encode([prompts[0], prompts[2]])
    shared = prefix(qwen, batch, int(batch.padded("left").inputs["input_ids"].shape[1]) - 3)
    edits = {Site(1): [noise(qwen, 2.0, "answering")]}
    runs = [
        qwen.generate(batch, edits=edits, after=shared.rows([0, 1]), decode=way, **LONG)
        for way in ("dynamic", "static")
    ]
    assert runs[0].token_ids == runs[1].token_ids and runs[1].decoding == "static"
    assert_same_counts(runs[0].tallies, runs[1].tallies)


def test_wb_generate_passes_the_option_on(qwen, prompts, monkeypatch):
    ways, generated = [], static_decode.generated
    monkeypatch.setattr("hooks.backends.hf.generated", lambda *args: (ways.append(args[-1]), generated(*args))[1])
    wb.generate(qwen, prompts, max_new_tokens=4, decode="static")
    assert set(ways) == {"static"}


# Where it cannot: the ordinary loop's answer, and the reason.


def plain_edit(resid, where):
    return resid + 0.5


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"edits": {Site(1): [plain_edit]}}, "dynamic: the edit at resid_post:1 is no bank of LowRankEdit"),
        ({"regex": True}, "dynamic: the edit at resid_post:1 looks at the texts of tokens"),
        ({"repetition_penalty": 1.5}, "dynamic: repetition_penalty is the library's own loop's to know"),
        ({"max_new_tokens": 2}, "dynamic: there is nothing to gain within 2 tokens, or without a cache"),
        ({"decode": "graph"}, "dynamic: there are no CUDA graphs on cpu"),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_what_cannot_be_static_says_why(qwen, prompts, given, why):
    if given.get("regex"):
        given = {"edits": {Site(1): [noise(qwen, 1.0, "re:[a-m]")]}}
    options = {**LONG, **given}
    compared(qwen, prompts, options.pop("edits", None), options.pop("decode", "static"), why, **options)


def test_keeps_and_other_back_ends_go_their_own_way(qwen, prompts, monkeypatch):
    batch = qwen.encode(prompts)
    out = qwen.generate(batch, {Site(1): everything}, decode="static", **LONG)
    assert out.decoding == "dynamic: what is kept is taken step by step" and len(out.kept[Site(1)]) == 24
    monkeypatch.setattr(qwen, "native", False)
    compared(qwen, prompts, None, "static", "dynamic: the back end has a loop of its own", **LONG)


def test_an_unknown_way_is_refused(qwen, prompts):
    with pytest.raises(ValueError, match="decode='quick' is unknown: expected one of dynamic, static, graph"):
        qwen.generate(qwen.encode(prompts), decode="quick")


def test_answers_that_end_at_once(qwen, prompts):
    every = list(range(264))
    _, other = compared(
        qwen,
        prompts,
        None,
        "static",
        "dynamic: every answer ended within 2 tokens",
        **{**OPTIONS, "eos_token_id": every},
    )
    assert all(len(ids) == 1 for ids in other.token_ids)


def test_pitfall_a_static_cache_that_gives_other_numbers_is_not_used(qwen, prompts, monkeypatch):
    """Masks that let a row see its pads: the first step shows it, the draws and the counts of the attempt are undone,
    and the next batch is tried again."""
    real, tried = static_cache._real, []

    def blind(mask, *others):
        tried.append(1)
        return torch.ones_like(real(mask, *others))

    monkeypatch.setattr(static_cache, "_real", blind)
    for _ in range(2):
        edits, sampling = edits_of(qwen, "all"), {"do_sample": True, "temperature": 0.7}
        batch = qwen.encode(prompts)
        torch.manual_seed(3)
        out = qwen.generate(batch, edits=edits, decode="static", **LONG, **sampling)
        assert out.decoding.startswith("dynamic: the first step on a static cache gave other logits (by ")
        torch.manual_seed(3)
        ordinary = qwen.generate(batch, edits=edits, **LONG, **sampling)
        assert out.token_ids == ordinary.token_ids
        assert_same_counts(ordinary.tallies, out.tallies)
    assert len(tried) == 2


def test_what_a_model_cannot_is_tried_once(prompts, monkeypatch):
    model, tried = load_model(tiny_lm.qwen2(), byte_tokenizer()), []

    def refuses(*_):
        tried.append(1)
        raise TypeError("no such mask")

    monkeypatch.setattr(static_cache.FixedCache, "masks", refuses)
    for _ in range(2):
        compared(model, prompts, None, "static", "dynamic: TypeError: no such mask", **LONG)
    assert len(tried) == 1
