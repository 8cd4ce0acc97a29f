"""A shared prefix: what is read behind one cache against what is read whole, text and pictures."""

from __future__ import annotations

import pytest
import torch
from conftest import chat
from own_hooks import noise

from hooks.prefix_cache import Prefix, next_token, prefix
from hooks.recording import CannotReplay
from hooks.site import Site
from workbench.interventions.cells import Grid

PROMPTS = [chat("a", "what of it"), chat("b", "what is it, and whose?"), chat("c", "a dog or two")]


def cells_of(model, scope):
    return [{}, *({Site(layer): [noise(model, 3.0, scope, seed=layer)]} for layer in range(model.n_layers))]


def shared(model, batch, cells, length):
    return prefix(model, batch, length).rows(list(range(len(batch))) * len(cells))


def columns(model, batch):
    return model.encoder.collate([one.prompt_only() for one in batch.encoded], "left").inputs["input_ids"].shape[1]


@pytest.mark.parametrize("back", [1, 3])
def test_reading_behind_a_cache_equals_whole_forwards(any_model, back):
    """float32, other sums: 1e-5 of the largest logit. Every layer's cell in one pass, rows of different length."""
    batch = any_model.encode(PROMPTS)
    cells = cells_of(any_model, "last")
    grid, length = Grid(cells), columns(any_model, batch) - back
    banks = grid.banks(len(batch), any_model.d_model)
    after = shared(any_model, batch, cells, length)
    assert after.nbytes > 0
    found = next_token(any_model, grid.batch(batch), banks, after)
    for cell, logits in zip(cells, found.logits.unflatten(0, (len(cells), -1)), strict=True):
        whole = any_model.run(batch, edits=cell).logits
        assert (whole - logits).abs().max() <= 1e-5 * whole.abs().max()
    assert [t.edited.tolist() for t in grid.per_cell(found.tallies, 3)] == [[0] * 3, *[[1] * 3] * any_model.n_layers]


@pytest.mark.parametrize("scope", ["last", "answering", "response"])
def test_generating_behind_a_cache_writes_the_same_tokens(any_model, scope):
    batch = any_model.encode(PROMPTS)
    cells = cells_of(any_model, scope)
    grid = Grid(cells)
    after = shared(any_model, batch, cells, columns(any_model, batch) - 1)
    banks = grid.banks(len(batch), any_model.d_model)
    out = any_model.generate(grid.batch(batch), edits=banks, after=after, max_new_tokens=6)
    tallies = grid.per_cell(out.tallies, 3)
    answers = []
    for c, cell in enumerate(cells):
        alone = any_model.generate(batch, edits=cell, max_new_tokens=6, must_edit=False)
        assert alone.token_ids == out.token_ids[3 * c : 3 * c + 3]
        edited = sum((t.edited for listed in alone.tallies.values() for t in listed), torch.zeros(3))
        assert tallies[c].edited.tolist() == edited.tolist()
        answers.append(alone.token_ids)
    assert any(one != answers[0] for one in answers), "the meta-test: some cell changes an answer"


def test_pictures_are_read_with_the_prefix(gemma3, picture):
    """The tower runs once, with the prefix; behind it a picture is not read again, and each row keeps its own."""
    prompts = [chat("a", picture, "what is it"), chat("b", "a ", picture, "?")]
    batch = gemma3.encode(prompts)
    cells = cells_of(gemma3, "last")
    grid, after = Grid(cells), shared(gemma3, batch, cells, columns(gemma3, batch) - 1)
    found = next_token(gemma3, grid.batch(batch), grid.banks(2, gemma3.d_model), after).logits
    for cell, logits in zip(cells, found.unflatten(0, (len(cells), -1)), strict=True):
        whole = gemma3.run(batch, edits=cell).logits
        assert (whole - logits).abs().max() <= 1e-5 * whole.abs().max()


def test_using_a_prefix_leaves_it_as_it_was(llama):
    batch = llama.encode(PROMPTS)
    first = prefix(llama, batch, columns(llama, batch) - 1)
    size = first.nbytes
    for _ in range(2):
        out = llama.generate(batch, after=first.rows(range(3)), max_new_tokens=4)
        assert out.token_ids == llama.generate(batch, max_new_tokens=4).token_ids and first.nbytes == size


def test_a_prefix_that_is_none_is_refused(llama, gemma3, picture):
    batch = llama.encode([chat("a", "hi"), chat("b", "a much longer question than that, and then some more of it")])
    assert columns(llama, batch) > 30
    with pytest.raises(CannotReplay, match="no token among the first 5"):
        prefix(llama, batch, 5)
    for length in (0, columns(llama, batch)):
        with pytest.raises(CannotReplay, match="no token among"):
            prefix(llama, batch, length)
    with pytest.raises(CannotReplay, match="a picture stands behind"):
        prefix(gemma3, gemma3.encode([chat("a", "see ", picture)]), 4)


def test_a_cache_that_does_not_give_out_rows_is_refused(llama):
    with pytest.raises(CannotReplay, match="list does not give out its rows"):
        Prefix([], 3).rows([0])
    found = prefix(llama, llama.encode(PROMPTS[:1]), 8)
    found.cache.layers[0] = object()
    with pytest.raises(CannotReplay, match="object does not give out its rows"):
        found.rows([0])
