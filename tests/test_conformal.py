"""Intervals for one new domain, and the skill of a forecast: their coverage, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench.statistics.conformal import highest_level, jackknife_interval, least_units
from workbench.statistics.left_out import candidates_of, left_out, one_left_out
from workbench.statistics.skill import left_out_skill, skill_interval


def drawn(seed, n, k, share):
    """Units whose outcome follows the first feature with this correlation; skewed errors."""
    r = np.random.default_rng(seed)
    x = r.normal(size=(n, k))
    return x, share * x[:, 0] + np.sqrt(1 - share**2) * (r.exponential(size=n) - 1)


def test_interval_ends_are_order_statistics():
    predicted, errors = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, -0.1, 2.0, 0.3])
    found = jackknife_interval(predicted, errors, 0.6)  # the 3rd of 4 from either end: ceil(.6 * 5) = 3
    assert (found.low, found.high) == (sorted([0.5, 1.9, 1.0, 3.7])[1], sorted([1.5, 2.1, 5.0, 4.3])[2])
    wide = jackknife_interval(predicted, errors, 0.6, "minmax")
    assert (wide.low, wide.high) == (1.0 - 0.5, 4.0 + 0.5)


def test_few_units_cannot_promise_much():
    assert [least_units(level) for level in (0.8, 0.9, 0.95)] == [4, 9, 19]
    assert highest_level(10) == pytest.approx(0.909, abs=1e-3)
    for n in (9, 10):
        assert np.isfinite(jackknife_interval(np.zeros(n), np.ones(n), 0.9).high)
    none = jackknife_interval(np.zeros(8), np.ones(8), 0.9)
    assert np.isinf([none.low, none.high]).all() and "at least 9" in none.method
    with pytest.raises(ValueError, match="one error a prediction"):
        jackknife_interval(np.zeros(3), np.zeros(2))


@pytest.mark.parametrize(("n", "k", "share", "level"), [(10, 3, 0.8, 0.8), (10, 1, 0.0, 0.9)])
def test_intervals_hold_a_new_unit_as_often_as_they_say(n, k, share, level):
    """200 populations, chosen features included; the guarantee of jackknife+ is 2 * level - 1, of minmax the level."""
    held = {"jackknife+": 0, "minmax": 0}
    for seed in range(200):
        x, y = drawn([1, seed], n + 1, k, share)
        made = left_out(x[:n], y[:n, None], one_left_out(n), candidates_of(k), x[n:]).predicted[:, :, 0]
        for method in held:
            held[method] += y[n] in jackknife_interval(made[:, 1], y[:n] - made[:, 0], level, method)
    error = 3 * np.sqrt(level * (1 - level) / 200)
    assert level - 0.04 - error < held["jackknife+"] / 200 < level + 0.06 + error
    assert held["minmax"] / 200 > level - error and held["minmax"] > held["jackknife+"]


def test_skill_and_the_skills_without_each_unit_are_those_of_a_naive_twin():
    x, y = drawn([2, 0], 6, 2, 0.9)
    candidates, found = candidates_of(2), left_out_skill(*drawn([2, 0], 6, 2, 0.9), candidates_of(2))

    def skill(rows):
        off = [y[i] - _foretold(x, y, [j for j in rows if j != i], i, candidates) for i in rows]
        mean = [y[i] - np.mean([y[j] for j in rows if j != i]) for i in rows]
        return 1 - np.sum(np.square(off)) / np.sum(np.square(mean))

    assert found.value == pytest.approx(skill(range(6)))
    assert found.without == pytest.approx([skill([j for j in range(6) if j != i]) for i in range(6)])
    logs = np.log(1 - found.without)
    error = np.sqrt(5 / 6 * np.sum((logs - logs.mean()) ** 2))
    assert np.log((1 - found.interval().low) / (1 - found.value)) == pytest.approx(stats.t.ppf(0.975, 5) * error)
    with pytest.raises(ValueError, match="never off"):
        left_out_skill(x, np.ones(6), candidates)
    assert skill_interval(1.0, np.ones(6)).low == -np.inf


def _foretold(x, y, rows, i, candidates):
    here = np.concatenate([x[rows], x[[i]]])
    return left_out(here, np.append(y[rows], 0.0)[:, None], [(len(rows),)], candidates).predicted[0, 0, 0]


@pytest.mark.parametrize("share", [0.0, 0.8])
def test_interval_of_the_skill_holds_the_skill_of_the_procedure(share):
    """Truth: the skill from the mean squared errors of all populations drawn. Declared: 85 % or more of 95 % stated."""
    own, of_mean, found = [], [], []
    for seed in range(120):
        x, y = drawn([3, seed], 11, 2, share)
        made = left_out_skill(x, y, candidates_of(2, penalties=(0.1,)))
        spread = np.sum(((y - y.mean()) * 11 / 10) ** 2)
        own.append((1 - made.value) * spread)
        of_mean.append(spread)
        found.append(made.interval())
    truth = 1 - np.mean(own) / np.mean(of_mean)
    assert np.mean([truth in each for each in found]) >= 0.85
