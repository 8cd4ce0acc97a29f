"""p values by permutation: (1 + draws at least as extreme) / (1 + N), never 0, the floor said."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from workbench.statistics.clusters import Clusters, cluster_means
from workbench.statistics.values import Tail, finite, known_tail

DRAWS_FOR_P = 99  # fewer draws than this may be drawn in a figure, but carry no printed p


@dataclass(frozen=True)
class Significance:
    """A statistic and its p. `draws` is the number of draws of the null beside the observed value, None for a formula;
    `exact` means that they are all there are, so that p is no estimate."""

    statistic: float
    p: float
    method: str
    draws: int | None = None
    exact: bool = False

    @property
    def floor(self) -> float:
        """The least p that this test could have given; 0 for a formula."""
        return 0.0 if self.draws is None else 1 / (1 + self.draws)

    def __str__(self) -> str:
        if self.draws is None:
            return f"p = {self.p:.2g} ({self.method})"
        return f"p {format_p(self.p, self.draws, exact=self.exact)} ({self.method})"


def p_value(observed: float | int, null: ArrayLike, tail: Tail = "greater") -> float:
    """Permutation p of `observed` among N draws of the null: (1 + draws at least as extreme) / (1 + N), never 0.

    `two-sided` measures extremeness as the distance from the mean of all N + 1 values, which treats the observed value
    and the draws alike, so the test stays exact. Source: Phipson & Smyth 2010, doi:10.2202/1544-6115.1585.
    """
    draws, value = finite(null, "null"), float(finite([observed], "observed")[0])
    known_tail(tail)
    if not len(draws):
        raise ValueError("p_value needs at least one draw of the null: none came.")
    if tail == "two-sided":
        centre = (draws.sum() + value) / (len(draws) + 1)
        value, draws = abs(value - centre), np.abs(draws - centre)
    elif tail == "less":
        value, draws = -value, -draws
    # Equal up to rounding counts as at least as extreme: a tie must never make p smaller.
    slack = 1e-12 * max(abs(value), float(np.abs(draws).max()))
    return float((1 + np.count_nonzero(draws >= value - slack)) / (1 + len(draws)))


def format_p(p: float, draws: int, *, exact: bool = False) -> str:
    """p as text: "≤ 1/100" at the floor of 99 draws, "= 0.034" above it; fewer than 99 draws carry no printed p.

    `exact`: all patterns were counted, so the floor is no matter of draws, and p is stated however few they are.
    """
    if draws < DRAWS_FOR_P and not exact:
        return f"not stated ({draws} draws; a p needs at least {DRAWS_FOR_P})"
    if p <= (1 + 1e-9) / (draws + 1):
        return f"= 1/{draws + 1}, the least possible" if exact else f"≤ 1/{draws + 1}"
    return f"= {p:.2g}"


def permutation_null(a: ArrayLike, b: ArrayLike, *, draws: int = 9999, seed: int = 0) -> Float[np.ndarray, " draw"]:
    """Null of mean(a) - mean(b) for two independent groups: the difference after the group labels are shuffled."""
    a, b = finite(a, "a"), finite(b, "b")
    rng, pooled = np.random.default_rng(seed), np.concatenate([a, b])
    first = np.array([rng.permutation(pooled)[: len(a)].sum() for _ in range(draws)])
    return first / len(a) - (pooled.sum() - first) / len(b)


def permutation_test(
    a: ArrayLike,
    b: ArrayLike,
    clusters_a: Clusters | None = None,
    clusters_b: Clusters | None = None,
    *,
    tail: Tail = "two-sided",
    draws: int = 9999,
    seed: int = 0,
) -> Significance:
    """Do two independent groups have one distribution? Statistic: mean(a) - mean(b), of cluster means where given.

    Labels are shuffled over rows, or over whole clusters. All splits are counted when there are at most `draws` + 1.
    A cluster on both sides is a pair, and pairs are not independent: refused, use `sign_flip_test`.
    """
    if clusters_a is not None or clusters_b is not None:
        if clusters_a is None or clusters_b is None:
            raise ValueError("permutation_test: clusters came for one group only; expected clusters_a and clusters_b.")
        both = set(clusters_a) & set(clusters_b)
        if both:
            raise ValueError(
                f"permutation_test: {len(both)} clusters are in both groups, so the groups are paired. Test the "
                "differences within clusters with sign_flip_test."
            )
        a, b = cluster_means(a, clusters_a), cluster_means(b, clusters_b)
    a, b = finite(a, "a"), finite(b, "b")
    if not len(a) or not len(b):
        raise ValueError(f"permutation_test needs both groups: {len(a)} and {len(b)} values came.")
    observed, patterns = float(a.mean() - b.mean()), math.comb(len(a) + len(b), len(a))
    exact = 1 < patterns <= draws + 1
    null = _all_splits(a, b) if exact else permutation_null(a, b, draws=draws, seed=seed)
    units = "values" if clusters_a is None else "clusters"
    method = f"permutation of {len(a)} + {len(b)} {units}, {'all' if exact else 'random'} {len(null) + exact} patterns"
    return Significance(observed, p_value(observed, null, tail), method, len(null), exact)


def _all_splits(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> Float[np.ndarray, " draw"]:
    """The difference under every split of the pooled values but the observed one, which `p_value` adds."""
    pooled = np.concatenate([a, b])
    chosen = np.array(list(itertools.combinations(range(len(pooled)), len(a))))[1:]  # the first is the observed split
    first = pooled[chosen].sum(axis=1)
    return first / len(a) - (pooled.sum() - first) / len(b)
