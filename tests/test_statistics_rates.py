"""Clustered rates: against the defining equation, naive loops, scipy's beta-binomial, and simulated coverage."""

from __future__ import annotations

import re
from pathlib import Path

import coverage_table
import numpy as np
import pytest
from scipy import optimize, stats

from workbench import statistics as st

ROWS = [[1, 0, 0], [0, 0, 0, 0, 1], [1, 1], [0, 1, 0, 1, 1, 1, 0], [0]]  # clusters of odd sizes, 18 rows
VALUES = np.array([value for row in ROWS for value in row], float)
NAMES = [name for name, row in zip("abcde", ROWS, strict=True) for _ in row]


def test_wilson_equals_scipy():
    for successes, n, level in [(0, 7, 0.9), (3, 11, 0.95), (101, 263, 0.99), (13, 13, 0.95)]:
        ours, theirs = st.wilson(successes, n, level), stats.binomtest(successes, n).proportion_ci(level, "wilson")
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def effective_by_hand(weigh: str) -> tuple[float, float, float]:
    """(rate, effective rows, degrees of freedom) by loops over the clusters."""
    k, n = len(ROWS), len(VALUES)
    if weigh == "rows":
        rate = sum(map(sum, ROWS)) / n
        away = [(sum(row) - len(row) * rate) / n for row in ROWS]
        limit = n
    else:
        shares = [sum(row) / len(row) for row in ROWS]
        rate = sum(shares) / k
        away = [(share - rate) / k for share in shares]
        limit = k**2 / sum(1 / len(row) for row in ROWS)
    variance = sum(each**2 for each in away) * k / (k - 1)
    carrying = 3 * sum(each**2 for each in away) ** 2 / sum(each**4 for each in away)
    return rate, min(limit, rate * (1 - rate) / variance), min(k, carrying) - 1


@pytest.mark.parametrize("weigh", ["rows", "clusters"])
def test_clustered_wilson_solves_its_equation(weigh):
    rate, effective, freedom = effective_by_hand(weigh)
    t = stats.t.ppf(0.95, freedom)
    ours = st.clustered_wilson(VALUES, NAMES, weigh=weigh, level=0.9)

    def equation(theta):
        return (rate - theta) ** 2 - t**2 * theta * (1 - theta) / effective

    assert ours.low == pytest.approx(optimize.brentq(equation, 1e-12, rate), abs=1e-9)
    assert ours.high == pytest.approx(optimize.brentq(equation, rate, 1 - 1e-12), abs=1e-9)
    assert ("mean over clusters" in ours.method) == (weigh == "clusters")
    assert f"{effective:.3g} effective of 18 rows in 5 clusters" in ours.method
    assert ("under 5 effective events" in ours.method) == (effective * min(rate, 1 - rate) < 5)


def test_the_two_weighings_agree_for_equal_clusters_only():
    equal, names = np.random.default_rng(0).integers(0, 2, 77).astype(float), np.repeat(np.arange(11), 7)
    by = [st.clustered_wilson(equal, names, weigh=weigh) for weigh in ("rows", "clusters")]
    assert by[0].low == pytest.approx(by[1].low) and by[0].high == pytest.approx(by[1].high)
    assert st.design_effect(VALUES, NAMES).rate != st.design_effect(VALUES, NAMES, "clusters").rate


def test_rows_that_repeat_their_cluster_count_as_clusters():
    """Nine copies of each row: the same interval as without the copies, where Wilson over rows is far narrower."""
    once = np.array([1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1], float)
    copied, names = np.repeat(once, 9), np.repeat(np.arange(13), 9)
    design = st.design_effect(copied, names)
    assert design.effective == pytest.approx(12, rel=1e-9), "variance with k - 1: 12 rather than 13"
    assert design.effect == pytest.approx(9 * 13 / 12)
    wide, narrow = st.clustered_wilson(copied, names), st.wilson(36, 117)
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)


def test_one_cluster_that_stands_alone_is_worth_three():
    """100 clusters, all successes in one: the spread is known from that one alone, so t has 2 degrees of freedom."""
    values = np.zeros(800)
    values[:8] = 1.0
    design = st.design_effect(values, np.repeat(np.arange(100), 8))
    assert design.freedom == pytest.approx(2, abs=0.1) and design.effective == pytest.approx(99, rel=1e-9)
    spread = np.random.default_rng(4).integers(0, 2, 800).astype(float)
    assert st.design_effect(spread, np.repeat(np.arange(100), 8)).freedom > 90


def test_independent_rows_are_never_worth_more_than_their_number():
    """Clusters more alike than chance (every one half and half) would give an infinite number of effective rows."""
    values, names = np.tile([0.0, 1.0], 15), np.repeat(np.arange(15), 2)
    assert st.design_effect(values, names).effective == 30


def test_no_success_in_any_cluster_counts_clusters():
    none = st.clustered_wilson(np.zeros(88), np.repeat(np.arange(11), 8))
    t = stats.t.ppf(0.975, 10)
    assert (none.low, none.high) == (0.0, pytest.approx(t**2 / (11 + t**2)))
    every = st.clustered_wilson(np.ones(88), np.repeat(np.arange(11), 8))
    assert every.high == 1.0 and every.low == pytest.approx(1 - none.high)


def test_rates_refuse_scores_and_single_clusters():
    for interval in (st.clustered_wilson, st.beta_binomial_interval):
        with pytest.raises(ValueError, match="zeros and ones"):
            interval([0.5, 1.0], ["a", "b"])
        with pytest.raises(ValueError, match="at least 2 clusters: 1 came"):
            interval([0.0, 1.0], ["a", "a"])
        with pytest.raises(ValueError, match="one cluster name a value"):
            interval([0.0, 1.0], ["a"])


