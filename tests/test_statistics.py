"""Intervals and tests against published values, simulation and exact enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from workbench import statistics as st


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29 by the score method; 263/300 is in paper B's table.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (263, 300, 0.835, 0.909),
    ],
)
def test_wilson_gives_the_published_values(successes, n, low, high):
    interval = st.wilson(successes, n)
    assert interval.low == pytest.approx(low, abs=6e-4)
    assert interval.high == pytest.approx(high, abs=6e-4)
    assert "Wilson" in interval.method


def test_wilson_solves_its_own_equation():
    """Both ends lie exactly 1.96 standard errors *of that end* from the rate: the definition of the score interval."""
    interval = st.wilson(7, 25, level=0.9)
    for end in (interval.low, interval.high):
        assert abs(7 / 25 - end) / np.sqrt(end * (1 - end) / 25) == pytest.approx(stats.norm.ppf(0.95))


def test_pitfall_38_wilson_of_none_and_all_stays_in_the_unit_interval():
    assert st.wilson(0, 103).low == 0.0 and 0.03 < st.wilson(0, 103).high < 0.04
    assert st.wilson(103, 103).high == 1.0
    with pytest.raises(ValueError, match="successes"):
        st.wilson(4, 3)


def test_t_interval_covers_as_promised():
    """4000 samples of 7 values: coverage .95 within four standard errors of the simulation (.0034 each)."""
    rng = np.random.default_rng(0)
    hits = [3.0 in st.t_interval(rng.normal(3.0, 2.0, size=7)) for _ in range(4000)]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.014)


def test_pitfall_38_cluster_interval_covers_where_the_naive_one_does_not():
    """11 prompts of 8 correlated answers: over cluster means .95; over rows as if independent, far less."""
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(11), 8)
    ours, naive = [], []
    for _ in range(1500):
        values = rng.normal(size=11)[clusters] + rng.normal(size=88)
        ours.append(0.0 in st.cluster_interval(values, clusters.tolist()))
        naive.append(0.0 in st.t_interval(values))
    assert np.mean(ours) == pytest.approx(0.95, abs=0.023)
    assert np.mean(naive) < 0.75


def test_cluster_interval_names_its_method():
    rng = np.random.default_rng(2)
    assert st.cluster_interval(rng.normal(size=29), range(29)).method.startswith("t 95%")
    assert st.cluster_interval(rng.normal(size=30), range(30)).method.startswith("percentile bootstrap")
    alike = st.cluster_interval(np.zeros(24), np.repeat(np.arange(12), 2).tolist())
    assert alike.method.startswith("Wilson") and alike.high == pytest.approx(st.wilson(0, 12).high)
    with pytest.raises(ValueError, match="at least 2 clusters"):
        st.cluster_interval([1.0, 2.0], ["a", "a"])


def test_the_bootstrap_agrees_with_the_normal_interval_for_many_clusters():
    values = np.random.default_rng(3).normal(size=400)
    boot, exact = st.cluster_interval(values, range(400), seed=1), st.t_interval(values)
    assert boot.low == pytest.approx(exact.low, abs=0.01) and boot.high == pytest.approx(exact.high, abs=0.01)


def test_p_value_has_a_floor_and_counts_ties():
    null = np.arange(99.0)
    assert st.p_value(1000.0, null) == pytest.approx(1 / 100)
    assert st.p_value(98.0, null) == pytest.approx(2 / 100)
    assert st.p_value(-1.0, null, tail="less") == pytest.approx(1 / 100)
    assert st.p_value(1e-20, np.zeros(99)) == pytest.approx(1 / 100)
    assert st.p_value(0.0, np.zeros(99)) == 1.0
    with pytest.raises(ValueError, match="NaN"):
        st.p_value(0.0, [np.nan])


@pytest.mark.parametrize("tail", ["greater", "less", "two-sided"])
def test_p_value_is_uniform_under_the_null(tail):
    """P(p <= a) = a at the attainable levels, whatever the null's centre and skew."""
    rng = np.random.default_rng(4)
    draws = rng.gamma(2.0, size=(4000, 20)) + 7.0
    p = np.array([st.p_value(row[0], row[1:], tail) for row in draws])
    for level in (0.05, 0.25, 0.5):
        assert np.mean(p <= level + 1e-9) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 4000))


