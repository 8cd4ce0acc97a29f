"""The plan of a sweep: every cell once, in the cheapest way that the model was measured to allow; and what it reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import chat
from own_hooks import noise
from tiny_lm import LANGUAGE_MODELS
from tiny_models import byte_tokenizer

from hooks import prefix_cache, recording, shortcuts
from hooks.load import load_model
from hooks.shortcuts import Shortcuts
from hooks.site import Site
from workbench.interventions.passes import Passes
from workbench.interventions.planner import Bounds, first_column, kind_of

PROMPTS = [chat("a", "hi"), chat("b", "what is it, and whose?"), chat("c", "a dog")]
ROOM = Bounds(tokens=4096, bytes=2**30, nearly_empty=0)


def fresh(name="llama", dtype=torch.float32):
    return load_model(LANGUAGE_MODELS[name]().to(dtype), byte_tokenizer(), check=False)


def cell(model, layer, scope="all", seed=0, point="resid_post"):
    return {Site(layer, point): [noise(model, 30.0, scope, seed=seed)]}


def planned(model, cells, bounds=ROOM):
    made = Passes(model, model.encode(PROMPTS), bounds).plan(cells)
    assert sorted(c for one in made for c in one.cells) == sorted(cells), "every cell exactly once"
    return made


def brief(made):
    return [(one.way, one.cells, one.start) for one in made]


@pytest.fixture(scope="module")
def model():
    return fresh()


def test_cells_of_one_block_share_a_pass_from_that_block_on(model):
    cells = {
        0: {},
        1: cell(model, 0),
        2: cell(model, 1),
        3: cell(model, 1, seed=1),
        4: cell(model, 2, point="resid_pre"),
    }
    assert brief(planned(model, cells)) == [("clean", (0,), 3), ("suffix", (1,), 1), ("suffix", (2, 3, 4), 2)]


def test_a_pass_holds_no_more_tokens_than_it_may(model):
    batch = model.encode(PROMPTS)
    tokens = batch.inputs["input_ids"].numel()
    cells = {c: cell(model, 0, seed=c) for c in range(7)}
    made = planned(model, cells, replace(ROOM, tokens=3 * tokens + 1))
    assert [len(one.cells) for one in made] == [3, 3, 1]
    assert [len(one.cells) for one in planned(model, cells, replace(ROOM, tokens=1))] == [1] * 7


def test_exact_is_one_cell_a_pass_and_no_other_way(model):
    cells = {0: {}, 1: cell(model, 0), 2: cell(model, 0, seed=1), 3: cell(model, 2, "last"), 4: cell(model, 1)}
    made = planned(model, cells, replace(ROOM, exact=True, nearly_empty=10**6))
    assert {one.way for one in made} == {"clean", "suffix"} and all(len(one.cells) == 1 for one in made)


def test_cells_that_leave_a_pass_nearly_empty_climb_together(model):
    cells = {c: cell(model, c) for c in range(3)} | {3: cell(model, 1, seed=3)}
    tokens = model.encode(PROMPTS).inputs["input_ids"].numel()
    made = planned(model, cells, replace(ROOM, nearly_empty=2 * tokens))
    assert brief(made) == [("suffix", (1, 3), 2), ("staircase", (0, 2), 1)]
    few = planned(model, cells, replace(ROOM, nearly_empty=10**6, tokens=3 * tokens))
    assert brief(few) == [("staircase", (0, 1), 1), ("staircase", (3, 2), 2)], (
        "with the batch itself, three sets of rows"
    )


def test_edits_at_the_end_share_one_prefix(model):
    cells = {
        0: cell(model, 0, "last"),
        1: cell(model, 2, "answering"),
        2: cell(model, 1, "all"),
        3: cell(model, 1, "response"),
    }
    made = planned(model, cells)
    width = max(len(one) for one in model.encode(PROMPTS).encoded)
    assert brief(made) == [("clean", (3,), 3), ("prefix", (0, 1), width - 1), ("suffix", (2,), 2)]


def test_keys_and_values_that_do_not_fit_are_not_copied(model):
    cells = {c: cell(model, 0, "last", seed=c) for c in range(6)}
    passes = Passes(model, model.encode(PROMPTS), ROOM)
    per_row = passes._bytes_per_row
    room = replace(ROOM, bytes=2 * len(PROMPTS) * per_row * 2)
    assert [one.way for one in planned(model, cells, room)] == ["prefix"] * 3
    assert {one.way for one in planned(model, cells, replace(ROOM, bytes=1))} == {"naive"}


def test_what_does_not_fit_is_not_recorded(model):
    made = planned(model, {0: cell(model, 1)}, replace(ROOM, bytes=1))
    assert made[0].way == "naive" and "GiB" in made[0].why


def test_kinds_do_not_mix(model):
    """Gates of another power, cells that measure energy, shifts per position: each in company of its own kind."""
    plain, gated = cell(model, 0), {Site(0): [replace(noise(model), threshold=0.1, power=1)]}
    other = {Site(0): [replace(noise(model), threshold=0.1, power=0)]}
    measured = {Site(0): [replace(noise(model), centre=torch.zeros(1, model.d_model))]}
    shifted = {Site(0): [replace(noise(model), shift=torch.zeros(3, 9, 1))]}
    cells = dict(enumerate([plain, gated, other, measured, shifted, shifted, gated, plain]))
    groups = [one.cells for one in planned(model, cells)]
    assert sorted(groups) == [(0, 7), (1, 6), (2,), (3,), (4,), (5,)]
    assert kind_of(4, shifted) != kind_of(5, shifted) and kind_of(0, plain) == kind_of(7, plain)


def test_the_first_edited_column_is_that_of_any_row(model):
    left = model.encode(PROMPTS).padded("left")
    width = left.inputs["input_ids"].shape[1]
    assert first_column(left, cell(model, 0, "last")) == width - 1
    assert first_column(left, cell(model, 0, "all")) == 0
    assert first_column(left, cell(model, 0, 0)) == 0, "the longest row begins in the first column"
    assert first_column(left, cell(model, 0, "response")) == width == first_column(left, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", list(LANGUAGE_MODELS))
def test_exact_readings_are_whole_forwards_to_the_bit(name, dtype):
    """Mixed lengths, cells at every block and point, in both dtypes."""
    model = fresh(name, dtype)
    cells = {0: {}} | {1 + c: cell(model, c % model.n_layers, seed=c) for c in range(5)}
    cells |= {6: cell(model, 1, "last"), 7: {**cell(model, 2), **cell(model, 0, point="attn_out")}}
    batch = model.encode(PROMPTS)
    found = list(Passes(model, batch, replace(ROOM, exact=True)).read(cells))
    assert sorted(c for reading in found for c in reading.cells) == sorted(cells)
    for reading in found:
        whole = model.run(batch, edits=cells[reading.cells[0]])
        assert torch.equal(reading.logits[0], whole.logits)
        counted = sum((t.edited for listed in whole.tallies.values() for t in listed), torch.zeros(3))
        assert reading.tallies[0].edited.tolist() == counted.tolist()


@pytest.mark.parametrize(
    "bounds", [ROOM, replace(ROOM, nearly_empty=10**6), replace(ROOM, tokens=200), replace(ROOM, bytes=1)]
)
def test_every_way_reads_the_same(model, bounds):
    """float32, other shapes of batch: 1e-5 of the largest logit."""
    scopes = ["all", "last", "prompt", "answering", 2]
    cells = {0: {}} | {1 + c: cell(model, c % 3, scopes[c % 5], seed=c) for c in range(11)}
    batch, seen = model.encode(PROMPTS), set()
    for reading in Passes(model, batch, bounds).read(cells):
        for place, c in enumerate(reading.cells):
            whole = model.run(batch, edits=cells[c])
            assert (reading.logits[place] - whole.logits).abs().max() <= 1e-5 * whole.logits.abs().max()
            counted = sum((t.edited for listed in whole.tallies.values() for t in listed), torch.zeros(3))
            assert reading.tallies[place].edited.tolist() == counted.tolist()
            seen.add(c)
    assert seen == set(cells)


@pytest.mark.parametrize("scopes", [["response", "answering"], ["all", "last"], ["all", "prompt"]])
def test_answers_are_those_of_each_cell_alone(model, scopes):
    cells = {0: {}} | {1 + c: cell(model, c % 3, scopes[c % 2], seed=c) for c in range(6)}
    batch, seen = model.encode(PROMPTS), {}
    for answers in Passes(model, batch, ROOM).answer(cells, 5):
        for place, c in enumerate(answers.cells):
            seen[c] = answers.generation.token_ids[3 * place : 3 * place + 3]
    for c, edits in cells.items():
        assert seen[c] == model.generate(batch, edits=edits, max_new_tokens=5, must_edit=False).token_ids


# What a model allows is measured.


def test_these_families_allow_everything():
    for name in LANGUAGE_MODELS:
        model = fresh(name)
        assert shortcuts.shortcuts(model, model.encode(PROMPTS)) == Shortcuts(None, None, None, None)


def test_a_stream_that_is_not_given_back_is_noticed(monkeypatch):
    model = fresh()
    own = recording.Recording.stream
    monkeypatch.setattr(recording.Recording, "stream", lambda *a, **k: own(*a, **k) * (1 + 1e-6))
    found = shortcuts.shortcuts(model, model.encode(PROMPTS))
    assert found.replay == found.copies == found.staircase and "other logits" in found.replay and found.prefix is None
    assert {one.way for one in planned(model, {0: cell(model, 1)})} == {"naive"}


def test_copies_in_the_wrong_place_are_noticed(monkeypatch):
    model = fresh()
    own = recording.Recording.stream
    monkeypatch.setattr(
        recording.Recording, "stream", lambda self, block, copies=1: own(self, block, copies).roll(int(copies > 1), 0)
    )
    found = shortcuts.shortcuts(model, model.encode(PROMPTS))
    assert found.replay is None and "other logits" in found.copies
    made = planned(model, {c: cell(model, 1, seed=c) for c in range(3)})
    assert [len(one.cells) for one in made] == [1, 1, 1]


def test_rows_of_a_cache_in_the_wrong_order_are_noticed(monkeypatch):
    model = fresh()
    own = prefix_cache.Prefix.rows
    monkeypatch.setattr(prefix_cache.Prefix, "rows", lambda self, index: own(self, sorted(index)))
    found = shortcuts.shortcuts(model, model.encode(PROMPTS))
    assert "behind a cache gave other logits" in found.prefix and found.replay is None
    assert {one.way for one in planned(model, {0: cell(model, 1, "last")})} == {"suffix"}


def test_other_back_ends_and_rows_with_adapters_of_their_own_run_whole_forwards(model):
    batch, other, by_row = model.encode(PROMPTS), fresh(), fresh()
    other.native = False
    assert "runs whole forwards" in shortcuts.shortcuts(other, batch).replay
    by_row.active = ("base", "base", "base")
    assert "adapter" in shortcuts.shortcuts(by_row, batch).prefix


def test_a_model_whose_generation_is_unsound_shares_no_prefix():
    model = fresh()
    model.why_not_generate = "its cached answers are others"
    assert shortcuts.shortcuts(model, model.encode(PROMPTS)).prefix == "its cached answers are others"
