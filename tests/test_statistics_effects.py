"""Effect sizes, AUROC and equivalence: against scipy, loops over all pairs, and resamples written out row by row."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from workbench import statistics as st
from workbench.statistics import separation, separation_bootstrap

A, B = np.array([3.1, 2.2, 4.0, 2.9, 5.2]), np.array([1.0, 2.5, 0.3, 1.7, 2.2, 3.3, 0.9])
P, N = np.array([1.0, 2.0, 2.0, 3.5, 4.0, 0.5, 2.5]), np.array([0.5, 2.0, 1.5, 0.0, 2.5])
GP, GN = [0, 0, 1, 1, 2, 3, 3], [0, 4, 4, 5, 2]


def test_cohens_d_and_its_correction():
    pooled = np.sqrt((4 * A.var(ddof=1) + 6 * B.var(ddof=1)) / 10)
    assert st.cohen_d(A, B) == pytest.approx((A.mean() - B.mean()) / pooled)
    assert st.cohen_d(A, B) == pytest.approx(stats.ttest_ind(A, B).statistic * np.sqrt(1 / 5 + 1 / 7))
    assert st.effect_size(A, B) == pytest.approx(st.cohen_d(A, B) * (1 - 3 / 39))


@pytest.mark.parametrize("shift", [-3.0, -0.4, 0.0, 2.0, 30.0])
def test_effect_interval_inverts_the_noncentral_t(shift):
    a = A + shift
    t, root = stats.ttest_ind(a, B).statistic, np.sqrt(5 * 7 / 12)
    d = st.effect_interval(a, B, corrected=False, level=0.9)
    assert stats.nct.cdf(t, 10, d.low * root) == pytest.approx(0.95, abs=1e-6)
    assert stats.nct.cdf(t, 10, d.high * root) == pytest.approx(0.05, abs=1e-6)
    g = st.effect_interval(a, B, level=0.9)
    assert (g.low, g.high) == pytest.approx((d.low * 36 / 39, d.high * 36 / 39)) and st.effect_size(a, B) in g


def test_effects_without_spread():
    assert st.cohen_d([2.0, 2.0], [1.0, 1.0]) == np.inf
    for other in ([1.0, 1.0], [2.0, 2.0]):
        with pytest.raises(ValueError, match="without spread"):
            st.effect_interval([2.0, 2.0], other)
    with pytest.raises(ValueError, match="3 values in all"):
        st.cohen_d([1.0], [2.0])


def test_auroc_equals_mann_whitney():
    assert st.auroc(P, N) == pytest.approx(stats.mannwhitneyu(P, N).statistic / 35)


def variance_by_loops(groups_p, groups_n) -> float:
    """Obuchowski's variance from the matrix of all pairs."""
    won = (P[:, None] > N) + 0.5 * (P[:, None] == N)
    area = won.mean()
    names = sorted(set(groups_p) | set(groups_n))
    x = [sum(won[i].mean() - area for i in range(7) if groups_p[i] == c) for c in names]
    y = [sum(won[:, j].mean() - area for j in range(5) if groups_n[j] == c) for c in names]
    k_p, k_n, k = len(set(groups_p)), len(set(groups_n)), len(names)
    s10, s01 = k_p / (k_p - 1) / 7 * sum(e * e for e in x), k_n / (k_n - 1) / 5 * sum(e * e for e in y)
    s11 = k / (k - 1) * sum(e * f for e, f in zip(x, y, strict=True))
    return s10 / 7 + s01 / 5 + 2 * s11 / 35


@pytest.mark.parametrize("clustered", [False, True], ids=["rows", "clusters of both classes"])
def test_delong_by_loops(clustered):
    groups = (GP, GN) if clustered else ([*range(7)], [*range(10, 15)])
    area, error = st.auroc(P, N), np.sqrt(variance_by_loops(*groups))
    quantile = stats.t.ppf(0.95, 5) if clustered else stats.norm.ppf(0.95)
    ours = st.auroc_interval(P, N, *(groups if clustered else ()), level=0.9)
    logit = np.log(area / (1 - area)) + np.array([-1, 1]) * quantile * error / (area * (1 - area))
    assert (ours.low, ours.high) == pytest.approx(tuple(1 / (1 + np.exp(-logit))))
    assert ours.method.startswith("clustered DeLong" if clustered else "DeLong (logit) 90%")


