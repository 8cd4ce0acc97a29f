"""Statistics of few domains: exact p, shuffles that keep seeds together, predictions for what was left out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from workbench import statistics as st
from workbench.statistics import fitted_tests as tests
from workbench.statistics.best_of_features import ps_of_best
from workbench.statistics.exact_correlation import exact_correlation_ps, exact_correlation_test
from workbench.statistics.left_out import Candidate, candidates_of, left_out, one_left_out, pairs_left_out
from workbench.statistics.logistic import logistic_predictions
from workbench.statistics.reach import reach
from workbench.statistics.shuffles import clustered_correlation_test, shuffled_columns

rng = np.random.default_rng


@pytest.mark.parametrize("tail", ["greater", "less", "two-sided"])
@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_exact_p_is_the_share_of_all_orders(kind, tail):
    x, y = rng(0).normal(size=6), np.array([1.0, 1, 0, 2, 0, 5])  # with ties
    orders = np.array([st.correlation(x, np.array(each), kind) for each in itertools.permutations(y)])
    sign = -1 if tail == "less" else 1
    observed, null = sign * st.correlation(x, y, kind), sign * orders
    if tail == "two-sided":
        observed, null = abs(observed), np.abs(null)
    expected = np.mean(null >= observed - 1e-9)
    found = exact_correlation_test(x, y, kind, tail=tail)
    assert found.p == pytest.approx(expected, abs=1e-12) and found.exact and found.draws == math.factorial(6) - 1


def test_exact_p_of_eleven_domains_agrees_with_many_random_orders():
    x, y = rng(1).normal(size=(2, 11))
    y += 0.6 * x
    for kind in ("pearson", "spearman"):
        exact, drawn = exact_correlation_test(x, y, kind).p, st.correlation_test(x, y, kind, draws=40_000).p
        assert exact == pytest.approx(drawn, abs=4 * math.sqrt(drawn * (1 - drawn) / 40_000))
    assert exact_correlation_test(x, x).p == pytest.approx(2 / math.factorial(11))


def test_exact_p_of_many_orders_share_one_null():
    x, y = rng(2).normal(size=(2, 8))
    orders = rng(3).permuted(np.broadcast_to(y, (5, 8)), axis=1)
    alone = [exact_correlation_test(x, each, "pearson").p for each in orders]
    assert exact_correlation_ps(x, orders, "pearson") == pytest.approx(alone)
    with pytest.raises(ValueError, match="share no null"):
        exact_correlation_ps(x, np.stack([y, y + 1]))
    with pytest.raises(ValueError, match="at most 13"):
        exact_correlation_test(np.arange(14.0), np.arange(14.0))


def test_domains_are_shuffled_whole_and_their_seeds_stay_together():
    """Feature and outcome both differ by domain, unrelated: rows as points find too much, whole domains do not."""
    names, naive, whole = np.repeat(np.arange(8), 3), [], []
    for draw in range(150):
        r = rng([4, draw])
        x = r.normal(size=8)[names] + 0.1 * r.normal(size=24)
        y = r.normal(size=8)[names] + 0.1 * r.normal(size=24)
        naive.append(st.correlation_test(x, y, draws=199, seed=draw).p)
        whole.append(clustered_correlation_test(x, y, names, draws=199, seed=draw).p)
    assert np.mean(np.array(naive) < 0.05) > 0.15  # the meta-test: pseudo-replication shows
    assert np.mean(np.array(whole) < 0.05) <= 0.09 and stats.kstest(whole, "uniform").pvalue > 0.01


def test_shuffles_of_whole_clusters_are_those_of_a_naive_twin():
    names = [2, 0, 1, 0, 2, 1, 3, 3]
    x, y = rng(5).normal(size=(2, 8))
    blocks = {name: [i for i, each in enumerate(names) if each == name] for name in dict.fromkeys(names)}
    null = []
    for order in itertools.permutations(blocks):
        dealt = np.empty(8)
        for own, other in zip(blocks, order, strict=True):
            dealt[blocks[own]] = y[blocks[other]]
        null.append(st.correlation(x, dealt, "pearson"))
    found = clustered_correlation_test(x, y, names, "pearson", tail="greater")
    assert found.exact and found.p == pytest.approx(np.mean(np.array(null) >= null[0] - 1e-9))
    with pytest.raises(ValueError, match="1 to 2 rows"):
        clustered_correlation_test(x[:7], y[:7], names[:7])


def test_shuffled_columns_begin_with_the_observed_order():
    columns, exact = shuffled_columns([3.0, 1.0, 2.0], draws=10)
    assert exact and columns.shape == (3, 6) and columns[:, 0].tolist() == [3, 1, 2]
    columns, exact = shuffled_columns(np.arange(9.0), draws=10)
    assert not exact and columns.shape == (9, 11) and (np.sort(columns, axis=0) == np.arange(9.0)[:, None]).all()


def refit(x, y, asked, candidate):
    """Ridge by its normal equations with a column of ones, the naive way."""
    middle, spread = x[:, candidate.columns].mean(0), x[:, candidate.columns].std(0)
    z, z_asked = (x[:, candidate.columns] - middle) / spread, (asked[:, candidate.columns] - middle) / spread
    ones = np.column_stack([np.ones(len(z)), z])
    penalty = candidate.penalty * len(z) * np.diag([0.0] + [1.0] * z.shape[1])
    weights = np.linalg.solve(ones.T @ ones + penalty, ones.T @ y)
    return weights[0] + z_asked @ weights[1:]


@pytest.mark.parametrize("folds", [one_left_out(7), pairs_left_out(7)], ids=["one", "pairs"])
def test_predictions_for_what_was_left_out_are_those_of_naive_refits(folds):
    x, y = rng(6).normal(size=(7, 3)), rng(7).normal(size=(7, 4))
    y[:, 0] += 3 * x[:, 1]
    candidates = candidates_of(3, most=2, penalties=(0.1, 1.0))
    found = left_out(x, y, folds, candidates, new=x[:2] + 1)
    for place, fold in enumerate(folds):
        rest = [i for i in range(7) if i not in fold]
        for column in range(4):
            errors = []
            for candidate in candidates:
                fits = [_without(x[rest], y[rest, column], i, candidate) for i in range(len(rest))]
                errors.append(sum(each**2 for each in fits))
            best = candidates[int(np.argmin(errors))]
            asked = np.concatenate([x[list(fold)], x[:2] + 1])
            assert candidates[found.chosen[place, column]] == best
            assert found.predicted[place, :, column] == pytest.approx(refit(x[rest], y[rest, column], asked, best))


def _without(x, y, i, candidate):
    """The error on row i of a ridge without it, features on the scale of all rows."""
    columns, others = list(candidate.columns), [j for j in range(len(y)) if j != i]
    z = x[:, columns] / x[:, columns].std(0)
    ones = np.column_stack([np.ones(len(z)), z - z[others].mean(0)])
    penalty = candidate.penalty * len(y) * np.diag([0.0] + [1.0] * len(columns))
    kept = ones[others]
    return y[i] - ones[i] @ np.linalg.solve(kept.T @ kept + penalty, kept.T @ y[others])


def test_candidates_are_few_and_the_mean_alone_is_one_of_them():
    assert len(candidates_of(4, most=2)) == (4 + 6) * 2
    with pytest.raises(ValueError, match="expected 1 to 500"):
        candidates_of(40, most=2)
    x, y = rng(8).normal(size=(5, 1)), rng(9).normal(size=(5, 1))
    mean = left_out(x, y, one_left_out(5), [Candidate((), 1.0)]).predicted[:, 0, 0]
    assert mean == pytest.approx([(y.sum() - own) / 4 for own in y[:, 0]])
    flat = left_out(np.ones((5, 1)), y, one_left_out(5), [Candidate((0,), 1.0)]).predicted[:, 0, 0]
    assert flat == pytest.approx(mean)  # a feature without spread predicts nothing


def test_logistic_fits_are_those_of_scikit_learn():
    r = rng(10)
    x = r.normal(size=(3, 9, 2)) * np.array([1.0, 50.0])
    labels = np.stack([r.permutation([1.0] * each + [0.0] * (9 - each)) for each in (2, 4, 6)])
    labels[2] = (x[2, :, 0] > 0).astype(float)  # perfectly separable: only the penalty keeps it finite
    found = logistic_predictions(x, labels, x, 0.3)
    for fit in range(3):
        z = (x[fit] - x[fit].mean(0)) / x[fit].std(0)
        oracle = LogisticRegression(C=1 / (0.3 * 9), tol=1e-10, max_iter=1000).fit(z, labels[fit])
        assert found[fit] == pytest.approx(oracle.decision_function(z), abs=1e-4)
    with pytest.raises(ValueError, match="one label only"):
        logistic_predictions(x, np.ones((3, 9)), x, 0.3)


def test_half_is_no_yardstick_for_what_was_left_out():
    """Under the null, AUROCs of predictions for one unit left out lie far below 0.5; of pairs left out they do not."""
    x, labels = rng(11).normal(size=(11, 1)), np.array([1.0] * 5 + [0.0] * 6)
    columns, exact = tests.shuffled_labels(labels)
    assert exact and columns.shape == (11, math.comb(11, 5)) and (columns[:, 0] == labels).all()
    plain = [Candidate((0,), 1e-6)]
    predicted = left_out(x, columns, one_left_out(11), plain).predicted[:, 0]
    single = [st.auroc(p[c == 1], p[c == 0]) for p, c in zip(predicted.T, columns.T, strict=True)]
    assert np.mean(single) < 0.35
    assert 0.4 < np.mean(tests.left_out_aurocs(x, columns, columns, plain)) < 0.6
    assert np.mean(tests.left_out_skills(x, columns, plain)) < -0.05


def test_left_out_aurocs_are_those_of_a_naive_twin():
    x, y = rng(12).normal(size=(6, 2)), rng(13).normal(size=(6, 3))
    marked = (y > 0).astype(float)
    candidates = candidates_of(2)
    logistic = tests.left_out_log_odds(x, marked, pairs_left_out(6), candidates)
    ridge = tests.left_out_aurocs(x, y, marked, candidates)
    for column in range(3):
        wins = []
        for place, (i, j) in enumerate(pairs_left_out(6)):
            if marked[i, column] != marked[j, column]:
                high, low = (i, j) if marked[i, column] else (j, i)
                made = left_out(x, y[:, [column]], [(high, low)], candidates).predicted[0, :, 0]
                wins.append(made[0] > made[1])
                assert np.isfinite(logistic[place, :, column]).all()
        assert ridge[column] == pytest.approx(np.mean(wins))
    with pytest.raises(ValueError, match="2 units of each label"):
        tests.logistic_skills(x, np.eye(6)[:, :1], candidates)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_looking_at_many_features_costs(kind):
    """Twenty features of noise, three without a sign: the best has a small p of its own, not of the best."""
    best, own, signs = [], [], np.repeat([1, -1, 0], (10, 7, 3))
    for draw in range(100):
        x, y = rng([14, draw]).normal(size=(11, 20)), rng([15, draw]).normal(size=11)
        best.append(ps_of_best(x, y, signs, kind, draws=99, seed=draw).min())
        own.append(min(ps_of_best(x[:, [i]], y, signs[[i]], kind, draws=99, seed=draw)[0] for i in range(6)))
    assert np.mean(np.array(own) < 0.05) > 0.15 and np.mean(np.array(best) < 0.05) <= 0.1
    x[:, 12] = -y
    assert ps_of_best(x, y, signs, kind, draws=99)[12] == 0.01 and ps_of_best(x, y, -signs, kind, draws=99)[12] == 1


def test_what_few_domains_can_show():
    found = reach(11, 20)
    assert found.critical == pytest.approx(0.602, abs=1e-3) and found.critical_of_all > 0.8
    assert found.highest_level == pytest.approx(10 / 11) and found.needed_for_half == 30
    assert 0.75 < found.found_mostly < 0.76
    assert "|r| must exceed 0.60" in str(found) and "90.9%" in str(found)
    assert [round(reach(n).critical, 2) for n in (11, 10, 9)] == [0.6, 0.63, 0.67]
