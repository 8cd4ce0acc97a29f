"""Paired comparisons: under the null each pair's difference, or each cluster's, could as well have the other sign."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import special

from workbench.statistics.clusters import Clusters, cluster_means
from workbench.statistics.permutation import Significance, p_value
from workbench.statistics.values import Tail, finite, known_tail


def sign_flip_null(
    differences: ArrayLike, clusters: Clusters | None = None, *, draws: int = 9999, seed: int = 0
) -> Float[np.ndarray, " draw"]:
    """Null of a mean paired difference: the mean after a random sign for each pair (for each cluster, when given)."""
    values = finite(differences, "differences")
    means = values if clusters is None else cluster_means(values, clusters)
    return random_signs(len(means), draws, seed) @ means / len(means)


def sign_flip_test(
    differences: ArrayLike,
    clusters: Clusters | None = None,
    *,
    tail: Tail = "two-sided",
    draws: int = 9999,
    seed: int = 0,
) -> Significance:
    """Is a mean paired difference 0? Signs are flipped pair by pair, or cluster by cluster where given.

    All 2^n sign patterns are counted when there are at most `draws` + 1 (n up to 13 with the default). Five clusters
    have 32 patterns: no two-sided p below 1/16 can come out, whatever the effect.
    """
    values = finite(differences, "differences")
    means = values if clusters is None else cluster_means(values, clusters)
    n = len(means)
    if not n:
        raise ValueError("sign_flip_test needs at least one difference: none came.")
    exact = n < 63 and 2**n <= draws + 1
    signs = all_signs(n) if exact else random_signs(n, draws, seed)
    observed = float(means.mean())
    units = "pairs" if clusters is None else "clusters"
    method = f"sign flips of {n} {units}, {'all' if exact else 'random'} {len(signs) + exact} patterns"
    return Significance(observed, p_value(observed, signs @ means / n, tail), method, len(signs), exact)


def sign_test(wins: int, n: int, tail: Tail = "two-sided") -> Significance:
    """Exact binomial p of `wins` in `n` comparisons under even odds; leave ties out of both, and say how many.

    Statistic: wins / n. 7 of 9 gives p = 0.18, two-sided; with n comparisons the least two-sided p is 2 / 2^n.
    """
    known_tail(tail)
    if n < 1 or not 0 <= wins <= n:
        raise ValueError(f"sign_test({wins}, {n}): expected 0 <= wins <= n and n >= 1.")
    at_most, at_least = float(special.bdtr(wins, n, 0.5)), float(special.bdtr(n - wins, n, 0.5))
    p = {"less": at_most, "greater": at_least, "two-sided": min(1.0, 2 * min(at_most, at_least))}[tail]
    return Significance(wins / n, p, f"sign test, {wins} of {n}")


def all_signs(n: int) -> Float[np.ndarray, "draw n"]:
    """Every pattern of signs but the observed one (all plus), which `p_value` adds."""
    return np.array(list(itertools.product((1.0, -1.0), repeat=n)))[1:]


def random_signs(n: int, draws: int, seed: int) -> Float[np.ndarray, "draw n"]:
    return np.random.default_rng(seed).integers(0, 2, size=(draws, n)) * 2.0 - 1.0