def test_format_p_at_the_floor_and_below_the_least_number_of_draws():
    assert st.format_p(st.p_value(9.0, np.zeros(99)), 99) == "≤ 1/100"
    assert st.format_p(0.034, 999) == "= 0.034"
    assert "not stated" in st.format_p(1 / 21, 20)


def test_pitfall_25_max_statistic_controls_the_whole_family():
    """30 null cells: the smallest corrected p is below .1 in a tenth of the sweeps; uncorrected, in nearly all."""
    rng = np.random.default_rng(5)
    corrected, plain = [], []
    for _ in range(400):
        null, observed = rng.normal(size=(99, 30)), rng.normal(size=30)
        corrected.append(st.max_statistic(observed, null).min() <= 0.1)
        plain.append(min(st.p_value(o, n) for o, n in zip(observed, null.T, strict=True)) <= 0.1)
    assert np.mean(corrected) == pytest.approx(0.1, abs=0.06)
    assert np.mean(plain) > 0.9


def test_max_statistic_still_sees_a_real_effect_in_each_tail():
    null = np.random.default_rng(6).normal(size=(99, 5))
    observed = np.array([0.0, 9.0, 0.0, -9.0, 0.0])
    assert (st.max_statistic(observed, null) == 0.01).tolist() == [False, True, False, False, False]
    assert (st.max_statistic(observed, null, "less") == 0.01).tolist() == [False, False, False, True, False]
    assert (st.max_statistic(observed, null, "two-sided") == 0.01).tolist() == [False, True, False, True, False]
    with pytest.raises(ValueError, match="expected observed"):
        st.max_statistic(observed, null[:, :3])


def test_sign_flips_agree_with_all_sign_patterns():
    differences = np.array([1.0, 2.0, -0.5, 3.0, 0.7, 1.1])
    every = np.array([np.mean(np.array(s) * differences) for s in itertools.product([-1, 1], repeat=6)])
    exact = np.mean(every >= differences.mean() - 1e-12)
    p = st.p_value(differences.mean(), st.sign_flip_null(differences, draws=20_000))
    assert p == pytest.approx(exact, abs=0.005)


def test_sign_flips_move_a_cluster_as_one():
    """One cluster of 50 equal differences has two patterns only, so nothing can be significant."""
    null = st.sign_flip_null(np.ones(50), ["same"] * 50, draws=200)
    assert set(null.tolist()) == {-1.0, 1.0}


def test_permutation_null_agrees_with_all_splits():
    a, b = np.array([3.1, 2.2, 4.0]), np.array([1.0, 2.5, 0.3, 1.7])
    pooled = np.concatenate([a, b])
    every = [pooled[list(i)].mean() - np.delete(pooled, list(i)).mean() for i in itertools.combinations(range(7), 3)]
    exact = np.mean(np.array(every) >= a.mean() - b.mean() - 1e-12)
    assert st.p_value(a.mean() - b.mean(), st.permutation_null(a, b, draws=20_000)) == pytest.approx(exact, abs=0.006)


def test_effect_size_of_a_planted_shift_and_its_correction():
    rng = np.random.default_rng(7)
    assert st.effect_size(rng.normal(0.8, 1, 20_000), rng.normal(0, 1, 20_000)) == pytest.approx(0.8, abs=0.04)
    # Small groups: without the correction the mean of d at 5 + 5 would be .8 / .904 = .885.
    small = [st.effect_size(rng.normal(0.8, 1, 5), rng.normal(0, 1, 5)) for _ in range(6000)]
    assert np.mean(small) == pytest.approx(0.8, abs=0.04)
    assert st.effect_size([1, 1], [1, 1]) == 0.0


def test_auroc_counts_pairs():
    assert st.auroc([2, 3], [0, 1]) == 1.0
    assert st.auroc([1, 1], [1, 1]) == 0.5
    a, b = np.random.default_rng(8).normal(size=(2, 40)).round(1)
    assert st.auroc(a, b) == pytest.approx(np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b)))
