"""Shuffled outcomes: whole clusters are permuted, and rows of one cluster stay together."""

from __future__ import annotations

import itertools
import math

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from workbench.statistics.clusters import Clusters, cluster_index
from workbench.statistics.correlation import Kind, correlation
from workbench.statistics.permutation import Significance, p_value
from workbench.statistics.values import Tail, finite, midranks


def shuffled_columns(y: ArrayLike, *, draws: int = 999, seed: int = 0) -> tuple[Float[np.ndarray, "n column"], bool]:
    """`y` in its own order as column 0, then in other orders; and whether these are all the other orders there are
    (n! - 1 <= draws), else `draws` random ones. One value must be one independent unit."""
    values = finite(y, "y")
    if draws < 1:
        raise ValueError(f"draws={draws}: expected at least 1 shuffle, and 99 for a printed p.")
    if math.factorial(min(len(values), 20)) - 1 <= draws:
        orders = np.array(list(itertools.permutations(range(len(values)))))
        return values[orders].T, True
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.broadcast_to(values, (draws, len(values))), axis=1)
    return np.concatenate([values[None], drawn]).T, False


def clustered_correlation_test(
    x: ArrayLike,
    y: ArrayLike,
    clusters: Clusters,
    kind: Kind = "spearman",
    *,
    tail: Tail = "two-sided",
    draws: int = 9999,
    seed: int = 0,
) -> Significance:
    """Are x and y unrelated, when the rows of a cluster (the fine-tuning seeds of a domain) belong together?

    r is that of all rows; a shuffle gives each cluster the y of another whole cluster, its rows in their order, so n is
    the number of clusters. Row i of a cluster stands for the same seed in all of them. Raises ValueError for clusters
    of different sizes: average each of them first, with `cluster_means`, and use `exact_correlation_test`.
    """
    a, b = finite(x, "x"), finite(y, "y")
    observed = correlation(a, b, kind)
    index = cluster_index(clusters, len(b))
    sizes = np.bincount(index)
    if len(set(sizes.tolist())) > 1:
        raise ValueError(
            f"clustered_correlation_test: clusters have {sizes.min()} to {sizes.max()} rows, so they cannot be "
            "exchanged. Average the rows of each: exact_correlation_test(cluster_means(x, c), cluster_means(y, c))."
        )
    order = np.argsort(index, kind="stable")
    a, b = (midranks(a), midranks(b)) if kind == "spearman" else (a, b)
    a, b = a[order] - a.mean(), (b[order] - b.mean()).reshape(len(sizes), -1)
    columns, exact = shuffled_columns(np.arange(len(sizes)), draws=draws, seed=seed)
    null = b[columns.T.astype(np.intp)].reshape(columns.shape[1], -1) @ a / (np.linalg.norm(a) * np.linalg.norm(b))
    shuffled = f"{'all' if exact else 'random'} {columns.shape[1] - (not exact)} orders of {len(sizes)} clusters"
    method = f"{kind} over {len(b.ravel())} rows, {shuffled}"
    return Significance(observed, p_value(observed, null[1:], tail), method, len(null) - 1, exact)
