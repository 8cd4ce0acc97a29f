"""Under a simulated null the p of every test is uniform: Kolmogorov-Smirnov p > .01 over 200 draws.

The sign test has few outcomes, so its p is randomised: between this outcome's and the next one's, at random, which is
exactly uniform when both are right. All others have enough patterns that steps of p are far below the bound of .115.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench import statistics as st

DRAWS = 200


def rng(seed: int, draw: int) -> np.random.Generator:
    return np.random.default_rng([seed, draw])


def sign_flips(r):
    """Eleven prompts of three skewed answers each: symmetric differences under the null."""
    names = np.repeat(np.arange(11), 3)
    return st.sign_flip_test(r.gamma(1.0, size=11)[names] * r.choice([-1, 1], 11)[names] + r.normal(size=33), names).p


def sign_flips_drawn(r):
    return st.sign_flip_test(r.normal(size=23), tail="greater", draws=499, seed=int(r.integers(1 << 30))).p


def permuted(r):
    names = np.repeat(np.arange(13), 2)
    values = r.gamma(1.0, size=13)[names] + r.normal(size=26)
    return st.permutation_test(values[:14], values[14:], names[:14], names[14:]).p


def permuted_drawn(r):
    seed = int(r.integers(1 << 30))
    return st.permutation_test(r.gamma(1.0, size=15), r.gamma(1.0, size=17), tail="less", draws=299, seed=seed).p


def sign_counted(r):
    wins = int(r.binomial(25, 0.5))
    here = st.sign_test(wins, 25, "greater").p
    further = st.sign_test(wins + 1, 25, "greater").p if wins < 25 else 0.0
    return further + r.uniform() * (here - further)


def best_of_sweep(r):
    """The least corrected p of 5 layers x 3 coefficients that share half of their noise."""
    runs = r.normal(size=(200, 5, 3)) + r.normal(size=(200, 1, 1))
    return st.max_statistic(runs[0], runs[1:]).min()


def best_of_paired_sweep(r):
    cells = r.normal(size=(11, 5, 3)) * np.array([1.0, 10.0, 100.0]) + r.normal(size=(11, 1, 1))
    return st.max_sign_flip_test(cells).min()


def rank_correlation(r):
    return st.correlation_test(r.normal(size=8), r.gamma(1.0, size=8)).p


def drawn_correlation(r):
    seed = int(r.integers(1 << 30))
    return st.correlation_test(r.gamma(1.0, size=11), r.normal(size=11), "pearson", draws=299, seed=seed).p


def exact_correlation(r):
    return st.correlation_test(r.gamma(1.0, size=7), r.normal(size=7), "pearson", tail="greater").p


def at_the_margin(r):
    """TOST's p is uniform where the truth is the margin itself (the other margin is far away)."""
    return st.tost(r.normal(1.0, 0.3, size=11), (-9, 1)).p_equivalent


def at_the_margin_of_two_groups(r):
    return st.tost_independent(r.normal(1.0, 0.4, size=19), r.normal(0.0, 0.2, size=23), (-9, 1)).p_equivalent


def different(r):
    return st.tost(r.normal(size=7), 1.0).p_different


def simes(r):
    """The least Benjamini-Hochberg p of independent tests is uniform when all nulls hold."""
    return st.benjamini_hochberg(r.uniform(size=13)).min()


UNIFORM = (
    *(sign_flips, sign_flips_drawn, permuted, permuted_drawn, sign_counted, best_of_sweep, best_of_paired_sweep),
    *(rank_correlation, drawn_correlation, exact_correlation),
    *(at_the_margin, at_the_margin_of_two_groups, different, simes),
)


def p_values(test, seed: int) -> np.ndarray:
    return np.array([test(rng(seed, draw)) for draw in range(DRAWS)])


@pytest.mark.parametrize("seed", range(len(UNIFORM)), ids=[test.__name__ for test in UNIFORM])
def test_p_is_uniform_under_the_null(seed):
    assert stats.kstest(p_values(UNIFORM[seed], seed), "uniform").pvalue > 0.01


def rows_as_if_independent(r):
    """What the clustered tests guard against: 11 prompts of 8 answers, each answer taken for a pair of its own."""
    names = np.repeat(np.arange(11), 8)
    return st.sign_flip_test(r.normal(size=11)[names] + r.normal(size=88), draws=199).p


def test_the_check_can_fail():
    assert stats.kstest(p_values(rows_as_if_independent, 99), "uniform").pvalue < 1e-4


def test_holm_keeps_the_family():
    """At most one in ten families of 13 true nulls has a Holm p of .1 or less: 200 families, 3 errors of .021."""
    families = np.random.default_rng(100).uniform(size=(DRAWS, 13))
    assert np.mean([st.holm(family).min() <= 0.1 for family in families]) <= 0.1 + 0.064
