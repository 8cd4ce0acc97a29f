"""PCA, streamed moments and null bands against scikit-learn and planted spectra."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from hooks.site import Site
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.directions import Directions
from workbench.subspace.moments import Moments
from workbench.subspace.overlap import mean_overlap, principal_angles
from workbench.subspace.pca import pca, top_shares, with_random_signs

SITE = Site(3)


def rows_of(values: np.ndarray, **info) -> ArrayRows:
    return ArrayRows({SITE: values}, info=info)


def noise(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def rank_two(n: int = 120, d: int = 200, seed: int = 0, strength: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Noise plus two planted axes, and those axes [2, d]; the axes are dense, so no coordinate stands out."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((d, 2)))[0].T
    return noise(n, d, seed + 1) + strength * rng.standard_normal((n, 2)) @ axes + 30.0, axes


@pytest.mark.parametrize(("n", "d"), [(23, 57), (91, 17)], ids=["fewer rows than width", "more rows than width"])
@pytest.mark.parametrize("streamed", [False, True], ids=["rows", "moments"])
def test_pca_equals_scikit_learn(n, d, streamed):
    values = noise(n, d) @ np.diag(np.linspace(0.5, 4, d)) + 11.0
    oracle = PCA(n_components=min(n - 1, d), svd_solver="full").fit(values)
    source = {SITE: Moments(d).update(values[:9]).update(values[9:])} if streamed else rows_of(values)
    ours = pca(source, 5, null=None)
    np.testing.assert_allclose(ours.variance[0], oracle.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(ours.explained[0], oracle.explained_variance_ratio_, rtol=1e-9)
    np.testing.assert_allclose(ours.mean[0], oracle.mean_, rtol=1e-12)
    cosines = np.abs(np.einsum("kd,kd->k", ours.basis[0], oracle.components_[:5]))
    np.testing.assert_allclose(cosines, 1.0, atol=1e-9)


def test_uncentred_pca_keeps_the_mean_as_its_first_component():
    values, _ = rank_two()
    raw, centred = pca(rows_of(values), 3, center=False, null=None), pca(rows_of(values), 3, null=None)
    mean = values.mean(axis=0)
    assert abs(raw.basis[0, 0] @ mean) / np.linalg.norm(mean) > 0.999
    assert abs(centred.basis[0, 0] @ mean) / np.linalg.norm(mean) < 0.2
    streamed = pca({SITE: Moments(200).update(values)}, 3, center=False, null=None)
    np.testing.assert_allclose(streamed.variance[0][:5], raw.variance[0][:5], rtol=1e-9)
    np.testing.assert_allclose(streamed.basis, raw.basis, atol=1e-7)


def test_moments_survive_outlier_dimensions():
    """Three dimensions with mean and spread 400 times the others, as in Gemma: the variances stay exact to 1e-6."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5000, 32))
    values[:, [3, 11, 20]] = 400 * values[:, [3, 11, 20]] + 40_000
    moments = Moments(32)
    for part in np.array_split(values, 13):
        moments.update(part)
    exact = values.astype(np.longdouble).var(axis=0, ddof=1)
    assert np.abs(np.diag(moments.covariance) / exact - 1).max() < 1e-6
    # Off the diagonal the small pairs must not drown either: their correlations stay within 1e-6.
    np.testing.assert_allclose(moments.covariance, np.cov(values.T), atol=1e-6 * 400)
    small = np.delete(np.arange(32), [3, 11, 20])
    np.testing.assert_allclose(
        moments.covariance[np.ix_(small, small)], np.cov(values.T)[np.ix_(small, small)], atol=1e-6
    )


def test_moments_of_float32_rows_far_from_zero_do_not_cancel():
    """The textbook formula E[xx] - E[x]E[x] in float32 loses everything here; ours may not (the guard can fail)."""
    values = (noise(2000, 4) + 3e4).astype(np.float32)
    exact = values.astype(np.float64).var(axis=0, ddof=1)
    naive = (values**2).mean(axis=0) - values.mean(axis=0) ** 2
    assert np.abs(naive / exact - 1).max() > 0.5
    np.testing.assert_allclose(np.diag(Moments(4).update(values).covariance), exact, rtol=1e-9)


