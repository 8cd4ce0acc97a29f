"""Random directions and subspaces for tests of what is done with them."""

from __future__ import annotations

import numpy as np

from hooks.site import Site
from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions


def posts(model) -> list[Site]:
    return [Site(layer) for layer in range(model.n_layers)]


def random_directions(model, sites=None, seed=0, **facts) -> Directions:
    """A direction of length 2 to 3 at every site, with an origin that is not zero."""
    rng = np.random.default_rng(seed)
    sites = posts(model) if sites is None else sites
    vectors = rng.standard_normal((len(sites), model.d_model))
    vectors *= (2 + rng.random((len(sites), 1))) / np.linalg.norm(vectors, axis=1, keepdims=True)
    facts = {"origin": rng.standard_normal(vectors.shape), "residual_norm": 5 + rng.random(len(sites))} | facts
    return Directions.of(sites, vectors, **facts)


def random_subspace(model, k=3, sites=None, seed=0, **facts) -> Subspace:
    rng = np.random.default_rng(seed)
    sites = tuple(posts(model) if sites is None else sites)
    basis = np.stack([np.linalg.qr(rng.standard_normal((model.d_model, k)))[0].T for _ in sites])
    mean = rng.standard_normal((len(sites), model.d_model))
    ones = np.ones((len(sites), k))
    return Subspace(sites, basis, ones, mean, ones.sum(axis=1), n=9, **facts)


def by_place(rows, site):
    """{(prompt, variant, position): vector} of one site, float32."""
    keys = zip(rows.prompt_ids, rows.variants, rows.positions.tolist(), strict=True)
    return dict(zip(keys, rows.values(site), strict=True))
