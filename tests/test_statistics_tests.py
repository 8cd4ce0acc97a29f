"""Tests of differences and correlations: against scipy, full enumeration and published tables, on odd-sized data."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from workbench import statistics as st

A, B = np.array([3.1, 2.2, 4.0, 2.9, 5.2]), np.array([1.0, 2.5, 0.3, 1.7, 2.2, 3.3, 0.9])
X = np.array([0.3, 1.9, -0.4, 2.2, 0.8, 0.8, 3.1])
Y = np.array([1.2, 0.9, -0.2, 1.9, 0.4, 1.1, 1.5])


@pytest.mark.parametrize("tail", ["greater", "less"])
def test_exact_permutation_equals_scipy(tail):
    def difference(a, b, axis):
        return a.mean(axis=axis) - b.mean(axis=axis)

    theirs = stats.permutation_test((A, B), difference, alternative=tail, n_resamples=np.inf)
    ours = st.permutation_test(A, B, tail=tail)
    assert ours.exact and ours.draws == 791 and ours.p == pytest.approx(theirs.pvalue)
    assert ours.statistic == pytest.approx(A.mean() - B.mean()) and "all 792 patterns" in ours.method


def test_exact_permutation_two_sided_by_enumeration():
    pooled, observed = np.concatenate([A, B]), A.mean() - B.mean()
    every = []
    for chosen in itertools.combinations(range(12), 5):
        every.append(pooled[list(chosen)].mean() - np.delete(pooled, list(chosen)).mean())
    assert st.permutation_test(A, B).p == pytest.approx(np.mean(np.abs(every) >= abs(observed) - 1e-12))


def test_random_permutation_agrees_with_the_exact_one():
    drawn = st.permutation_test(A, B, draws=700)
    assert not drawn.exact and drawn.draws == 700 and "random 700" in drawn.method
    assert drawn.p == pytest.approx(st.permutation_test(A, B).p, abs=0.03)


def test_permutation_moves_clusters_whole():
    """Two clusters a side: six splits, whatever the number of rows; the least two-sided p is 2/6."""
    names_a, names_b = ["p"] * 50 + ["q"] * 50, ["r"] * 50 + ["s"] * 50
    test = st.permutation_test(np.full(100, 9.0), np.zeros(100), names_a, names_b)
    assert test.p == pytest.approx(2 / 6) and test.floor == pytest.approx(1 / 6) and "clusters" in test.method
    with pytest.raises(ValueError, match="1 clusters are in both groups, so the groups are paired"):
        st.permutation_test([1.0, 2.0], [1.0, 2.0], ["p", "q"], ["q", "r"])
    with pytest.raises(ValueError, match="one group only"):
        st.permutation_test([1.0, 2.0], [1.0, 2.0], ["p", "q"])
    with pytest.raises(ValueError, match="both groups"):
        st.permutation_test([], [1.0])


@pytest.mark.parametrize("tail", ["greater", "less"])
def test_exact_sign_flips_equal_scipy(tail):
    d = A - B[:5]
    theirs = stats.permutation_test(
        (A, B[:5]), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples", alternative=tail,
        n_resamples=np.inf,
    )  # fmt: skip
    ours = st.sign_flip_test(d, tail=tail)
    assert ours.exact and ours.draws == 31 and ours.p == pytest.approx(theirs.pvalue)


def test_sign_flips_of_clusters_and_their_floor():
    names = np.repeat(np.arange(5), [2, 3, 1, 4, 5])
    test = st.sign_flip_test(np.ones(15), names)
    assert test.p == 2 / 32 and test.floor == 1 / 32 and str(test).startswith("p = 0.062 (sign flips of 5 clusters")
    least = st.sign_flip_test(np.ones(15), names, tail="greater")
    assert least.p == 1 / 32 and str(least).startswith("p = 1/32, the least possible")
    many = st.sign_flip_test(np.random.default_rng(0).normal(1.0, 0.1, 40), draws=999)
    assert not many.exact and str(many).startswith("p ≤ 1/1000 (")
    assert st.sign_flip_test(np.zeros(4)).p == 1.0
    with pytest.raises(ValueError, match="at least one difference"):
        st.sign_flip_test([])


def test_sign_test_is_the_binomial():
    assert st.sign_test(7, 9).p == pytest.approx(0.1797, abs=5e-5)
    for wins, n, tail in [
        (7, 9, "greater"),
        (0, 11, "less"),
        (5, 10, "two-sided"),
        (11, 11, "two-sided"),
        (3, 13, "two-sided"),
    ]:
        theirs = stats.binomtest(wins, n, alternative=tail).pvalue
        assert st.sign_test(wins, n, tail).p == pytest.approx(theirs)
    assert str(st.sign_test(7, 9)) == "p = 0.18 (sign test, 7 of 9)" and st.sign_test(7, 9).floor == 0.0
    with pytest.raises(ValueError, match="0 <= wins <= n"):
        st.sign_test(5, 3)


def test_max_statistic_over_layers_and_coefficients():
    null = np.random.default_rng(1).normal(size=(99, 3, 5))
    observed = null[0] * 0
    observed[1, 4] = 9.0
    p = st.max_statistic(observed, null)
    assert p.shape == (3, 5) and p[1, 4] == 0.01 and (np.delete(p.ravel(), 9) > 0.5).all()
    assert p.ravel().tolist() == st.max_statistic(observed.ravel(), null.reshape(99, 15)).tolist()
    with pytest.raises(ValueError, match="observed"):
        st.max_statistic(observed[:2], null)


@pytest.mark.parametrize("tail", ["two-sided", "greater", "less"])
def test_max_sign_flips_by_loops(tail):
    rows = np.random.default_rng(2).normal(0.6, 1.0, size=(11, 2, 3))
    names = [0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 6]
    means = np.array([rows[[i for i in range(11) if names[i] == c]].mean(axis=0) for c in range(7)])

    def t(signs):
        flipped = means * np.array(signs)[:, None, None]
        values = flipped.mean(axis=0) / (flipped.std(axis=0, ddof=1) / 7**0.5)
        return {"two-sided": np.abs(values), "greater": values, "less": -values}[tail]

    largest = [t(signs).max() for signs in itertools.product((1, -1), repeat=7)]
    by_hand = [[np.mean(np.array(largest) >= cell - 1e-9) for cell in row] for row in t([1] * 7)]
    assert st.max_sign_flip_test(rows, names, tail=tail) == pytest.approx(np.array(by_hand))


def test_max_sign_flips_of_cells_without_spread():
    rows = np.random.default_rng(3).normal(size=(9, 2))
    rows[:, 0], rows[:, 1] = 0.0, 2.0
    assert st.max_sign_flip_test(rows) == pytest.approx([1.0, 2 / 2**9])
    with pytest.raises(ValueError, match="at least 2 clusters: 1"):
        st.max_sign_flip_test(rows, ["a"] * 9)


def test_holm_by_definition():
    p = np.array([0.04, 0.01, 0.9, 0.03, 0.02, 0.02, 0.5])
    for i, own in enumerate(st.holm(p)):
        before = [p[j] * sum(p >= p[j]) for j in range(7) if p[j] <= p[i]]
        assert own == pytest.approx(min(1.0, max(before)))
    assert st.holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])


def test_benjamini_hochberg_equals_scipy():
    p = np.random.default_rng(4).uniform(size=13) ** 2
    assert st.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    for adjust in (st.holm, st.benjamini_hochberg):
        assert adjust([]).size == 0 and adjust([0.3]).tolist() == [0.3]
        with pytest.raises(ValueError, match="p values from 0 to 1"):
            adjust([0.5, 1.5])


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_correlations_equal_scipy(kind):
    theirs = stats.pearsonr(X, Y) if kind == "pearson" else stats.spearmanr(X, Y)
    assert st.correlation(X, Y, kind) == pytest.approx(theirs.statistic)
    if kind == "pearson":
        interval, ours = theirs.confidence_interval(0.9), st.correlation_interval(X, Y, kind, level=0.9)
        assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
@pytest.mark.parametrize("tail", ["two-sided", "greater", "less"])
def test_exact_correlation_p_by_all_orders(kind, tail):
    """Seven points, one tie: 5040 orders counted by loops over scipy's own statistic."""
    a, b = (X, Y) if kind == "pearson" else (stats.rankdata(X), stats.rankdata(Y))
    every = np.corrcoef(np.vstack([a, np.array(list(itertools.permutations(b)))]))[0, 1:]
    sign = {"two-sided": np.abs, "greater": np.positive, "less": np.negative}[tail]
    ours = st.correlation_test(X, Y, kind, tail=tail)
    assert ours.exact and ours.p == pytest.approx(np.mean(sign(every) >= sign(np.corrcoef(a, b)[0, 1]) - 1e-12))


