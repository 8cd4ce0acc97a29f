"""Maps between models against planted maps, scikit-learn's ridge, and shuffled pairings."""

from __future__ import annotations

import numpy as np
import pytest
from planted_maps import SITE, N, along, frame, normal, rows_of
from sklearn.linear_model import Ridge

from hooks.site import Site
from workbench.interventions.linear_maps import Reduced, fitted
from workbench.interventions.transfer import fit_transfer
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.directions import Directions
from workbench.subspace.means import difference_of_means


@pytest.mark.parametrize("method", ["procrustes", "ridge"])
@pytest.mark.parametrize(("d_source", "d_target"), [(12, 12), (9, 20)], ids=["equal widths", "narrow to wide"])
def test_a_planted_rotation_is_recovered(method, d_source, d_target):
    x, turn = normal(N, d_source, 0), frame(d_source, d_target, 1)
    found = fit_transfer(rows_of(x), rows_of(x @ turn + 7.0), method=method, ridge=0.0)
    np.testing.assert_allclose(found.maps[SITE].matrix, turn, atol=1e-9)
    assert found.r2[SITE] == pytest.approx(1.0) and found.scale[SITE] == pytest.approx(1.0)
    assert not found.reversed and found.rank[SITE] == d_source


def test_pitfall_30_wide_to_narrow_is_the_reverse_fit_transposed_and_says_so():
    narrow, turn = normal(N, 9, 0), frame(9, 20, 1)
    rng = np.random.default_rng(2)
    wide = narrow @ turn + rng.standard_normal((N, 20)) * 0.3 @ (np.eye(20) - turn.T @ turn)
    down, up = fit_transfer(rows_of(wide), rows_of(narrow)), fit_transfer(rows_of(narrow), rows_of(wide))
    assert down.reversed and not up.reversed and "reversed" in repr(down)
    np.testing.assert_allclose(down.maps[SITE].matrix, up.maps[SITE].matrix.T, atol=1e-9)
    exact = fit_transfer(rows_of(narrow @ turn), rows_of(narrow))
    np.testing.assert_allclose(exact.maps[SITE].matrix, turn.T, atol=1e-9)
    assert exact.r2[SITE] == pytest.approx(1.0)


def test_procrustes_is_the_best_rotation():
    """Nothing nearby does better, on noisy rows: small rotations either way only add error."""
    x = normal(N, 6, 0)
    y = normal(N, 8, 1) + x @ frame(6, 8, 2)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    best = fitted(Reduced.of(x), Reduced.of(y), "procrustes", ridge=0.0, scaled=False)[0].matrix
    np.testing.assert_allclose(best @ best.T, np.eye(6), atol=1e-12)
    own = np.linalg.norm(x @ best - y)
    for seed in range(50):
        skew = np.random.default_rng(seed).standard_normal((8, 8)) * 1e-2
        turned = best @ np.linalg.qr(np.eye(8) + skew - skew.T)[0]
        assert np.linalg.norm(x @ turned - y) > own


def test_ridge_equals_scikit_learn():
    x, y = normal(N, 7, 0), normal(N, 5, 1) + normal(N, 7, 0) @ normal(7, 5, 2)
    ours, scale = fitted(Reduced.of(x), Reduced.of(y), "ridge", ridge=0.03, scaled=False)
    alpha = 0.03 * np.mean(np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2)
    oracle = Ridge(alpha=alpha).fit(x, y)
    np.testing.assert_allclose(ours.matrix, oracle.coef_.T, atol=1e-9)
    np.testing.assert_allclose(ours.point(x), oracle.predict(x), atol=1e-8)
    assert scale > 1  # a ridge map shrinks


def test_fewer_rows_than_width_identify_their_span_only():
    """10 rows in width 30: what the rows do not span maps to zero, and is not sent to an arbitrary place."""
    x, turn = normal(12, 30, 0), frame(30, 30, 1)
    found = fit_transfer(rows_of(x), rows_of(x @ turn), held_out=0.17)
    assert found.n_train == 10 and found.rank[SITE] == 9
    train = np.delete(x, [int(i) for i in np.flatnonzero([f"p{i}" not in trained(found) for i in range(12)])], axis=0)
    inside = train[0] - train.mean(axis=0)
    outside = np.linalg.svd(train - train.mean(axis=0))[2][-1]
    np.testing.assert_allclose(found.map(along(inside)).vector(0), inside @ turn, atol=1e-8)
    assert found.map(along(outside)).norm[0] < 1e-8


