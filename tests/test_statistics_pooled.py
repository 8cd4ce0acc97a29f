"""pooled_interval against the t interval of cluster means, and against simulated coverage."""

import numpy as np
import pytest

from workbench.statistics import t_interval
from workbench.statistics.pooled import pooled_interval


def test_clusters_of_one_size_give_the_t_interval_of_their_means():
    values = np.random.default_rng(0).normal(size=(7, 3))
    found = pooled_interval(values.ravel(), np.repeat(np.arange(7), 3))
    expected = t_interval(values.mean(axis=1))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_every_row_weighs_the_same():
    found = pooled_interval([1.0, 1.0, 1.0, 5.0, 2.0], ["a", "a", "a", "b", "c"])
    assert (found.low + found.high) / 2 == pytest.approx(2.0)
    off = np.array([3 * (1 - 2.0), 5 - 2.0, 2 - 2.0])
    assert found.high - 2.0 == pytest.approx(4.302653 * np.sqrt((off**2).sum() * 3 / 2) / 5, rel=1e-6)


def test_coverage_with_clusters_of_several_sizes():
    rng, sizes, inside = np.random.default_rng(1), np.array([1, 2, 3, 5, 8] * 4), 0
    names = np.repeat(np.arange(len(sizes)), sizes)
    for _ in range(600):
        values = np.repeat(rng.normal(size=len(sizes)), sizes) + rng.normal(size=len(names))
        inside += 0.0 in pooled_interval(values, names)
    assert 0.915 < inside / 600 < 0.975


def test_bounds_cut_it_and_equal_values_are_no_certainty():
    found = pooled_interval([90.0, 100.0, 100.0], ["a", "b", "c"], bounds=(0.0, 100.0))
    assert found.high == 100.0
    same = pooled_interval([0.0, 0.0, 0.0], ["a", "b", "c"], bounds=(0.0, 100.0))
    assert same.low == 0.0 and same.high > 30
    with pytest.raises(ValueError, match="1 came"):
        pooled_interval([1.0, 2.0], ["a", "a"])
