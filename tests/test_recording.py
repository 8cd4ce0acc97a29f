"""Forwards in part: from a recorded block on, and copies that join on the way, against whole forwards."""

from __future__ import annotations

import pytest
import torch
from conftest import chat
from own_hooks import hooks_left, noise
from tiny_lm import LANGUAGE_MODELS
from tiny_models import byte_tokenizer

from hooks.load import load_model
from hooks.recording import Recorder
from hooks.site import Site
from hooks.staircase import Staircase
from workbench.interventions.cells import Grid

PROMPTS = [chat("a", "hi"), chat("b", "what is it, and whose?"), chat("c", "a dog")]  # mixed lengths
ROUNDED = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of the largest logit: another shape sums in another order


@pytest.fixture(scope="module", params=[(name, dtype) for name in LANGUAGE_MODELS for dtype in ROUNDED], ids=str)
def scene(request):
    name, dtype = request.param
    model = load_model(LANGUAGE_MODELS[name]().to(dtype), byte_tokenizer(), check=False)
    batch = model.encode(PROMPTS)
    recorder = Recorder(model.towers["language"], len(batch))
    clean = model.run(batch, through=recorder.recording())
    return model, batch, clean, recorder.recorded()


def edits_at(model, layer, point="resid_post", seed=0):
    return {Site(layer, point): [noise(model, 30.0, seed=seed)]}


def test_recording_changes_nothing_and_leaves_nothing(scene):
    model, batch, clean, recording = scene
    assert torch.equal(clean.logits, model.run(batch).logits) and hooks_left(model) == 0
    assert recording.nbytes == sum(stream.nbytes for stream in recording.streams.values()) > 0
    with recording.starting(model.n_layers):
        pass
    assert not any("forward" in vars(block) for block in model.towers["language"].blocks)


def test_from_every_block_on_the_forward_is_bit_equal(scene):
    """Mixed lengths, both dtypes: the unedited forward, and edits at every point behind the start."""
    model, batch, clean, recording = scene
    for start in range(model.n_layers + 1):
        assert torch.equal(model.run(batch, through=recording.starting(start)).logits, clean.logits)
    for layer in range(model.n_layers):
        for point, start in (("resid_post", layer + 1), ("resid_pre", layer), ("mlp_out", layer)):
            edits = edits_at(model, layer, point)
            whole, part = (
                model.run(batch, edits=edits),
                model.run(batch, edits=edits, through=recording.starting(start)),
            )
            assert torch.equal(whole.logits, part.logits), (layer, point)
            assert not torch.equal(whole.logits, clean.logits), "the meta-test: the edit matters"
            site = Site(layer, point)
            assert torch.equal(whole.tallies[site][0].edited, part.tallies[site][0].edited)


def test_a_model_that_adds_to_the_stream_in_place_is_recorded_as_it_was(scene):
    """Between blocks 1 and 2 the stream is changed where it lies: what was recorded behind block 1 is what it returned,
    or a forward from block 2 on would be changed twice."""
    model, batch, clean, _ = scene

    def add(module, args, kwargs):
        held = args[0] if args else kwargs["hidden_states"]
        held.add_(0.5)

    handle = model.towers["language"].blocks[2].register_forward_pre_hook(add, with_kwargs=True)
    try:
        recorder = Recorder(model.towers["language"], len(batch))
        whole = model.run(batch, through=recorder.recording())
        part = model.run(batch, through=recorder.recorded().starting(2))
    finally:
        handle.remove()
    assert torch.equal(whole.logits, part.logits) and not torch.equal(whole.logits, clean.logits)


def test_skipped_blocks_are_not_computed(scene, monkeypatch):
    model, batch, _, recording = scene
    ran = []
    for n, block in enumerate(model.towers["language"].blocks):
        part = next(module for name, module in block.named_modules() if name and not list(module.children()))
        monkeypatch.setattr(part, "forward", lambda *a, n=n, own=part.forward, **k: ran.append(n) or own(*a, **k))
    model.run(batch, edits=edits_at(model, 1), through=recording.starting(2))
    assert set(ran) == set(range(2, model.n_layers))


def test_starting_too_late_would_be_seen(scene):
    """A start behind the edit: its hook acts on what nobody reads, and the logits are the clean ones."""
    model, batch, clean, recording = scene
    late = model.run(batch, edits=edits_at(model, 0), through=recording.starting(2))
    assert torch.equal(late.logits, clean.logits)


def test_several_copies_a_pass_are_single_passes_to_rounding(scene):
    model, batch, _, recording = scene
    cells = [edits_at(model, 1, seed=seed) for seed in range(3)]
    grid = Grid(cells)
    banks = grid.banks(len(batch), model.d_model)
    trace = model.run(grid.batch(batch), edits=banks, through=recording.starting(2, copies=3))
    near(model, batch, cells, trace.logits.unflatten(0, (3, -1)))


@pytest.mark.parametrize("from_recording", [False, True])
def test_copies_that_join_on_the_way_are_single_passes_to_rounding(scene, from_recording):
    model, batch, _, recording = scene
    first = 1 if from_recording else 0
    cells = [edits_at(model, 0, "resid_pre")] if not from_recording else []
    starts = [0] if not from_recording else []
    for layer in range(first, model.n_layers):
        cells += [edits_at(model, layer, seed=layer), edits_at(model, layer, seed=10 + layer)]
        starts += [layer + 1, layer + 1]
    grid = Grid([{}, *cells])
    stairs = Staircase(model.towers["language"], len(batch), starts, recording if from_recording else None)
    banks = grid.banks(len(batch), model.d_model)
    trace = model.run(grid.batch(batch), edits=banks, through=stairs.climbing())
    near(model, batch, [{}, *cells], trace.logits.unflatten(0, (1 + len(cells), -1)))
    tallies = grid.per_cell(trace.tallies, len(batch))
    lengths = [len(one) for one in batch.encoded]
    assert [tally.edited.tolist() for tally in tallies] == [[0, 0, 0], *[lengths] * len(cells)]


def near(model, batch, cells, logits):
    tolerance = ROUNDED[model.dtype]
    for cell, found in zip(cells, logits, strict=True):
        alone = model.run(batch, edits=cell).logits if cell else model.run(batch).logits
        assert (alone - found).abs().max() <= tolerance * alone.abs().max()
    assert (logits[0] - logits[-1]).abs().max() > 5 * tolerance * logits[0].abs().max(), "the meta-test: cells differ"


def test_streams_that_were_not_recorded_are_refused(scene):
    model, batch, _, _ = scene
    recorder = Recorder(model.towers["language"], len(batch), wanted=[0])
    model.run(batch, through=recorder.recording())
    recording = recorder.recorded()
    assert list(recording.streams) == [0]
    with pytest.raises(ValueError, match="behind block 1 was not recorded"):
        model.run(batch, through=recording.starting(2))


def test_copies_out_of_order_are_refused(scene):
    model, batch, _, _ = scene
    with pytest.raises(ValueError, match="ascending"):
        Staircase(model.towers["language"], len(batch), [2, 1])


def test_a_forward_of_an_instances_own_comes_back(scene):
    """accelerate puts its forward on the instance: replaced while a pass runs, and there again afterwards."""
    model, batch, clean, recording = scene
    block = model.towers["language"].blocks[0]
    own = type(block).forward.__get__(block)
    block.forward = own
    try:
        assert torch.equal(model.run(batch, through=recording.starting(1)).logits, clean.logits)
        assert vars(block)["forward"] is own
    finally:
        del block.forward