def test_moments_merge_as_if_seen_by_one():
    values = noise(700, 9) + 5
    parts = [Moments(9).update(values[a:b]) for a, b in [(0, 3), (3, 3), (3, 500), (500, 700)]]
    whole = Moments(9)
    for part in parts:
        whole.merge(part)
    assert whole.count == 700
    np.testing.assert_allclose(whole.mean, values.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(whole.covariance, np.cov(values.T), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(
        Moments.of(rows_of(values), SITE, size=64).covariance, whole.covariance, rtol=1e-11, atol=1e-13
    )
    with pytest.raises(ValueError, match="do not merge"):
        whole.merge(Moments(8))
    with pytest.raises(ValueError, match="NaN"):
        whole.update(np.full((2, 9), np.nan))


def test_pitfall_36_row_flips_leave_the_spectrum_as_it_was_and_entry_flips_do_not():
    """Pitfall 36: flipping whole rows is no null for explained variance."""
    values, _ = rank_two()
    centred = values - values.mean(axis=0)
    rng = np.random.default_rng(1)
    own = top_shares(centred, 2)
    for _ in range(5):
        flipped = centred * rng.choice([-1.0, 1.0], size=(len(centred), 1))
        np.testing.assert_allclose(top_shares(flipped, 2), own, rtol=1e-12)
        np.testing.assert_allclose(top_shares(centred[rng.permutation(len(centred))], 2), own, rtol=1e-12)
        assert top_shares(with_random_signs(centred, rng), 2)[0] < 0.5 * own[0]


def test_random_signs_keep_every_size_and_flip_half():
    values = noise(33, 41)
    signed = with_random_signs(values, np.random.default_rng(0))
    np.testing.assert_array_equal(np.abs(signed), np.abs(values))
    assert np.mean(signed != values) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("null", ["signs", "columns"])
def test_the_null_band_shows_a_planted_plane_and_nothing_more(null):
    values, axes = rank_two()
    found = pca(rows_of(values), 4, null=null)
    assert found.above_null[0].tolist() == [True, True, False, False]
    assert found.null_p[0, :2].tolist() == [0.01, 0.01] and found.draws == 99
    planted = found.first(2).replace(basis=axes[None])
    assert principal_angles(found.first(2), planted)[SITE].max() < 0.6
    assert mean_overlap(found.first(2), planted)[SITE].value > 20 * mean_overlap(found.first(2), planted)[SITE].chance


@pytest.mark.parametrize("null", ["signs", "columns"])
def test_the_null_band_holds_the_spectrum_of_noise(null):
    """Pure noise with unequal columns: each leading share lies above the 95 % band in about one of twenty data sets."""
    scale = np.linspace(0.3, 3.0, 50)
    found = [pca(rows_of(noise(40, 50, seed) * scale + 9.0), 3, null=null, seed=seed) for seed in range(40)]
    above = np.mean([one.above_null[0] for one in found], axis=0)
    below = np.mean([one.explained[0, :3] < one.null[0, :, 0] for one in found], axis=0)
    assert above.max() <= 0.2 and below.max() <= 0.2, (above, below)


def test_the_null_goes_through_the_same_centring_as_the_data():
    """Two centred rows are one line, so every draw explains all of itself; uncentred draws would explain less."""
    assert pca(rows_of(noise(2, 40)), 1).null[0, 0].tolist() == pytest.approx([1.0, 1.0])


def test_a_null_that_cannot_be_is_refused_with_the_reason():
    values = noise(30, 8)
    with pytest.raises(ValueError, match="at least 99"):
        pca(rows_of(values), 2, draws=20)
    with pytest.raises(ValueError, match="null=None"):
        pca(rows_of(values), 2, center=False)
    moments = {SITE: Moments(8).update(values)}
    with pytest.raises(ValueError, match="needs rows"):
        pca(moments, 2)
    assert "no null band" in pca(moments, 2, null=None).null_kind


def test_a_frozen_site_is_named_and_never_decomposed():
    frozen, constant = Site(0, tower="vision"), Site(0)
    values = {frozen: np.zeros((30, 8)), constant: np.ones((30, 8)), SITE: noise(30, 8)}
    found = pca(ArrayRows(values), 2)
    assert found.sites == (SITE,) and found.unchanged == (frozen,)
    assert "do not vary" in found.skipped[constant]
    with pytest.raises(ValueError, match="unchanged"):
        pca(ArrayRows(values), 2, sites=[frozen, SITE])
    streamed = pca({site: Moments(8).update(rows) for site, rows in values.items()}, 2, null=None)
    assert streamed.sites == (SITE,) and streamed.unchanged == (frozen,) and constant in streamed.skipped
    with pytest.raises(ValueError, match="unchanged"):
        pca(ArrayRows({frozen: values[frozen]}), 2)


def test_more_components_than_exist_are_refused():
    with pytest.raises(ValueError, match="9 exist"):
        pca(rows_of(noise(10, 30)), 10, null=None)
    flat = noise(40, 3) @ noise(3, 20, seed=1)
    with pytest.raises(ValueError, match="3 exist"):
        pca(rows_of(flat), 4, null=None)
    assert pca(rows_of(flat), 3, null=None).explained[0, :3].sum() == pytest.approx(1.0)


def test_ranks_of_known_spectra():
    equal = np.vstack([np.eye(6), -np.eye(6)])  # six equal eigenvalues, exactly
    flat = pca(rows_of(equal), 2, null=None)
    assert flat.effective_rank[0] == pytest.approx(6) and flat.participation_ratio[0] == pytest.approx(6)
    assert flat.k_for(0.5).tolist() == [3] and flat.k_for(1.0).tolist() == [6] and flat.k_for(0.51).tolist() == [4]
    line = pca(rows_of(np.outer(np.arange(9.0), np.ones(6))), 1, null=None)
    assert line.effective_rank[0] == pytest.approx(1) and line.k_for(0.9).tolist() == [1]
    # Eigenvalues 3 : 1 have entropy H(.75, .25) and participation 16 / 10.
    uneven = pca(rows_of(np.vstack([np.diag([3**0.5, 1.0]), -np.diag([3**0.5, 1.0])])), 1, null=None)
    assert uneven.effective_rank[0] == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))
    assert uneven.participation_ratio[0] == pytest.approx(1.6)


