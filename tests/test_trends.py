"""Trends over doses: p against enumeration and scipy, verdicts on planted curves, steps and violations by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from workbench.statistics import dose_table, jonckheere_trend, kendall_trend, page_trend

TAILS = ("greater", "less", "two-sided")


def share(observed, null, tail):
    """p among all patterns, from its definition."""
    null = np.asarray(null, float)
    centre = null.mean()
    extreme = {
        "greater": null >= observed - 1e-9,
        "less": null <= observed + 1e-9,
        "two-sided": abs(null - centre) >= abs(observed - centre) - 1e-9,
    }
    return extreme[tail].mean()


@pytest.mark.parametrize(("n", "k"), [(2, 3), (5, 4), (3, 6), (7, 5)])
def test_page_is_scipys_where_nothing_is_tied(n, k):
    table = np.random.default_rng(n).normal(size=(n, k)) + 0.4 * np.arange(k)
    theirs = stats.page_trend_test(table, method="exact")
    ours = page_trend(table, tail="greater")
    assert ours.test.statistic == theirs.statistic and ours.test.exact
    assert ours.test.p == pytest.approx(theirs.pvalue, rel=1e-9)


@pytest.mark.parametrize("tail", TAILS)
def test_page_with_ties_is_the_enumeration(tail):
    """Rows of two, three and no equal values: 24^3 orders, each row's own."""
    table = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0], [0.3, 0.1, 0.2, 0.9]])
    ranks = stats.rankdata(table, axis=1)
    rows = [[np.dot(order, range(1, 5)) for order in itertools.permutations(row)] for row in ranks]
    null = [sum(values) for values in itertools.product(*rows)]
    observed = float(ranks.sum(axis=0) @ np.arange(1, 5))
    found = page_trend(table, tail=tail)
    assert found.test.statistic == observed
    assert found.test.p == pytest.approx(share(observed, null, tail), rel=1e-9)
    extremes = {"greater": max(null), "less": min(null), "two-sided": max(null)}
    assert found.least_p == pytest.approx(share(extremes[tail], null, tail), rel=1e-9)


def test_many_doses_and_many_items_are_drawn():
    """Nine doses are not counted; p stays within 4 standard errors of the normal approximation of scipy (n 20)."""
    table = np.random.default_rng(0).normal(size=(20, 9)) + 0.04 * np.arange(9)
    theirs = stats.page_trend_test(table, method="asymptotic").pvalue
    found = page_trend(table, tail="greater", draws=1999)
    assert not found.test.exact and found.test.draws == 1999 and found.least_p == 1 / 2000
    assert 0.01 < theirs < 0.3, "else the comparison would say little"
    assert found.test.p == pytest.approx(theirs, abs=4 * math.sqrt(theirs / 1999) + 0.005)
    assert page_trend(table, draws=99, seed=1).test.p == page_trend(table, draws=99, seed=1).test.p


def test_far_tails_keep_their_digits():
    """60 items in perfect order: one pattern of 720^60, and never 0; 200 items are drawn, where that would be."""
    perfect = np.tile(np.arange(6.0), (60, 1))
    found = page_trend(perfect, tail="greater")
    assert found.test.p == pytest.approx(float(720) ** -60, rel=1e-6) and found.strength == 1
    assert found.verdict == "increasing" and "the least possible" in str(found)
    more = page_trend(np.tile(np.arange(6.0), (200, 1)), draws=199)
    assert more.test.p == more.least_p == 1 / 200


def naive_j(values, doses):
    pairs = itertools.product(range(len(values)), repeat=2)
    return sum((values[b] > values[a]) + 0.5 * (values[b] == values[a]) for a, b in pairs if doses[a] < doses[b])


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("values", [[3, 1, 4, 1, 5, 9, 2], [0, 0, 1, 0, 1, 1, 1]], ids=["scores", "zeros and ones"])
def test_jonckheere_is_the_enumeration(values, tail):
    doses = [8, 32, 8, 16, 16, 32, 32]
    null = [naive_j(values, order) for order in itertools.permutations(doses)]
    found = jonckheere_trend(values, doses, tail=tail)
    assert found.test.statistic == naive_j(values, doses) and found.units == 7
    assert found.test.exact and found.test.draws == 210 - 1 == math.factorial(7) // (2 * 2 * 6) - 1
    assert found.test.p == pytest.approx(share(naive_j(values, doses), null, tail))
    drawn = jonckheere_trend(values, doses, tail=tail, draws=200)
    assert not drawn.test.exact and drawn.test.p == pytest.approx(found.test.p, abs=4 * 0.5 / math.sqrt(200))


