"""Edits of a hooked run: applied before what is kept, in order, counted, and without a trace in the weights."""

from dataclasses import replace

import pytest
import torch
from conftest import chat
from own_hooks import everything, hooks_left, noise, sites_of

from hooks.edits import LowRankEdit, identity
from hooks.model import NothingEdited
from hooks.pool import Pool
from hooks.site import Site


def test_a_zero_edit_leaves_the_logits_bit_equal(scene):
    model, prompts = scene
    batch = model.encode(prompts)
    plain = model.run(batch, dict.fromkeys(sites_of(model), everything))
    nothing = identity(2, model.d_model)
    at_zero = replace(noise(model), shift=torch.zeros(1, 1))
    for edit in (nothing, at_zero):
        edits = {site: [edit, edit] for site in sites_of(model)}
        edited = model.run(batch, dict.fromkeys(sites_of(model), everything), edits)
        assert torch.equal(edited.logits, plain.logits)
        assert all(torch.equal(edited.kept[site], plain.kept[site]) for site in sites_of(model))
    assert not torch.equal(model.run(batch, None, {Site(1): [noise(model)]}).logits, plain.logits), "the meta-test"


def test_pitfall_20_an_edit_in_place_changes_nothing_that_was_kept(llama):
    """The keep of block 0's output and the input of block 1 share their storage."""
    batch = llama.encode([chat("a", "hi"), chat("b", "longer than that")])
    keep = {Site(0): everything}

    def in_place(resid, where):
        return resid.add_(1.0 * torch.arange(resid.shape[-1]))

    def out_of_place(resid, where):
        return resid + 1.0 * torch.arange(resid.shape[-1])

    plain = llama.run(batch, keep)
    dirty = llama.run(batch, keep, {Site(1, "resid_pre"): [in_place]})
    clean = llama.run(batch, keep, {Site(1, "resid_pre"): [out_of_place]})
    assert torch.equal(dirty.kept[Site(0)], plain.kept[Site(0)])
    assert torch.equal(dirty.logits, clean.logits) and not torch.equal(dirty.logits, plain.logits)
    counts = [len(one) for one in batch.encoded]
    assert [t.edited.tolist() for t in (dirty.tallies[Site(1, "resid_pre")][0],)] == [counts]


@pytest.mark.parametrize(
    ("returns", "came"),
    [
        (lambda r, w: r[:, :-1], "20, 32"),
        (lambda r, w: r.double(), "float64"),
        (lambda r, w: (r,), "tuple"),
        (lambda r, w: None, "NoneType"),
        (lambda r, w: r[..., :16], "16"),
    ],
    ids=["a position less", "dtype", "tuple", "None", "narrower"],
)
def test_an_edit_that_returns_something_else_is_caught(llama, returns, came):
    batch, before = llama.encode([chat("a", "hi")]), hooks_left(llama)
    with pytest.raises(TypeError, match=rf"the edit at resid_post:1 returned .*{came}.*: expected \(1, 21, 32\)"):
        llama.run(batch, None, {Site(1): [returns]})
    assert hooks_left(llama) == before


def test_edit_first_keep_second(llama):
    batch = llama.encode([chat("a", "hi")])
    plain = llama.run(batch, {Site(1): everything}).kept[Site(1)]
    edit = noise(llama)
    edited = llama.run(batch, {Site(1): everything}, {Site(1): [edit]}).kept[Site(1)]
    assert torch.allclose(edited, plain + edit.write[0, 0], atol=1e-6)
    downstream = llama.run(batch, {Site(2, "resid_pre"): everything}, {Site(1): [edit]}).kept[Site(2, "resid_pre")]
    assert torch.equal(downstream, edited), "the next block reads exactly the edited tensor"


def test_pitfall_21_edits_at_one_site_act_in_list_order(llama):
    batch = llama.encode([chat("a", "hi")])
    add = noise(llama)
    v = add.write / add.write.norm()
    ablate = LowRankEdit(v, v, -torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1), ("all",))
    for order, expected in [([add, ablate], 0.0), ([ablate, add], 1.0)]:
        kept = llama.run(batch, {Site(1): everything}, {Site(1): order}).kept[Site(1)]
        # Residuals here are 30 long: float32 leaves 30 · 2^-24 and a little more of a projection.
        assert (kept @ v[0, 0] - expected).abs().max() < 1e-5