def test_pitfall_25_signs_follow_the_convention_and_then_the_contrast():
    values, _ = rank_two()
    found = pca(rows_of(values), 3, null=None)
    largest = np.take_along_axis(found.basis[0], np.abs(found.basis[0]).argmax(axis=1)[:, None], axis=1)
    assert (largest > 0).all()
    np.testing.assert_allclose(pca(rows_of(-values), 3, null=None).basis, found.basis, atol=1e-9)
    against = Directions.of([SITE], -found.basis[0, :1])
    assert (found.oriented(against).basis[0, 0] == -found.basis[0, 0]).all()


def test_origin_is_a_point_for_activations_and_absent_for_differences():
    values, _ = rank_two()
    np.testing.assert_allclose(pca(rows_of(values), 2, null=None).origin[0], values.mean(axis=0))
    assert pca(ArrayRows({SITE: values}, matched=len(values)), 2, null=None).origin is None


def test_a_component_becomes_directions_of_one_standard_deviation():
    values, _ = rank_two()
    found = pca(rows_of(values, model="toy"), 2, null=None)
    one = found.component(1)
    assert one.model == "toy" and one.norm[0] == pytest.approx((values @ found.basis[0, 1]).std(ddof=1))
    with pytest.raises(ValueError, match="count from 0"):
        found.component(2)


def test_principal_angles_of_planes_at_known_angles():
    def plane(*vectors: np.ndarray):
        return base.replace(basis=np.stack(vectors)[None])

    base = pca(rows_of(noise(40, 6)), 2, null=None)
    e = np.eye(6)
    tilt = np.cos(0.3) * e[0] + np.sin(0.3) * e[3]
    angles = principal_angles(plane(e[0], e[1]), plane(tilt, e[4]))[SITE]
    np.testing.assert_allclose(angles, [0.3, np.pi / 2], atol=1e-12)
    tiny = np.cos(1e-9) * e[0] + np.sin(1e-9) * e[3]
    assert principal_angles(plane(e[0], e[1]), plane(tiny, e[1]))[SITE].max() == pytest.approx(1e-9, rel=1e-6)
    assert mean_overlap(plane(e[0], e[1]), plane(e[0], e[4]))[SITE].value == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no site in common"):
        principal_angles(base, base.replace(sites=(Site(9),)))


def test_mean_overlap_of_random_subspaces_is_at_chance():
    pairs = [
        (pca(rows_of(noise(40, 24, 2 * s)), 4, null=None), pca(rows_of(noise(40, 24, 2 * s + 1)), 6, null=None))
        for s in range(150)
    ]
    found = [mean_overlap(a, b)[SITE] for a, b in pairs]
    assert found[0].chance == 6 / 24
    assert np.mean([one.value for one in found]) == pytest.approx(6 / 24, abs=0.02)


def test_subspaces_are_checked():
    found = pca(rows_of(noise(40, 6)), 2, null=None)
    with pytest.raises(ValueError, match="orthonormal"):
        found.replace(basis=found.basis * 1.1)
    with pytest.raises(ValueError):
        found.basis[0, 0, 0] = 1.0
    assert "k 2" in repr(found) and "no null" in repr(found)