def test_kendall_is_scipys_and_the_enumeration():
    doses, values = [1, 2, 4, 8, 16, 32], [0.1, 0.3, 0.2, 0.5, 0.6, 0.4]
    found = kendall_trend(values, doses)
    theirs = stats.kendalltau(doses, values, method="exact")
    assert found.test.statistic == pytest.approx(theirs.statistic) and found.test.p == pytest.approx(theirs.pvalue)
    tied = [0, 0, 1, 1, 2, 1]

    def s(order):
        return sum(np.sign(b - a) for a, b in itertools.combinations(order, 2))

    null = [s(order) for order in itertools.permutations(tied)]
    found = kendall_trend(tied[::-1], doses[::-1])  # the order of the doses as given does not matter
    assert found.test.p == pytest.approx(share(s(tied), null, "two-sided"))
    assert found.test.statistic == pytest.approx(stats.kendalltau(doses, tied).statistic)
    assert kendall_trend(np.arange(12), np.arange(12), draws=199).test.p == 1 / 200


def test_few_doses_cannot_show_a_trend():
    found = kendall_trend([1, 2, 3, 4], [8, 16, 32, 64])
    assert found.least_p == pytest.approx(1 / 12) and found.verdict == "no trend shown"
    assert "this design could not show" in str(found)
    assert kendall_trend([1, 2, 3, 4, 5], range(5)).verdict == "increasing"
    assert kendall_trend([5, 4, 3, 2, 1], range(5)).verdict == "decreasing"
    flat = kendall_trend([0, 0, 0, 0, 0], range(5))
    assert (flat.test.p, flat.test.statistic, flat.verdict) == (1.0, 0.0, "no trend shown")


DIP = np.array([0.0, 2.0, 4.0, 3.0, 6.0, 8.0])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_dip_is_counted_and_shown(sign):
    """Five steps, the third against the trend by ten errors: a trend, one violation, and not a monotone curve."""
    noise = 0.2 * np.random.default_rng(4).normal(size=(12, 6))
    found = page_trend(sign * DIP + noise, [1, 2, 4, 8, 16, 32])
    assert found.verdict == ("increasing" if sign > 0 else "decreasing")
    assert found.violations == 1 and not found.monotone
    assert (found.violations_interval.low, found.violations_interval.high) == (1, 1)
    step = found.steps[2]
    assert (step.low_dose, step.high_dose) == (4, 8) and step.change == pytest.approx(-sign, abs=0.3)
    half = stats.t.ppf(1 - 0.025 / 5, 11) * np.diff(noise[:, 2:4]).std(ddof=1) / math.sqrt(12)
    assert step.interval.high - step.interval.low == pytest.approx(2 * half)
    same = np.where(np.arange(6) == 3, 5.0, DIP)
    assert page_trend(sign * same + noise).monotone
    groups = (sign * DIP + noise).ravel(), np.tile([1, 2, 4, 8, 16, 32], 12)
    independent = jonckheere_trend(*groups, draws=199)
    assert independent.verdict == found.verdict and independent.violations == 1
    welch = stats.ttest_ind(groups[0][groups[1] == 8], groups[0][groups[1] == 4], equal_var=False)
    ends = welch.confidence_interval(1 - 0.05 / 5)
    assert (independent.steps[2].interval.low, independent.steps[2].interval.high) == pytest.approx(tuple(ends))


def test_noise_leaves_the_number_of_violations_open():
    found = page_trend(np.random.default_rng(1).normal(size=(9, 6)))
    assert found.verdict == "no trend shown" and not found.monotone
    assert (found.violations_interval.low, found.violations_interval.high) == (0, 5)


def test_the_interval_of_violations_holds():
    """A curve with two true violations of five, noise as large as a step: held in at least 95 % of 200 sets, less
    three errors of a share of .95 (4.6 points)."""
    curve, rng = np.array([0.0, 1.0, 0.6, 2.0, 1.7, 3.0]), np.random.default_rng(7)
    found = [page_trend(curve + rng.normal(size=(10, 6))) for _ in range(200)]
    assert np.mean([2.0 in one.violations_interval for one in found]) >= 0.95 - 0.046
    assert np.mean([one.violations_interval.low == one.violations_interval.high for one in found]) < 0.5


def test_steps_without_spread_claim_nothing():
    """All items agree: the change is limited by the ends of the scale, where they are known, and else by nothing."""
    table = np.tile([0.0, 0.0, 1.0, 1.0], (12, 1))
    assert [one.interval.high for one in page_trend(table).steps] == [np.inf] * 3
    known = page_trend(table, bounds=(0, 1)).steps
    upper = known[0].interval.high
    assert known[0].interval.low == -upper and 0 < upper < 0.6 and known[1].interval.low == pytest.approx(1 - 2 * upper)
    assert page_trend(table[:1]).steps[0].interval.low == -np.inf
    assert jonckheere_trend([1, 2, 3, 4], [1, 2, 3, 3]).steps[0].interval.high == np.inf


