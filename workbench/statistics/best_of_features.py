"""The p of the best of several correlations: what it costs to look at many features of few units."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from workbench.statistics.correlation import Kind
from workbench.statistics.permutation import p_value
from workbench.statistics.values import finite, midranks


def ps_of_best(
    x: Float[np.ndarray, "n k"],
    y: ArrayLike,
    signs: ArrayLike,
    kind: Kind = "spearman",
    *,
    draws: int = 9999,
    seed: int = 0,
) -> Float[np.ndarray, " k"]:
    """For each feature the share of shuffles of y in which the *best* of all features does as well as it does.

    A feature counts by its correlation times its sign (1, -1), or by |r| where its sign is 0. The chance that any of
    unrelated features has a p below 5 % is then 5 %. Source: Westfall & Young 1993, single-step maximum statistic.
    """
    values, given = finite(y, "y"), np.asarray(signs, np.float64)[:, None]
    if kind == "spearman":
        x, values = np.stack([midranks(column) for column in x.T], axis=1), midranks(values)
    columns, values = (x - x.mean(axis=0)).T, values - values.mean()
    columns = columns / np.linalg.norm(columns, axis=1, keepdims=True)
    drawn = np.random.default_rng(seed).permuted(np.broadcast_to(values, (draws, len(values))), axis=1)
    r = columns @ np.concatenate([values[None], drawn]).T
    directed = np.where(given == 0, np.abs(r), given * r)
    best = directed[:, 1:].max(axis=0)
    return np.array([p_value(float(own), best) for own in directed[:, 0]])