def test_nine_domains_are_counted_fully_and_ten_are_drawn():
    """Zar 1972, two-sided 5 % of Spearman's rho with nine pairs: .700 is significant, the next lower value is not."""
    far = [(0, 3), (4, 7)]
    for swaps, rho, significant in [(far, 1 - 36 / 120, True), ([*far, (1, 2)], 1 - 38 / 120, False)]:
        order = np.arange(9.0)
        for one, other in swaps:
            order[[one, other]] = order[[other, one]]
        test = st.correlation_test(np.arange(9), order)
        assert test.statistic == pytest.approx(rho) and test.exact and test.draws == 362_879
        assert (test.p < 0.05) == significant and test.p == pytest.approx(0.05, abs=0.007)
    ten = st.correlation_test(np.arange(10), np.arange(10), draws=199)
    assert not ten.exact and ten.p == 1 / 200 and "≤ 1/200" in str(ten)


def test_critical_correlations():
    """11, 10 and 9 points: .60, .63, .67; and p is .05 at the critical value."""
    assert [round(st.critical_correlation(n), 2) for n in (11, 10, 9)] == [0.60, 0.63, 0.67]
    for n in (3, 7, 30):
        r = st.critical_correlation(n)
        assert 2 * stats.t.sf(r * np.sqrt((n - 2) / (1 - r * r)), n - 2) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="n >= 3"):
        st.critical_correlation(2)


def test_correlations_that_are_undefined_or_certain():
    with pytest.raises(ValueError, match="all 3 values of y are equal"):
        st.correlation_test([1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
    with pytest.raises(ValueError, match="2 pairs or more: 3 and 2"):
        st.correlation([1.0, 2.0, 3.0], [1.0, 2.0])
    certain = st.correlation_interval([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])
    assert (certain.low, certain.high) == (-1.0, 1.0) and "no spread" in certain.method
    with pytest.raises(ValueError, match="4 points"):
        st.correlation_interval([1.0, 2.0, 3.0], [1.0, 2.0, 2.5])