def test_perfect_separation_is_not_certainty():
    ours = st.auroc_interval([3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 2.5])
    assert ours.high == 1.0 and 0.3 < ours.low < 0.8 and ours.method.startswith("Newcombe")
    theta = ours.low
    spread = 1 + (3.5 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    assert (1 - theta) ** 2 == pytest.approx(stats.norm.ppf(0.975) ** 2 * theta * (1 - theta) / 12 * spread)
    mirrored = st.auroc_interval([0.0, 1.0, 2.0, 2.5], [3.0, 4.0, 5.0])
    assert (mirrored.low, mirrored.high) == pytest.approx((0.0, 1 - ours.low))
    ties = st.auroc_interval(np.ones(7), np.ones(9))
    assert ties.low < 0.26 and ties.high > 0.74, "ties alone have a DeLong variance of 0"
    many = st.auroc_interval(np.full(800, 3.0), np.zeros(800), np.arange(800) // 200, 4 + np.arange(800) // 200)
    assert many.low < 0.8 and "4 + 4 clusters" in many.method
    assert st.auroc_bootstrap([3.0, 4.0, 5.0], [0.0, 1.0]).method.startswith("Newcombe")


def test_auroc_refusals():
    with pytest.raises(ValueError, match="both classes"):
        st.auroc_interval([], [1.0])
    with pytest.raises(ValueError, match="one class only"):
        st.auroc_interval([1.0, 2.0], [1.0, 2.0], ["a", "b"])
    with pytest.raises(ValueError, match=r"2 independent units of each class.*1 and 2"):
        st.auroc_interval([1.0, 2.0], [1.0, 2.0], ["a", "a"], ["b", "c"])
    with pytest.raises(ValueError, match="one cluster a score: 1 for 2"):
        st.auroc_interval([1.0, 2.0], [1.0, 2.0], ["a"], ["b", "c"])


def test_resampled_areas_equal_those_of_the_rows_written_out():
    weights = np.array([[1, 1, 1, 1, 1, 1], [0, 3, 1, 0, 2, 0], [2, 0, 0, 1, 0, 3]], float)
    sizes_p, sizes_n = np.bincount(GP, minlength=6), np.bincount(GN, minlength=6)
    wins = separation_bootstrap._wins(P, N, np.array(GP), np.array(GN), 6)
    areas, errors = separation_bootstrap._areas(weights, wins, sizes_p, sizes_n)
    for weight, area, error in zip(weights.astype(int), areas, errors, strict=True):
        p, n = np.repeat(P, weight[GP]), np.repeat(N, weight[GN])
        assert area == pytest.approx(st.auroc(p, n))
        at_p, at_n = np.repeat(GP, weight[GP]), np.repeat(GN, weight[GN])
        above, below = separation.placements(p, n) - area, 1 - separation.placements(n, p) - area
        influence = [above[at_p == c].sum() / len(p) + below[at_n == c].sum() / len(n) for c in range(6)]
        copies = np.where(weight > 0, weight, 1)  # a cluster drawn twice is two clusters of half the influence
        assert error == pytest.approx(
            np.sqrt(sum((each / m) ** 2 * m for each, m in zip(influence, copies, strict=True)))
        )


@pytest.mark.parametrize("k", [11, 41])
def test_auroc_bootstrap_agrees_with_delong(k):
    r = np.random.default_rng(k)
    names = np.repeat(np.arange(k), 3)
    p, n = (shift + r.normal(size=k)[names] + r.normal(size=3 * k) for shift in (1.5, 0.0))
    one, other = st.auroc_interval(p, n, names, names), st.auroc_bootstrap(p, n, names, names, resamples=2000)
    assert other.method.startswith("studentised" if k < 30 else "percentile")
    width = one.high - one.low
    assert other.low == pytest.approx(one.low, abs=0.2 * width) and other.high == pytest.approx(
        one.high, abs=0.2 * width
    )
    apart = st.auroc_bootstrap(p, n, names, names + k, resamples=2000)
    assert f"{2 * k} clusters" in apart.method


def test_tost_equals_two_one_sided_tests_of_scipy():
    for margin in [(-1.0, 2.5), (-0.2, 0.2)]:
        d = A - B[:5]
        low = stats.ttest_1samp(d, margin[0], alternative="greater").pvalue
        high = stats.ttest_1samp(d, margin[1], alternative="less").pvalue
        ours = st.tost(d, margin)
        assert ours.p_equivalent == pytest.approx(max(low, high))
        assert ours.p_different == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
        two = st.tost_independent(A, B, margin)
        low = stats.ttest_ind(A - margin[0], B, equal_var=False, alternative="greater").pvalue
        high = stats.ttest_ind(A - margin[1], B, equal_var=False, alternative="less").pvalue
        assert two.p_equivalent == pytest.approx(max(low, high))
        assert two.p_different == pytest.approx(stats.ttest_ind(A, B, equal_var=False).pvalue)


def test_the_interval_and_the_p_of_tost_agree():
    for seed, margin in itertools.product(range(40), (0.3, 0.8)):
        ours = st.tost(np.random.default_rng(seed).normal(0.2, 0.7, size=9), margin)
        assert ours.equivalent == (-margin < ours.interval.low and ours.interval.high < margin)


def test_the_three_verdicts():
    r = np.random.default_rng(1)
    small, names = 0.02 * r.normal(size=60), np.repeat(np.arange(12), 5)
    assert st.tost(small, 0.1, names).verdict == "equivalent"
    assert st.tost(small + 1, 0.1, names).verdict == "different"
    assert st.tost(100 * small, 0.1, names).verdict == "neither"
    both = st.tost(small + 0.05, 0.1, names)
    assert both.verdict == "equivalent" and both.different
    assert str(both).startswith("equivalent, though told from 0: 0.049 [")
    for shift, verdict in ((0.0, "equivalent"), (1.0, "different")):
        ours = st.tost_bootstrap(small + shift, np.zeros(60), names, 0.1, resamples=500)
        assert ours.verdict == verdict and "90%" in ours.interval.method and ours.p_equivalent is None
    assert st.tost_bootstrap(100 * small, np.zeros(60), names, 0.1, resamples=500).verdict == "neither"


def test_equal_differences_decide_nothing():
    assert (
        st.tost(np.zeros(9), 0.1).verdict == "neither" and st.tost_independent([1, 1], [1, 1], 0.1).verdict == "neither"
    )
    assert st.tost_bootstrap(np.zeros(9), np.zeros(9), range(9), 0.1, bounds=(-1, 1)).verdict == "neither"
    with pytest.raises(ValueError, match="around 0"):
        st.tost(A, (0.1, 0.2))
    with pytest.raises(ValueError, match="at least 2 independent differences: 1"):
        st.tost(A, 1.0, ["same"] * 5)