def test_clusters_move_together():
    """Three copies of each item are one cluster: the same p as once each, where rows as if independent claim more."""
    table = np.random.default_rng(3).normal(size=(6, 4)) + 0.6 * np.arange(4)
    copies, names = np.repeat(table, 3, axis=0), np.repeat(list("abcdef"), 3)
    alone, clustered, forgotten = page_trend(table), page_trend(copies, clusters=names), page_trend(copies)
    assert clustered.test.p == alone.test.p and clustered.units == 6
    assert forgotten.test.p < alone.test.p / 5
    values, doses = np.repeat([3.0, 1, 4, 2, 5, 6], 2), np.repeat([1, 1, 2, 2, 3, 3], 2)
    found = jonckheere_trend(values, doses, np.repeat(range(6), 2))
    assert found.test.p == jonckheere_trend(values[::2], doses[::2]).test.p and found.units == 6


def test_rounding_breaks_no_tie():
    """A mean of 0.1 over three values and one over seven differ in the last bit, and are equal."""
    a, b = np.mean([0.1] * 3), np.mean([0.1] * 7)
    assert a != b, "else this shows nothing"
    for table in ([[a, b, 0.5]], [[b, a, 0.5]]):
        assert page_trend(table, tail="greater").test.p == page_trend([[0.1, 0.1, 0.5]], tail="greater").test.p
        assert kendall_trend(table[0], [1, 2, 3]).test.statistic == pytest.approx(2 / math.sqrt(6))
        assert jonckheere_trend(table[0], [1, 2, 3]).test.statistic == 2.5


def test_a_table_of_rows_averages_what_an_item_has():
    values, doses = [1.0, 3.0, 5.0, 7.0, 9.0, 2.0, 4.0], [8, 8, 16, 32, 32, 16, 8]
    items = ["a", "a", "a", "a", "b", "b", "b"]
    table, columns, names = dose_table(values, doses, items)
    assert names == ["a", "b"] and columns == (8, 16, 32) and table.tolist() == [[2, 5, 7], [4, 2, 9]]
    with pytest.raises(ValueError, match="1 of 2 items have no value at one of the 3 doses"):
        dose_table(values[:-1], doses[:-1], items[:-1])
    with pytest.raises(ValueError, match="7 values, 6 doses and 7 items"):
        dose_table(values, doses[:-1], items)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (lambda: page_trend([[1, 2, 3]], [1, 2, 2]), "not distinct"),
        (lambda: page_trend([[1, 2]], [1, 2]), "a trend needs 3 doses: 2 came"),
        (lambda: page_trend([[1, 2, 3]], [1, 2]), "2 doses for 3 values"),
        (lambda: page_trend([[1, np.nan, 3]]), "NaN"),
        (lambda: page_trend([1, 2, 3]), r"needs a table \[item, dose\]"),
        (lambda: jonckheere_trend([1, 2, 3], [1, 2]), "3 values and 2 doses"),
        (lambda: jonckheere_trend([1, 2, 3], [1, 2, 3], ["a", "a", "b"]), "paired: use page_trend"),
        (lambda: kendall_trend([1, 2, 3], [1, 1, 2]), "not distinct"),
    ],
)  # fmt: skip
def test_refusals(test, message):
    with pytest.raises(ValueError, match=message):
        test()


def page_counted(r):
    return page_trend(r.normal(size=(11, 6)), tail="greater").test.p


def page_drawn(r):
    return page_trend(
        r.gamma(1.0, size=(9, 9)) + r.normal(size=(9, 1)), draws=299, seed=int(r.integers(1 << 30))
    ).test.p


def page_of_clusters(r):
    names = np.repeat(np.arange(8), 3)
    values = r.normal(size=(8, 6))[names] + 0.5 * r.normal(size=(24, 6))
    return page_trend(values, clusters=names).test.p


def jonckheere_drawn(r):
    return jonckheere_trend(
        r.gamma(1.0, size=30), np.tile(range(5), 6), draws=299, seed=int(r.integers(1 << 30))
    ).test.p


def clusters_forgotten(r):
    return page_trend(np.repeat(r.normal(size=(8, 6)), 3, axis=0)).test.p


@pytest.mark.parametrize("test", [page_counted, page_drawn, page_of_clusters, jonckheere_drawn])
def test_p_is_uniform_under_the_null(test):
    p = [test(np.random.default_rng([11, draw])) for draw in range(200)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_the_check_can_fail():
    p = [clusters_forgotten(np.random.default_rng([11, draw])) for draw in range(200)]
    assert stats.kstest(p, "uniform").pvalue < 1e-4


def test_the_p_of_a_curve_is_exact():
    """Over all 120 orders of five values, the share with p at most p is p, for each p that occurs."""
    found = np.array([kendall_trend(list(order), range(5)).test.p for order in itertools.permutations(range(5))])
    for p in np.unique(found):
        assert (found <= p + 1e-12).mean() == pytest.approx(p)