def test_axes_that_share_nothing_map_to_zero_and_not_to_each_other():
    """Exactly uncorrelated second axes: a rotation would still pair them, on the strength of rounding errors."""
    centred = np.random.default_rng(0).standard_normal((40, 3))
    u = np.linalg.qr(centred - centred.mean(axis=0))[0]
    found, _ = fitted(Reduced.of(u[:, [0, 1]]), Reduced.of(u[:, [0, 2]]), "procrustes", ridge=0.0, scaled=False)
    np.testing.assert_allclose(found.matrix, [[1, 0], [0, 0]], atol=1e-12)
    assert found.rank == 1


def trained(found) -> set[str]:
    rows, index = found.train_rows
    return {rows.prompt_ids[i] for i in index}


def test_rows_are_joined_by_id():
    """Stores with other prompts in another order: only the shared prompts count, each with its own partner."""
    x, turn = normal(N, 10, 0), frame(10, 10, 1)
    ids = [f"p{i}" for i in range(N)]
    order = np.random.default_rng(3).permutation(N)[:100]
    source = rows_of(np.vstack([x, normal(5, 10, 9)]), ids + [f"only source {i}" for i in range(5)])
    target = rows_of((x @ turn)[order], [ids[i] for i in order])
    found = fit_transfer(source, target)
    np.testing.assert_allclose(found.maps[SITE].matrix, turn, atol=1e-9)
    assert (found.matched, found.prompts, found.only_source, found.only_target) == (100, 100, 65, 0)
    assert "100 rows of 100 prompts matched" in repr(found)
    by_place = fit_transfer(rows_of(x[:100]), rows_of((x @ turn)[order]))
    assert by_place.r2[SITE] < 0.5  # the test can fail: the same rows joined by place give no map


