"""Which vector acts at the input of a block: its own, or that of the block before; never the block's own output's."""

import numpy as np
import pytest

from hooks.site import Site
from workbench.interventions.placement import basis_at, placed, sites_of
from workbench.subspace.directions import Directions

POSTS = [Site(0), Site(1), Site(2)]
INPUT = Site(2, "resid_pre")


def directions(sites):
    vectors = np.random.default_rng(0).standard_normal((len(sites), 32))
    return Directions.of(tuple(sites), vectors, origin=vectors + 1.0)


def test_at_the_input_of_an_injected_layer_the_vector_of_the_block_before_acts(llama, monkeypatch):
    """What image features bring back there is what was taken out one block earlier; the next layer's vector would leave
    it standing."""
    v = directions(POSTS)
    basis, origin = basis_at(v, INPUT, None)
    assert np.array_equal(basis[0], v.unit[1]) and np.array_equal(origin, v.origin[1])
    monkeypatch.setattr(llama, "injected_layers", lambda: (2,))
    here = {site: (basis, origin) for site, basis, origin in placed(v, "all", None, llama, "Ablate")}
    assert list(here) == [INPUT, *POSTS] and np.array_equal(here[INPUT][0][0], v.unit[1])
    assert sites_of("all", 3, "Ablate", (2,)) == [Site(0, "resid_pre"), INPUT, *POSTS]


def test_a_vector_measured_at_that_input_comes_first():
    v = directions([*POSTS, INPUT])
    basis, origin = basis_at(v, INPUT, None)
    assert np.array_equal(basis[0], v.unit[3]) and np.array_equal(origin, v.origin[3])


def test_with_a_source_its_vector_acts_there_too():
    v = directions([*POSTS, INPUT])
    assert np.array_equal(basis_at(v, INPUT, 0)[0][0], v.unit[0])


def test_layers_that_were_named_are_not_joined_by_inputs(llama, monkeypatch):
    """Only an ablation at all layers has to meet what comes in from outside."""
    monkeypatch.setattr(llama, "injected_layers", lambda: pytest.fail("a forward for no reason"))
    assert [site for site, *_ in placed(directions(POSTS), [1, 2], None, llama, "Steer")] == POSTS[1:]
