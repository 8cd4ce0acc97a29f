"""shift_pca: every named decomposition against an SVD written by hand, joins, unchanged sites, planted ranks."""

from __future__ import annotations

import numpy as np
import pytest

from hooks.site import Site
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.shift import SHIFT_VARIANTS, shift_pca

SITE, OTHER, TOWER = Site(3), Site(4), Site(2, tower="vision")
N, D = 40, 24


def contents(n: int = N, d: int = D, seed: int = 0) -> np.ndarray:
    """Rows of uneven spread and a large mean, as residual streams have."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) * np.linspace(0.3, 4.0, d) + 10.0 * rng.standard_normal(d)


def planted(n: int = N, d: int = D, rank: int = 3, seed: int = 1, mean: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A shift [n, d] in exactly `rank` dimensions, equally strong, and its axes [rank, d]."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((d, rank)))[0].T
    weights = rng.standard_normal((n, rank))
    weights = np.linalg.qr(weights - weights.mean(axis=0))[0] * np.sqrt(n)
    return (weights + mean) @ axes, axes


def rows_of(values: np.ndarray, ids=None, **more) -> ArrayRows:
    return ArrayRows({SITE: values}, ids or [f"p{i}" for i in range(len(values))], **more)


@pytest.fixture
def both() -> tuple[np.ndarray, np.ndarray]:
    base = contents()
    return base, base + planted(mean=0.5)[0] + 0.1 * contents(seed=5)


def by_hand(variant: str, base: np.ndarray, tuned: np.ndarray) -> tuple[np.ndarray, int]:
    """The matrix whose SVD each variant is, and what its squares are divided by."""
    shift = tuned - base
    return {
        "paired_shift_centered": (shift - shift.mean(0), N - 1),
        "paired_shift_raw": (shift, N),
        "stacked": (np.vstack([base, tuned]) - np.vstack([base, tuned]).mean(0), 2 * N - 1),
        "between_class": (np.sqrt(N) * np.stack([-shift.mean(0), shift.mean(0)]) / 2, 2 * N - 1),
        "harmful_only": (tuned - tuned.mean(0), N - 1),
        "unpaired": (tuned - base.mean(0), N),
        "text_minus_base_text": (shift, N),
    }[variant]


@pytest.mark.parametrize("variant", SHIFT_VARIANTS)
def test_every_decomposition_is_the_svd_of_its_matrix(variant, both):
    base, tuned = both
    found = shift_pca(rows_of(base), rows_of(tuned), variant, 4, null=None)
    matrix, freedom = by_hand(variant, base, tuned)
    _, scales, right = np.linalg.svd(matrix, full_matrices=False)
    rank = 1 if variant == "between_class" else D
    np.testing.assert_allclose(found.spectrum.variance[0], scales[:rank] ** 2 / freedom, rtol=1e-9)
    assert found.k == min(4, rank)
    cosines = np.abs(np.einsum("kd,kd->k", found.subspace.basis[0], right[: found.k]))
    np.testing.assert_allclose(cosines, 1.0, atol=1e-9)
    assert found.spectrum.total[0] == pytest.approx((matrix**2).sum() / freedom)
    share = scales**2 / (scales**2).sum()
    assert found.spectrum.participation_ratio[0] == pytest.approx(1 / (share**2).sum())
    for part in (0.5, 0.8, 0.9, 0.95):
        assert found.k_for[part][0] == np.argmax(np.cumsum(share) >= part - 1e-12) + 1
    np.testing.assert_allclose(found.shift[0], (tuned - base).mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.subspace.origin[0], base.mean(0), rtol=1e-12)
    assert found.n == {"stacked": 2 * N, "between_class": 2 * N}.get(variant, N)


def test_the_matrices_differ():
    """The meta-test: no two variants have one spectrum, but the two that differ in their texts only."""
    base = contents()
    tuned = base + planted(mean=0.5)[0]
    spectra = {
        v: shift_pca(rows_of(base), rows_of(tuned), v, 1, null=None).spectrum.variance[0, 0] for v in SHIFT_VARIANTS
    }
    del spectra["text_minus_base_text"]
    assert len({round(value, 6) for value in spectra.values()}) == len(spectra)


@pytest.mark.parametrize("variant", SHIFT_VARIANTS)
def test_rows_are_joined_by_id_and_position_whatever_their_order(variant, both):
    base, tuned = both
    ids = [f"p{i // 2}" for i in range(N)]
    at = [i % 2 for i in range(N)]
    turn = np.random.default_rng(3).permutation(N)

    def moved(values, order):
        return rows_of(values[order], [ids[i] for i in order], positions=[at[i] for i in order])

    plain = shift_pca(moved(base, np.arange(N)), moved(tuned, np.arange(N)), variant, 3, draws=99)
    other = shift_pca(moved(base, np.arange(N)[::-1]), moved(tuned, turn), variant, 3, draws=99)
    np.testing.assert_allclose(other.spectrum.variance, plain.spectrum.variance, rtol=1e-9)
    np.testing.assert_allclose(other.shift, plain.shift, rtol=1e-9, atol=1e-12)
    assert np.array_equal(other.spectrum.null_p, plain.spectrum.null_p)
    assert other.mean_test[SITE].p == plain.mean_test[SITE].p
    if variant.startswith("paired"):
        wrong = rows_of(tuned[turn], ids, positions=at)
        wrongly = shift_pca(moved(base, np.arange(N)), wrong, variant, 3, null=None)
        assert wrongly.spectrum.variance[0, 0] > 2 * plain.spectrum.variance[0, 0], "the meta-test: order would matter"


def test_texts_of_their_own_are_averaged_by_prompt_and_joined_by_it_alone():
    base, tuned = contents(30), contents(50, seed=2)
    ids = ([f"p{i % 10}" for i in range(30)], [f"p{i % 12}" for i in range(50)])
    places = ([*range(30)], [*range(100, 150)])
    rows = [rows_of(v, i, positions=p) for v, i, p in zip((base, tuned), ids, places, strict=True)]
    found = shift_pca(*rows, "text_minus_base_text", 3, null=None)
    shift = np.stack([tuned[i::12].mean(0) - base[i::10].mean(0) for i in range(10)])
    np.testing.assert_allclose(found.spectrum.variance[0], np.linalg.svd(shift)[1] ** 2 / 10, rtol=1e-9)
    assert (found.matched, found.only_base, found.only_tuned) == (10, 0, 2)
    with pytest.raises(ValueError, match="joined by prompt id"):
        shift_pca(*rows, "paired_shift_raw")


def test_what_found_no_partner_is_counted_and_said(both):
    base, tuned = both
    ids = [f"p{i}" for i in range(N)]
    found = shift_pca(rows_of(base[:35], ids[:35]), rows_of(tuned[4:], ids[4:]), "paired_shift_raw", 3, null=None)
    assert (found.matched, found.only_base, found.only_tuned, found.n) == (31, 4, 5, 31)
    assert "31 pairs, 4 only in base, 5 only in tuned" in repr(found)
    (row,) = found.rows()
    assert (row["matched"], row["only_base"], row["only_tuned"]) == (31, 4, 5)
    np.testing.assert_allclose(found.spectrum.variance[0], np.linalg.svd((tuned - base)[4:35])[1] ** 2 / 31, rtol=1e-9)
    with pytest.raises(ValueError, match="these share none"):
        shift_pca(rows_of(base), rows_of(tuned, [f"q{i}" for i in range(N)]))
    with pytest.raises(ValueError, match="more than once"):
        shift_pca(rows_of(base), rows_of(tuned, ["p0"] * N))


@pytest.mark.parametrize("variant", ["harmful_only", "unpaired"])
def test_groups_of_different_prompts_need_no_partner(variant, both):
    base, tuned = both[0], both[1][:25] + 30.0
    found = shift_pca(rows_of(base), rows_of(tuned, [f"q{i}" for i in range(25)]), variant, 2)
    assert (found.matched, found.n, found.only_base, found.only_tuned) == (0, 25, N, 25)
    np.testing.assert_allclose(found.shift[0], tuned.mean(0) - base.mean(0), rtol=1e-9)
    assert found.mean_test[SITE].p == 0.01 and "permutation of 40 + 25 prompts" in found.mean_test[SITE].method


@pytest.mark.parametrize("variant", SHIFT_VARIANTS)
def test_a_frozen_tower_is_unchanged_and_never_decomposed(variant, both):
    base, tuned = both
    ids = [f"p{i}" for i in range(N)]
    before = ArrayRows({SITE: base, TOWER: contents(seed=8)}, ids)
    after = ArrayRows({SITE: tuned, TOWER: contents(seed=8)}, ids)
    found = shift_pca(before, after, variant, 2, null=None)
    assert found.sites == (SITE,) and found.unchanged == (TOWER,)
    (row,) = [row for row in found.rows() if row["site"] == str(TOWER)]
    assert row["state"].startswith("unchanged") and "k_90" not in row
    alone = shift_pca(before, after, variant, 2, sites=[TOWER])
    assert alone.sites == () and alone.unchanged == (TOWER,) and "unchanged" in repr(alone)
    step = after.values(TOWER, np.float64)
    step[7, 3] += 1e-7
    moved = shift_pca(before, ArrayRows({TOWER: step}, ids), variant, 1, null=None, sites=[TOWER])
    assert moved.sites == (TOWER,), "the meta-test: the least change is one"


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_planted_rank_is_the_number_of_components(rank):
    """Exactly r equal dimensions of variation: k for 95 % is r, nothing is above it; with a mean shift of its own
    direction the raw variant has one more."""
    base = contents()
    shift, axes = planted(rank=rank)
    tuned = base + shift
    found = shift_pca(rows_of(base), rows_of(tuned), "paired_shift_centered", 10)
    assert found.k == rank == found.k_for[0.95][0] and found.spectrum.above_null.all()
    assert found.spectrum.effective_rank[0] == pytest.approx(rank)
    held = np.linalg.norm(found.subspace.basis[0] @ axes.T, axis=1)
    np.testing.assert_allclose(held, 1.0, atol=1e-9)
    assert shift_pca(rows_of(base), rows_of(tuned), "paired_shift_raw", 10, null=None).k == rank
    apart = np.linalg.qr(np.vstack([axes, np.ones(D)]).T)[0].T[-1] * 1.5
    raw = shift_pca(rows_of(base), rows_of(tuned + apart), "paired_shift_raw", 10)
    assert raw.k == rank + 1 == raw.k_for[0.95][0]
    assert raw.spectrum.above_null.all() and raw.cos_shift[0, 0] > 0.99
    assert shift_pca(rows_of(base), rows_of(tuned + apart), "between_class", 10, null=None).k == 1


def test_a_planted_rank_among_noise_is_what_the_null_and_the_edge_see():
    rng = np.random.default_rng(2)
    base = contents(120, 60)
    tuned = base + 4 * planted(120, 60, rank=3)[0] + rng.standard_normal((120, 60)) + 2.0
    for variant, count in {"paired_shift_centered": 3, "paired_shift_raw": 4}.items():
        found = shift_pca(rows_of(base), rows_of(tuned), variant, 8)
        assert found.rows()[0]["above_null"] == count, variant
        assert found.above_edge[0] == count
    assert not found.few_rows
    assert shift_pca(rows_of(base[:50]), rows_of(tuned[:50]), null=None).few_rows
    assert "n < d_model 60" in repr(shift_pca(rows_of(base[:50]), rows_of(tuned[:50]), null=None))


def test_outlier_channels_are_reported():
    base = contents()
    tuned = base + 0.1 * planted()[0]
    tuned[:, 7] += 50.0
    tuned[:, 3] += 10.0
    found = shift_pca(rows_of(base), rows_of(tuned), "paired_shift_raw", 2, null=None)
    squares = np.sort((tuned - base).mean(0) ** 2)[::-1]
    assert found.top_channels(1)[0] == pytest.approx(squares[0] / squares.sum())
    assert found.top_channels(10)[0] == pytest.approx(squares[:10].sum() / squares.sum())
    assert found.largest_channel.tolist() == [7] and found.component_channels(1)[0, 0] > 0.9
    spread = shift_pca(rows_of(base), rows_of(base + planted()[0]), null=None, k=2)
    assert spread.component_channels(1).max() < 0.6
    with pytest.raises(ValueError, match="1 to 24"):
        found.top_channels(25)


def test_classes_cross_base_and_tuned(both):
    base, tuned = both
    labels = [("x", "y", "z")[i % 3] for i in range(N)]
    found = shift_pca(rows_of(base, labels=labels), rows_of(tuned, labels=labels), "between_class", 9, classes="label")
    assert found.k == 5
    rows, total = np.vstack([base, tuned]), np.vstack([base, tuned]).mean(0)
    scatter = np.zeros((D, D))
    for side in (base, tuned):
        for label in "xyz":
            mine = side[[name == label for name in labels]]
            scatter += len(mine) * np.outer(mine.mean(0) - total, mine.mean(0) - total)
    np.testing.assert_allclose(
        found.spectrum.variance[0, :5], np.linalg.eigvalsh(scatter)[::-1][:5] / (2 * N - 1), rtol=1e-8
    )
    assert found.between[0] == pytest.approx(np.trace(scatter) / ((rows - total) ** 2).sum())
    assert found.edge is None


def test_two_shifts_overlap_where_they_share_axes():
    base = contents()
    same, axes = planted(seed=1)
    other = planted(seed=9)[0]
    one = shift_pca(rows_of(base), rows_of(base + same), k=3, null=None)
    again = shift_pca(rows_of(base), rows_of(base + 2 * same[::-1]), k=3, null=None)
    assert one.overlap(again)[SITE].value == pytest.approx(1.0)
    far = one.overlap(shift_pca(rows_of(base), rows_of(base + other), k=3, null=None))[SITE]
    q = np.linalg.qr(planted(seed=9)[1].T)[0]
    assert far.value == pytest.approx((np.linalg.svd(axes @ q)[1] ** 2).mean()) and far.chance == 3 / D


def test_one_site_of_several(both):
    base, tuned = both
    ids = [f"p{i}" for i in range(N)]
    found = shift_pca(
        ArrayRows({SITE: base, OTHER: 2 * base}, ids), ArrayRows({SITE: tuned, OTHER: 2 * tuned + 1}, ids), k=2
    )
    one = found[OTHER]
    assert one.sites == (OTHER,) and one.mean_test.keys() == {OTHER}
    np.testing.assert_allclose(one.shift[0], 2 * (tuned - base).mean(0) + 1)
    assert one.rows()[0]["site"] == str(OTHER)