def test_rows_with_variants_are_joined_by_id_and_variant():
    x, turn = normal(N, 6, 0), frame(6, 6, 1)
    ids = [f"p{i}" for i in range(N // 2)] * 2
    variants = ["base"] * (N // 2) + ["tuned"] * (N // 2)
    swapped = np.r_[N // 2 : N, 0 : N // 2]
    target = rows_of((x @ turn)[swapped], [ids[i] for i in swapped], variants=[variants[i] for i in swapped])
    found = fit_transfer(rows_of(x, ids, variants=variants), target)
    assert found.r2[SITE] == pytest.approx(1.0) and (found.matched, found.prompts) == (N, N // 2)
    with pytest.raises(ValueError, match="more than once"):
        fit_transfer(rows_of(x, ids), target)


def test_a_prompt_is_never_on_both_sides_of_the_split():
    """Two near copies a prompt and no relation at all: a split by rows would find the copy of each held-out row."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 100)), rng.standard_normal((60, 8))
    ids, variants = [f"p{i}" for i in range(60)] * 2, ["base"] * 60 + ["tuned"] * 60
    found = fit_transfer(
        rows_of(np.vstack([x, x + 1e-3]), ids, variants=variants),
        rows_of(np.vstack([y, y + 1e-3]), ids, variants=variants),
        method="ridge",
    )
    assert found.n_held_out == 30 and found.n_train == 90
    assert found.r2[SITE] < 0.1


def test_pitfall_42_write_vectors_map_by_the_transpose_and_read_outs_by_the_pseudo_inverse():
    """Pitfall 42: what a read-out reads in the source, its image must read in the target."""
    x = normal(N, 8, 0)
    mix = np.random.default_rng(1).standard_normal((8, 12)) * np.linspace(0.2, 3, 8)[:, None]
    y = x @ mix - 4.0
    found = fit_transfer(rows_of(x), rows_of(y), method="ridge", ridge=1e-9)
    v = np.random.default_rng(2).standard_normal(8)
    write, read = found.map(along(v)), found.map(along(v, role="read"))
    np.testing.assert_allclose(write.vector(0), v @ mix, rtol=1e-5)
    assert np.corrcoef(x @ v, y @ read.vector(0))[0, 1] > 1 - 1e-9
    np.testing.assert_allclose((y - y.mean(axis=0)) @ read.vector(0), (x - x.mean(axis=0)) @ v, rtol=1e-4, atol=1e-4)
    assert np.corrcoef(x @ v, y @ write.vector(0))[0, 1] < 0.95
    assert (write.role, read.role) == ("write", "read")


def test_the_norm_after_mapping_is_what_it_is():
    x, turn = normal(N, 10, 0), frame(10, 10, 1)
    v = along(np.ones(10) * 2)
    plain, scaled = (fit_transfer(rows_of(x), rows_of(5 * x @ turn), scaled=s) for s in (False, True))
    assert plain.map(v).norm[0] == pytest.approx(v.norm[0]) and plain.scale[SITE] == pytest.approx(5.0)
    assert scaled.map(v).norm[0] == pytest.approx(5 * v.norm[0]) and scaled.r2[SITE] == pytest.approx(1.0)
    assert plain.r2[SITE] < 0.5


def test_the_origin_is_the_targets_own_or_the_affine_image():
    x, turn = normal(N, 6, 0), frame(6, 9, 1)
    source, target = rows_of(x), rows_of(x @ turn + 3.0, labels=["off"] * 100 + ["on"] * 60)
    found = fit_transfer(source, target)
    v = along(np.ones(6), origin=x[:4].mean(axis=0)[None])
    np.testing.assert_allclose(found.map(v).origin[0], x[:4].mean(axis=0) @ turn + 3.0, atol=1e-8)
    off = target.where(label="off")
    own = found.map(v, target_origin=off)
    np.testing.assert_allclose(own.origin[0], off.values(SITE, np.float64).mean(axis=0))
    theirs = difference_of_means(target, positive="on", negative="off")
    np.testing.assert_allclose(found.map(v, target_origin=theirs).origin, theirs.origin)
    assert found.map(along(np.ones(6))).origin is None


def classes(seed: int = 0) -> tuple[ArrayRows, ArrayRows, Directions, np.ndarray]:
    """Two models that share item features through a rotation, two classes far apart, and the target's own contrast."""
    rng = np.random.default_rng(seed)
    labels = ["on" if i % 2 else "off" for i in range(N)]
    item = rng.standard_normal((N, 10)) * np.linspace(0.5, 2.0, 10)
    contrast = rng.standard_normal(10)
    x = item + np.outer([label == "on" for label in labels], 4 * contrast / np.linalg.norm(contrast))
    turn = frame(10, 14, seed + 1)
    source, target = rows_of(x, labels=labels), rows_of(x @ turn + 0.1 * rng.standard_normal((N, 14)), labels=labels)
    v = difference_of_means(source, positive="on", negative="off")
    return source, target, v, difference_of_means(target, positive="on", negative="off").unit[0]


@pytest.mark.parametrize("method", ["procrustes", "ridge"])
def test_pitfall_43_shuffled_pairs_lose_everything_and_within_class_keep_the_class_contrast(method):
    """Pitfall 43: the full shuffle is too weak a control for a direction that is a class contrast."""
    source, target, v, own = classes()
    found = fit_transfer(source, target, method=method)
    assert found.r2[SITE] > 0.9 and found.map(v).unit[0] @ own > 0.99
    full, within = found.shuffled("full", n=20), found.shuffled("within_class", n=20)
    assert max(one.r2[SITE] for one in full) < 0.2
    assert np.median([abs(one.map(v).unit[0] @ own) for one in full]) < 0.7
    assert max(one.r2[SITE] for one in within) < found.r2[SITE] - 0.2
    assert min(one.map(v).unit[0] @ own for one in within) > 0.9
    item = along(np.linalg.svd(v.unit)[2][-1])  # a direction without class contrast does not survive
    straight = found.map(item).unit[0]
    assert np.median([abs(one.map(item).unit[0] @ straight) for one in within]) < 0.7
    assert "within label" in within[0].map(v).kind and "shuffled" in repr(full[0])
    assert found.shuffle == "" and found.r2[SITE] > 0.9  # the true map is left as it was


def test_shuffles_repeat_by_seed_and_differ_by_draw():
    source, target, _, _ = classes()
    found = fit_transfer(source, target)
    a, b = found.shuffled(n=2, seed=1)
    again = found.shuffled(n=1, seed=1)[0]
    assert not np.allclose(a.maps[SITE].matrix, b.maps[SITE].matrix)
    np.testing.assert_array_equal(a.maps[SITE].matrix, again.maps[SITE].matrix)


def test_shuffles_that_would_mean_nothing_are_refused():
    source, target, _, _ = classes()
    with pytest.raises(ValueError, match="2 or more classes"):
        fit_transfer(rows_of(source.values(SITE)), target).shuffled("within_class", n=1)
    with pytest.raises(ValueError, match="nothing to shuffle"):
        fit_transfer(source, source, method="identity").shuffled(n=1)


def stack(captured: int, d: int, seed: int, **info) -> ArrayRows:
    return rows_of({Site(layer): normal(40, d, seed + layer) for layer in range(captured)}, info=info)


def test_layers_pair_by_relative_depth_or_as_told():
    four, six = stack(4, 5, 0), stack(6, 5, 10)
    paired = {t.layer: s.layer for t, s in fit_transfer(four, six).layer_of.items()}
    assert paired == {0: 0, 1: 1, 2: 1, 3: 2, 4: 2, 5: 3}
    assert {t.layer: s.layer for t, s in fit_transfer(six, four).layer_of.items()} == {0: 0, 1: 2, 2: 3, 3: 5}
    assert fit_transfer(four, six, layers={5: 1, "resid_post:0": Site(3)}).layer_of == {
        Site(5): Site(1),
        Site(0): Site(3),
    }
    deep = stack(4, 5, 0, n_layers=13)  # four of thirteen layers captured: 3 is a quarter deep, so it serves all above
    assert {s.layer for t, s in fit_transfer(deep, six).layer_of.items() if t.layer >= 2} == {3}
    with pytest.raises(ValueError, match="is not here"):
        fit_transfer(four, six, layers={5: 9})


def test_a_map_carries_every_site_of_a_direction():
    four, six = stack(4, 5, 0, model="small"), stack(6, 7, 10, model="large")
    v = Directions.of([Site(1), Site(2)], np.ones((2, 5)), model="small")
    there = fit_transfer(four, six).map(v)
    assert there.sites == (Site(1), Site(2), Site(3), Site(4)) and there.model == "large" and there.d_model == 7
    with pytest.raises(ValueError, match="starts from 'small'"):
        fit_transfer(four, six).map(v.replace(model="other"))
    with pytest.raises(ValueError, match="no site of this direction"):
        fit_transfer(four, six, layers={0: 0}).map(v)


def test_sites_that_do_not_vary_are_named_or_refused():
    source, target = stack(2, 5, 0), stack(2, 5, 10)
    frozen = rows_of({Site(0): np.ones((40, 5)), Site(1): target.values(Site(1))})
    found = fit_transfer(source, frozen)
    assert found.sites == (Site(1),) and "do not vary" in found.skipped[Site(0)]
    with pytest.raises(ValueError, match="do not vary"):
        fit_transfer(source, frozen, layers={0: 0})


def test_the_identity_map_is_the_baseline_for_one_base():
    x = normal(N, 6, 0)
    found = fit_transfer(rows_of(x), rows_of(x + 0.01), method="identity")
    v = along(np.arange(6.0), origin=np.ones((1, 6)))
    np.testing.assert_array_equal(found.map(v).vectors, v.vectors)
    np.testing.assert_array_equal(found.map(v).origin, v.origin)
    assert 0.999 < found.r2[SITE] < 1 and found.rank[SITE] == 6
    with pytest.raises(ValueError, match="equal widths"):
        fit_transfer(rows_of(x), rows_of(normal(N, 7, 1)), method="identity")


def test_rows_that_do_not_belong_together_are_refused():
    x = normal(N, 6, 0)
    with pytest.raises(ValueError, match="share none"):
        fit_transfer(rows_of(x), rows_of(x, [f"q{i}" for i in range(N)]))
    with pytest.raises(ValueError, match="one scope"):
        fit_transfer(rows_of(x, info={"scope": "last"}), rows_of(x, info={"scope": "response"}))
    with pytest.raises(ValueError, match="at='prompt'"):
        fit_transfer(rows_of(x, info={"scope": "last"}), rows_of(x, info={"scope": "last"}), at="prompt")
    with pytest.raises(ValueError, match="at least 8"):
        fit_transfer(rows_of(x[:5]), rows_of(x[:5]))
    with pytest.raises(ValueError, match="held_out"):
        fit_transfer(rows_of(x), rows_of(x), held_out=1.0)
