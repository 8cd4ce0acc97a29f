"""Ablate, KeepOnly, Steer and Clamp against their formulas in float64, where they act, and what they refuse."""

import numpy as np
import pytest
import torch
from conftest import chat
from own_hooks import everything
from workbench_samples import posts, random_directions, random_subspace

from hooks.site import Site
from workbench.interventions.ablate import Ablate, KeepOnly
from workbench.interventions.cells import combined
from workbench.interventions.generate import generate
from workbench.interventions.placement import sites_of
from workbench.interventions.steer import Clamp, Steer
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.directions import Directions, with_mean

EMBEDDING = Site(0, "resid_pre")
# float32 arithmetic on sums of 32 terms; a wrong vector, layer or sign shows at 1e-1 on these loud models.
ROUNDING = 2e-6


@pytest.fixture(params=["llama", "gemma3"])
def model(request):
    """gemma3 norms the output of each half of a block: its stream is still the sum."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def batch(model):
    return model.encode([chat("a", "hi"), chat("b", "what is this"), chat("c", "a somewhat longer question")])


def edited_at(model, batch, intervention, site):
    """(residual before any edit, residual after the edits) at a site, both float64 [real positions, d_model]."""
    real = batch.tokens.position >= 0
    before, after = (
        model.run(batch, {site: everything}, edits).kept[site][real].double().numpy()
        for edits in ({}, intervention.edits(model))
    )
    return before, after


def close(found, expected):
    assert np.abs(found - expected).max() < ROUNDING * max(1.0, np.abs(expected).max())


# Formulas, one layer at a time.


@pytest.mark.parametrize("to", ["mean", "zero"])
def test_ablation_takes_out_the_component_and_nothing_else(model, batch, to):
    v = random_directions(model)
    for site in posts(model):
        before, after = edited_at(model, batch, Ablate(v, site.layer, to=to), site)
        unit = v[site.layer].unit[0]
        mean = v[site.layer].origin[0] if to == "mean" else 0.0
        close(after, before - ((before - mean) @ unit)[:, None] * unit)
        assert np.abs(after - before).max() > 0.1, "the meta-test"


@pytest.mark.parametrize("to", ["mean", "zero"])
def test_ablation_of_a_subspace(model, batch, to):
    subspace = random_subspace(model)
    subspace = subspace.replace(origin=subspace.mean)
    before, after = edited_at(model, batch, Ablate(subspace, 1, to=to), Site(1))
    mean = subspace.origin[1] if to == "mean" else 0.0
    close(after, before - (before - mean) @ subspace.basis[1].T @ subspace.basis[1])


@pytest.mark.parametrize("own_origin", [True, False])
def test_keep_only_is_the_subspace_and_the_mean_elsewhere(model, batch, own_origin):
    subspace = random_subspace(model)
    if own_origin:
        subspace = subspace.replace(origin=subspace.mean + 1.0)
    before, after = edited_at(model, batch, KeepOnly(subspace, 1), Site(1))
    projector = subspace.basis[1].T @ subspace.basis[1]
    mean = subspace.mean[1] + own_origin
    close(after, before @ projector + mean @ (np.eye(model.d_model) - projector))
    within = after - mean
    assert np.linalg.matrix_rank(within, tol=1e-4) == 3, "what is left varies in the subspace alone"


@pytest.mark.parametrize("coefficient", [-1.0, 0.5, 2])
def test_steering_adds_the_vector_as_measured(model, batch, coefficient):
    v = random_directions(model)
    before, after = edited_at(model, batch, Steer(v, 1, coefficient), Site(1))
    close(after - before, np.broadcast_to(coefficient * v.vector(1), before.shape))


def test_steering_in_multiples_of_the_residual_norm(model, batch):
    v = random_directions(model)
    before, after = edited_at(model, batch, Steer(v, 1, 0.5, unit="residual"), Site(1))
    close(after - before, np.broadcast_to(0.5 * v.residual_norm[1] * v.unit[1], before.shape))


def test_clamping_sets_the_coordinate_and_leaves_the_rest(model, batch):
    v = random_directions(model)
    before, after = edited_at(model, batch, Clamp(v, 1, 7.5), Site(1))
    close(after @ v.unit[1], np.full(len(after), 7.5))
    close(after, before + (7.5 - before @ v.unit[1])[:, None] * v.unit[1])


# Where they act.


@pytest.mark.parametrize("to", ["mean", "zero"])
@pytest.mark.parametrize("what", ["direction", "subspace"])
def test_nothing_is_left_at_any_layer_after_ablation_everywhere(model, batch, what, to):
    """The component that should be gone, relative to the residual's length, at the floor of float32 (2^-24 for each of
    32 terms) at every site, the embedding too; and the tally says the same."""
    sites = [EMBEDDING, *posts(model)]
    found = random_directions(model, sites)
    if what == "subspace":
        found = random_subspace(model, sites=sites)
        found = found.replace(origin=found.mean)
    ablate = Ablate(found, to=to)
    real = batch.tokens.position >= 0
    trace = model.run(batch, dict.fromkeys(sites, everything), ablate.edits(model))
    plain = model.run(batch, dict.fromkeys(sites, everything)).kept
    for i, site in enumerate(sites):
        basis = found.unit[i][None] if what == "direction" else found.basis[i]
        gone = found.origin[i] if to == "mean" else 0.0

        def share(kept, basis=basis, gone=gone):
            resid = kept[real].double().numpy()
            return (np.linalg.norm((resid - gone) @ basis.T, axis=1) / np.linalg.norm(resid, axis=1)).max()

        assert share(trace.kept[site]) < 1e-6
        assert share(plain[site]) > 1e-2, "the meta-test"
        assert trace.tallies[site][0].leftover.max() < 1e-6


@pytest.mark.parametrize(
    ("layer", "sites"),
    [(1, [1]), ([0, 2], [0, 2]), (range(2), [0, 1]), (np.int64(2), [2]), ([2, 2], [2])],
    ids=["int", "list", "range", "numpy", "twice"],
)
def test_the_layers_that_were_asked_for(model, layer, sites):
    v = random_directions(model)
    for each in (Ablate(v, layer), Steer(v, layer), Clamp(v, layer, 1.0), KeepOnly(random_subspace(model), layer)):
        assert list(each.edits(model)) == [Site(layer) for layer in sites]


def test_all_layers_take_the_embedding_only_where_a_vector_exists(model):
    """Captured at resid_post alone there is none for the embedding: it stays as it is."""
    v = random_directions(model)
    for each in (Ablate(v), Steer(v, "all"), Clamp(v, "all", 1.0), KeepOnly(random_subspace(model), "all")):
        assert list(each.edits(model)) == posts(model)
    everywhere = random_directions(model, [EMBEDDING, *posts(model)])
    assert list(Ablate(everywhere).edits(model)) == [EMBEDDING, *posts(model)]
    assert sites_of("all", 2, "Ablate") == [EMBEDDING, Site(0), Site(1)]


def test_one_layers_vector_serves_everywhere(model, batch):
    """`source`: its unit, its origin and its length, at every site, the embedding included."""
    v, subspace = random_directions(model), random_subspace(model)
    sites = [EMBEDDING, *posts(model)]
    made = {
        "ablate": (Ablate(v, source=1), lambda h: h - ((h - v.origin[1]) @ v.unit[1])[:, None] * v.unit[1]),
        "steer": (Steer(v, "all", 2.0, source=1), lambda h: h + 2.0 * v.norm[1] * v.unit[1]),
        "clamp": (Clamp(v, "all", 3.0, source=1), lambda h: h + (3.0 - h @ v.unit[1])[:, None] * v.unit[1]),
        "keep": (
            KeepOnly(subspace, "all", source=1),
            lambda h: subspace.mean[1] + (h - subspace.mean[1]) @ subspace.basis[1].T @ subspace.basis[1],
        ),
    }
    real = batch.tokens.position >= 0
    for name, (intervention, formula) in made.items():
        edits = intervention.edits(model)
        assert list(edits) == sites, name
        for site in sites:  # each site alone, so that the formula starts from the plain residual
            plain = model.run(batch, {site: everything}).kept[site][real].double().numpy()
            kept = model.run(batch, {site: everything}, {site: edits[site]}).kept[site]
            close(kept[real].double().numpy(), formula(plain))


@pytest.mark.parametrize("scope", ["last", "prompt", 2, "re:^h$"])
def test_only_the_scope_is_touched(model, batch, scope):
    v, site = random_directions(model), Site(0)
    mask = batch.tokens.mask(scope)
    assert mask.any()
    plain = model.run(batch, {site: everything}).kept[site]
    for each in (Ablate(v, 0, at=scope), Steer(v, 0, at=scope), Clamp(v, 0, 9.0, at=scope)):
        kept = model.run(batch, {site: everything}, each.edits(model)).kept[site]
        assert torch.equal((kept != plain).any(dim=-1), mask)


def test_a_site_where_nothing_moved_is_left_alone(model):
    vectors = random_directions(model).vectors.copy()
    vectors[1] = 0.0
    v = Directions.of(posts(model), vectors, origin=np.ones_like(vectors))
    assert Site(1) not in Ablate(v).edits(model) and Site(0) in Ablate(v).edits(model)
    assert list(Steer(v, [0, 1, 2]).edits(model)) == [Site(0), Site(2)]


def test_imported_vectors_are_ablated_to_zero_or_get_a_mean(model, batch):
    v = random_directions(model, origin=None)
    with pytest.raises(ValueError, match=r"needs the mean of the negative class, .*: use to='zero', or wb\.with_mean"):
        Ablate(v)
    _, after = edited_at(model, batch, Ablate(v, 1, to="zero"), Site(1))
    close(after @ v.unit[1], np.zeros(len(after)))
    rows = {str(site): np.random.default_rng(site.layer).standard_normal((6, model.d_model)) for site in v.sites}
    meant = with_mean(v, ArrayRows(rows, prompt_ids=[str(n) for n in range(6)]))
    _, after = edited_at(model, batch, Ablate(meant, 1), Site(1))
    close(after @ v.unit[1], np.full(len(after), rows["resid_post:1"].mean(axis=0) @ v.unit[1]))


def test_several_interventions_act_in_their_order(model, batch):
    """At one site as at several; two at one site and scope are one edit, exactly."""
    v, w = random_directions(model, seed=1), random_directions(model, seed=2)
    both = [Steer(v, 1, 2.0), Ablate(w, 1)]
    real, site = batch.tokens.position >= 0, Site(1)
    h = model.run(batch, {site: everything}).kept[site][real].double().numpy()
    for order in (both, both[::-1]):
        expected = h
        for each in order:
            if isinstance(each, Steer):
                expected = expected + 2.0 * v.vector(1)
            else:
                expected = expected - ((expected - w.origin[1]) @ w.unit[1])[:, None] * w.unit[1]
        edits = combined(model, order)
        assert len(edits[site]) == 1
        close(model.run(batch, {site: everything}, edits).kept[site][real].double().numpy(), expected)
    assert len(combined(model, [Steer(v, 1), Steer(v, 1, at="last")])[site]) == 2, "other scopes stay apart"
    assert set(combined(model, [Steer(v, 0), Ablate(w, 2)])) == {Site(0), Site(2)}


def test_generation_under_interventions_is_in_the_order_of_the_prompts(model):
    """Batched by length, and each text is that of the prompt alone under the same edits."""
    asked = [chat("long", "a somewhat longer question"), chat("a", "hi"), chat("b", "what is this")]
    v = random_directions(model)
    steer, limit = [Steer(v, 1, 4.0), Ablate(v, 2)], dict(max_new_tokens=5)
    completions = generate(model, asked, *steer, max_tokens=40, **limit)
    assert [one.prompt.id for one in completions] == ["long", "a", "b"]
    for one, prompt in zip(completions, asked, strict=True):
        alone = model.generate(model.encode([prompt]), edits=combined(model, steer), **limit)
        assert list(one.token_ids) == alone.token_ids[0] and one.text == alone.texts[0] and one.edited
    plain = generate(model, asked, **limit)
    assert [one.edited for one in plain] == [None] * 3
    assert [one.token_ids for one in plain] != [one.token_ids for one in completions], "the meta-test"