@pytest.mark.parametrize("scope", ["prompt", "last", "response", "answering", "image", "text", 3, "re:[aeiou]"])
def test_the_tally_counts_what_was_edited(scene, scope):
    """Counted twice by other means: from the mask on the CPU, and from the positions whose residual moved."""
    model, prompts = scene
    batch = model.encode(prompts)
    expected = batch.tokens.mask(scope).sum(dim=1).tolist()
    edits = {Site(1): [noise(model, scope=scope)]}
    if not any(expected):
        with pytest.raises(NothingEdited, match="the edits at resid_post:1 touched no position of any row"):
            model.run(batch, None, edits)
        assert model.run(batch, None, edits, must_edit=False).untouched() == list(range(len(batch)))
        return
    plain = model.run(batch, {Site(1): everything}).kept[Site(1)]
    trace = model.run(batch, {Site(1): everything}, edits)
    moved = (trace.kept[Site(1)] != plain).any(dim=-1)
    assert trace.tallies[Site(1)][0].edited.tolist() == expected == moved.sum(dim=1).tolist()
    assert trace.untouched() == [row for row, n in enumerate(expected) if n == 0]
    assert torch.equal(moved, batch.tokens.mask(scope)), "pitfall 8: pads stay as they are"


def test_plain_callables_are_counted_without_their_pads(llama, prompts):
    batch = llama.encode(prompts)
    trace = llama.run(batch, None, {Site(1): [lambda r, w: r + 1.0]})
    assert trace.tallies[Site(1)][0].edited.tolist() == [len(one) for one in batch.encoded]
    with pytest.raises(NothingEdited):
        llama.run(batch, None, {Site(1): [lambda r, w: r]})
    with pytest.raises(NothingEdited):
        llama.run(batch, None, {Site(1): [lambda r, w: r.clone()]})


def test_a_site_with_an_empty_list_of_edits_is_no_edit(llama):
    batch = llama.encode([chat("a", "hi")])
    assert torch.equal(llama.run(batch, None, {Site(1): []}).logits, llama.run(batch).logits)


def test_pitfall_08_a_pool_leaves_pads_out(llama):
    """A row's mean is the same whatever it is padded with."""
    short, long = chat("a", "hi"), chat("b", "a very much longer question")
    keep = {Site(2): Pool("all", "mean")}
    alone = llama.run(llama.encode([short]), keep).kept[Site(2)][0]
    padded = llama.run(llama.encode([short, long]), keep).kept[Site(2)][0]
    assert (alone - padded).abs().max() < 1e-5 * alone.abs().max()


def test_pool_refuses_an_unknown_reduction():
    with pytest.raises(ValueError, match="pool 'max' is unknown: expected one of none, mean"):
        Pool("all", "max")


def test_pitfall_03_ablation_at_every_block_output_leaves_nothing(scene):
    """Gemma's norms behind attention and MLP turn weights back into the direction: acting on the stream itself, at the
    embedding and every block's output, nothing is left anywhere (float32 floor: 1e-6 of the residual's length)."""
    model, prompts = scene
    v = noise(model).write
    gone = LowRankEdit(v, v, -torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1), ("all",))
    batch, places = model.encode(prompts), [Site(0, "resid_pre"), *(Site(layer) for layer in range(model.n_layers))]
    kept = model.run(batch, dict.fromkeys(sites_of(model), everything), {site: [gone] for site in places}).kept
    real = batch.tokens.position >= 0
    for site in sites_of(model):
        stream = kept[site][real]
        assert ((stream @ v[0, 0]).abs() / stream.norm(dim=-1)).max() < 1e-6, site
    plain = model.run(batch, {Site(1): everything}).kept[Site(1)][real]
    assert ((plain @ v[0, 0]).abs() / plain.norm(dim=-1)).max() > 1e-2, "the meta-test"


def test_pitfall_04_no_weight_is_touched_by_edits(gemma3):
    """Gemma's embedding is its LM head too: edits act on the stream, so the read-out stays what it was."""
    before = {name: weight.clone() for name, weight in gemma3.module.named_parameters()}
    batch = gemma3.encode([chat("a", "hi")])
    gemma3.run(batch, None, {site: [noise(gemma3)] for site in sites_of(gemma3)})
    gemma3.generate(batch, edits={Site(0, "resid_pre"): [noise(gemma3)]}, max_new_tokens=2)
    assert all(torch.equal(weight, before[name]) for name, weight in gemma3.module.named_parameters())
