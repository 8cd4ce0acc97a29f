"""Random directions, subspaces and interventions for tests of what is done with them."""

from __future__ import annotations

import numpy as np
from conftest import chat

from hooks.prompt import Prompt
from hooks.site import Site
from workbench.interventions.ablate import Ablate, KeepOnly
from workbench.interventions.steer import Clamp, Steer
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


def ask(identifier, *parts, **tags) -> Prompt:
    """A question with its two answers."""
    return chat(identifier, *parts, tags={"right": "yes", "contrary": "no", **tags})


def cells_of(model):
    """One of every kind, with and without what is measured, ranks 1 and 3, several scopes."""
    v, subspace = random_directions(model), random_subspace(model)
    return [
        Ablate(v, 0), Ablate(v), Ablate(v, 1, to="zero", at="last"), Ablate(subspace.replace(origin=subspace.mean), 1),
        Steer(v, 1, 2.0), Steer(v, [0, 2], -1.0, at="prompt"), Clamp(v, 1, 3.0), KeepOnly(subspace, 2),
    ]  # fmt: skip


def first_id(model, word):
    return model.tokenizer(word, add_special_tokens=False)["input_ids"][0]