def posterior_below(rate: float, rows: list[list[int]]) -> float:
    """P(rate below this | rows) by Gauss-Legendre quadrature over scipy's beta-binomial, in another parametrisation."""
    nodes, weights = np.polynomial.legendre.leggauss(120)
    icc, icc_weight = (nodes + 1) / 2, weights / 2

    def mass(low: float, high: float) -> float:  # Jeffreys' prior of the rate, in x = its arc sine of the root
        x, x_weight = low + (high - low) * (nodes + 1) / 2, weights * (high - low) / 2
        p, r = np.meshgrid(np.sin(x) ** 2, icc, indexing="ij")
        a, b = p * (1 - r) / r, (1 - p) * (1 - r) / r
        likelihood = np.prod([stats.betabinom.pmf(sum(row), len(row), a, b) for row in rows], axis=0)
        return float(x_weight @ likelihood @ icc_weight)

    cut = np.arcsin(np.sqrt(rate))
    below, above = mass(0.0, cut), mass(cut, np.pi / 2)
    return below / (below + above)


@pytest.mark.parametrize("rows", [ROWS, [[0, 0, 1], *[[0, 0, 0, 0]] * 6]], ids=["uneven", "one event"])
def test_beta_binomial_ends_cut_off_their_tails(rows):
    values = [float(value) for row in rows for value in row]
    names = [i for i, row in enumerate(rows) for _ in row]
    ours = st.beta_binomial_interval(values, names, level=0.9)
    # .003 of posterior: what a grid of 64 x 32 points costs.
    assert posterior_below(ours.low, rows) == pytest.approx(0.05, abs=3e-3)
    assert posterior_below(ours.high, rows) == pytest.approx(0.95, abs=3e-3)


def test_beta_binomial_finds_a_narrow_peak():
    """400 clusters of 50: far narrower than one step of the first grid; close to Wilson at the same design effect."""
    rng = np.random.default_rng(1)
    own = rng.beta(0.3 * 19, 0.7 * 19, size=400)
    values, names = (rng.random((400, 50)) < own[:, None]).astype(float).ravel(), np.repeat(np.arange(400), 50)
    ours, wilson = st.beta_binomial_interval(values, names), st.clustered_wilson(values, names)
    assert ours.low == pytest.approx(wilson.low, abs=2e-3) and ours.high == pytest.approx(wilson.high, abs=2e-3)


def test_beta_binomial_ends_at_0_or_1_where_nothing_or_all_succeeded():
    names = np.repeat(np.arange(11), 3)
    none, every = st.beta_binomial_interval(np.zeros(33), names), st.beta_binomial_interval(np.ones(33), names)
    assert none.low == 0.0 and 0.05 < none.high < 0.25
    assert every.high == 1.0 and every.low == pytest.approx(1 - none.high, abs=1e-9)


def test_intraclass_correlation_equals_the_f_ratio_of_scipy():
    groups = np.random.default_rng(2).normal(size=(7, 5)) + np.random.default_rng(3).normal(size=(7, 1))
    f = stats.f_oneway(*groups).statistic
    ours = st.intraclass_correlation(groups, np.repeat(np.arange(7), 5))
    assert ours == pytest.approx((f - 1) / (f - 1 + 5))
    uneven = np.repeat([1.0, 2.0, 3.0], [2, 3, 4])
    assert st.intraclass_correlation(uneven, uneven) == 1.0, "every row equals its cluster"
    with pytest.raises(ValueError, match="no variance"):
        st.intraclass_correlation(np.ones(4), [0, 0, 1, 1])
    with pytest.raises(ValueError, match="one of 2 rows"):
        st.intraclass_correlation([1.0, 2.0], [0, 1])


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_coverage_of_eleven_clusters(rate):
    """1000 of the documented evaluations: within 93 to 98 %, give or take three errors of the simulation (.7 each)."""
    ours = coverage_table.covered(st.clustered_wilson, 11, rate, 1000)
    assert 0.93 - 0.021 <= ours <= 0.98 + 0.021
    assert coverage_table.covered(coverage_table.wilson_independent, 11, rate, 300) < 0.87, "it can fail"


def documented(method: str) -> dict[tuple[int, float], float]:
    text = (Path(__file__).parents[1] / "docs" / "statistics.md").read_text()
    table = text.split("stated: 8 samples a cluster")[1].split("\n\n")[1]
    rows = re.findall(rf"^\| `{method}` \| (\d+) \| (.+) \|$", table, re.M)
    cells = [(int(k), [float(cell) for cell in cells.split(" | ")]) for k, cells in rows]
    return {(k, r): value for k, row in cells for r, value in zip(coverage_table.RATES, row, strict=True)}


def test_the_documented_table_keeps_its_bound():
    """As tests/coverage_table.py printed it: 93 to 98 % for 11 clusters and more, on the whole stated grid.

    One cell of the adjusted Wilson lies on the bound (98.0 in 200,000 evaluations): nothing there can miss above.
    """
    for method in ("clustered_wilson", "beta_binomial_interval"):
        cells = documented(method)
        assert len(cells) == len(coverage_table.CLUSTERS) * len(coverage_table.RATES)
        for (k, rate), value in cells.items():
            on_the_bound = method == "clustered_wilson" and (k, rate) == (11, 0.02)
            assert k < 11 or 93 <= value <= (98.3 if on_the_bound else 98), (method, k, rate)
    assert min(documented("wilson over rows").values()) < 80, "the bound can be missed"
