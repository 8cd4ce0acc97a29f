"""Nulls of the shift: noise lies inside them with uniform p, structure outside; each null tests what it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hooks.site import Site
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.pca import top_shares
from workbench.subspace.shift import shift_pca
from workbench.subspace.shift_null import group_test, marchenko_pastur_edge, mean_test, null_shares

SITE = Site(3)


def rows_of(values: np.ndarray, ids=None) -> ArrayRows:
    return ArrayRows({SITE: values}, ids or [f"p{i}" for i in range(len(values))])


def noise(n: int, d: int, seed: int) -> np.ndarray:
    """Independent entries, unequal columns."""
    return np.random.default_rng(seed).standard_normal((n, d)) * np.linspace(0.5, 2.0, d)


def uniform(p: np.ndarray, draws: int = 99) -> float:
    """KS p of permutation p values against their own law: uniform on 1/(N+1), ..., 1, smoothed within a step."""
    smooth = p - np.random.default_rng(0).random(len(p)) / (draws + 1)
    return float(stats.kstest(smooth, "uniform").pvalue)


@pytest.mark.parametrize(
    ("variant", "null"), [("paired_shift_centered", "signs"), ("paired_shift_centered", "columns"),
                          ("paired_shift_raw", "signs"), ("between_class", "signs")],
)  # fmt: skip
def test_p_values_of_pure_noise_are_uniform(variant, null):
    """150 data sets whose shift is noise without a mean: p of component 1 has the uniform law (KS p > 0.01, fixed
    before), and at most one in ten of the first components lies above the band of 5 in 100."""
    base = noise(24, 16, 10_000)
    found = [
        shift_pca(rows_of(base), rows_of(base + noise(24, 16, seed)), variant, 1, null=null, seed=seed)
        for seed in range(150)
    ]
    assert uniform(np.array([one.spectrum.null_p[0, 0] for one in found])) > 0.01
    assert np.mean([one.spectrum.above_null[0, 0] for one in found]) < 0.1
    assert uniform(np.array([one.mean_test[SITE].p for one in found])) > 0.01


def test_uniformity_can_fail():
    """The meta-test of the KS check: 150 p values of a null that is too narrow by a tenth are seen."""
    rng = np.random.default_rng(1)
    draws = rng.standard_normal((150, 99))
    assert uniform((1 + (draws >= rng.standard_normal((150, 1))).sum(1)) / 100) > 0.01
    assert uniform((1 + (0.6 * draws >= rng.standard_normal((150, 1))).sum(1)) / 100) < 0.01


def test_the_mean_is_kept_so_that_components_behind_it_are_seen():
    """A mean shift that holds 99 % of the energy, and one real dimension behind it: a null that breaks the mean as well
    spreads its energy over every component and hides the dimension. This is why the raw variant keeps the mean."""
    rng = np.random.default_rng(0)
    axis = np.linalg.qr(rng.standard_normal((50, 2)))[0].T
    shift = noise(60, 50, 1) + 120 * axis[0] + 5 * rng.standard_normal((60, 1)) * axis[1]
    base = noise(60, 50, 7)
    found = shift_pca(rows_of(base), rows_of(base + shift), "paired_shift_raw", 4)
    assert found.spectrum.explained[0, 0] > 0.98
    assert found.spectrum.above_null[0].tolist() == [True, True, False, False]
    broken = np.random.default_rng(0)
    hidden = [top_shares(shift * broken.choice([-1.0, 1.0], shift.shape), 2)[1] for _ in range(20)]
    assert found.spectrum.explained[0, 1] < min(hidden), "what the other null would say"
    columns = shift_pca(rows_of(base), rows_of(base + shift), "paired_shift_raw", 4, null="columns")
    assert not columns.spectrum.above_null[0, 0] and columns.spectrum.above_null[0, 1]
    assert columns.mean_test[SITE].p == 0.01, "the mean has its own test"
    assert "the mean is kept" in found.spectrum.null_kind


def test_a_pure_mean_shift_is_one_component_of_the_raw_variant_and_none_of_the_centred():
    base, step = noise(50, 30, 0), np.full(30, 0.8)
    tuned = base + noise(50, 30, 1) + step
    raw, centred = (
        shift_pca(rows_of(base), rows_of(tuned), v, 3) for v in ("paired_shift_raw", "paired_shift_centered")
    )
    assert raw.rows()[0]["above_null"] == 1 and centred.rows()[0]["above_null"] == 0
    between = shift_pca(rows_of(base), rows_of(tuned), "between_class", 1)
    assert between.spectrum.null_p[0, 0] == 0.01 and between.spectrum.null_kind.startswith("base and tuned swapped")
    still = shift_pca(rows_of(base), rows_of(base + noise(50, 30, 1)), "between_class", 1)
    assert still.spectrum.null_p[0, 0] > 0.05


def test_the_swap_null_by_hand():
    """Every swap of three prompts, two rows each: the scatter between two classes is that of ±mean(D)."""
    base, shift = noise(6, 4, 0), noise(6, 4, 1) + 1
    prompts = ["a", "a", "b", "b", "c", "c"]
    found = shift_pca(rows_of(base, None), rows_of(base + shift, None), "between_class", 1, null=None)
    np.testing.assert_allclose(found.spectrum.total[0], 6 / 2 * (shift.mean(0) ** 2).sum() / 11)
    test = mean_test(shift, prompts, 999, 0)
    signs = np.array([[a, b, c] for a in (1, -1) for b in (1, -1) for c in (1, -1)])
    lengths = [np.linalg.norm(np.repeat(sign, 2) @ shift) / 6 for sign in signs]
    assert test.exact and test.statistic == pytest.approx(lengths[0])
    assert test.p == pytest.approx(np.mean(np.array(lengths) >= lengths[0] - 1e-9))


def test_rows_of_one_prompt_flip_together():
    """Ten copies of every row are no more evidence for a mean than one; flipped one by one they would seem so."""
    one = noise(8, 12, 3)
    many, names = np.repeat(one, 10, axis=0), np.repeat([f"p{i}" for i in range(8)], 10).tolist()
    assert mean_test(many, names, 999, 0).p == pytest.approx(mean_test(one, names[::10], 999, 0).p)
    assert mean_test(many, [str(i) for i in range(80)], 999, 0).p < 0.1 * mean_test(many, names, 999, 0).p


def test_groups_are_permuted_by_prompt():
    base, tuned = noise(30, 8, 0), noise(20, 8, 1)
    names = ([f"a{i // 3}" for i in range(30)], [f"b{i // 2}" for i in range(20)])
    same = group_test(base, tuned, names, 199, 0)
    assert same.statistic == pytest.approx(np.linalg.norm(tuned.mean(0) - base.mean(0))) and same.p > 0.05
    assert group_test(base, tuned + 1.5, names, 199, 0).p < 0.03


def test_columns_and_signs_keep_what_they_say():
    values = noise(20, 6, 0) + 3.0
    rng = np.random.default_rng(0)
    for kind in ("signs", "columns"):
        kept, together = null_shares(values, 2, kind, 5, rng, mean=True)
        assert (together[:, 0] > 0.7).all(), "together they are of one matrix, which keeps its mean"
        assert kept.shape == (5, 2) and (np.diff(kept, axis=1)[:, 0] < 0).all() and (kept.sum(1) <= 1 + 1e-9).all()
    assert (null_shares(values, 1, "columns", 5, rng, mean=True)[0] > 0.7).all(), "columns keep their mean"
    assert (null_shares(values, 1, "signs", 5, rng, mean=True)[0] < 0.6).all(), "signs of the rows have none"


@pytest.mark.parametrize(("n", "d"), [(400, 100), (100, 400), (200, 200)])
def test_the_marchenko_pastur_edge_of_noise_and_of_spikes(n, d):
    """The edge of unit noise is (1 + sqrt(d / n))², by formula; the largest eigenvalue of noise comes near it, and two
    spikes do not move it by a twentieth."""
    rng = np.random.default_rng(0)
    values = 1.7 * rng.standard_normal((n, d))
    spectrum = np.linalg.svd(values)[1] ** 2 / n
    edge = marchenko_pastur_edge(spectrum[None], n, d)[0]
    assert edge == pytest.approx(1.7**2 * (1 + np.sqrt(d / n)) ** 2, rel=0.03)
    assert spectrum[0] == pytest.approx(edge, rel=0.08)
    spiked = np.linalg.svd(values + 20 * rng.standard_normal((n, 2)) @ np.linalg.qr(rng.standard_normal((d, 2)))[0].T)[
        1
    ]
    assert marchenko_pastur_edge(spiked[None] ** 2 / n, n, d)[0] == pytest.approx(edge, rel=0.05)
