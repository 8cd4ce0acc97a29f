"""How varied a set of vectors is: Vendi scores of any order, mean distance, and their intervals over the vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from workbench.statistics.intervals import Interval, t_quantile

Kernel = Literal["shifted", "cosine"]
Vectors = Float[np.ndarray, "n d"]
ORDERS = (0.5, 1.0, 2.0, math.inf)


def vendi_scores(
    vectors: Vectors, orders: Sequence[float | int] = ORDERS, kernel: Kernel = "shifted"
) -> Float[np.ndarray, " order"]:
    """The effective number of different vectors, 1 (all alike) to n (all unlike), one score an order.

    exp of the Rényi entropy of the eigenvalues of K / n: order 1 is exp of Shannon's, infinity 1 / the largest
    eigenvalue; the higher the order, the less rare vectors count. K is the cosine similarity ("cosine": 1 to n, the
    original's), or (cosine + 1) / 2 ("shifted", as in arXiv:2602.00298: never negative, and at most about 4 at order 2,
    since unrelated vectors count as half alike). A score grows with n: compare sets of one size only.
    Source: Friedman & Dieng 2023, arXiv:2210.02410; orders: Pasarkar & Dieng 2024, arXiv:2310.12952.
    """
    unit = normalised(vectors)
    if kernel == "shifted":
        # (cos + 1) / 2 is the dot product of the unit vectors with one constant coordinate more.
        unit = np.concatenate([unit, np.ones((len(unit), 1))], axis=1) / math.sqrt(2)
    elif kernel != "cosine":
        raise ValueError(f"kernel={kernel!r} is unknown: expected 'shifted' or 'cosine'.")
    gram = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    shares = np.clip(np.linalg.eigvalsh(gram) / len(unit), 0.0, None)
    shares = shares[shares > 1e-12] / shares.sum()
    return np.array([_effective_number(shares, float(order)) for order in orders])


def mean_distance(vectors: Vectors) -> float:
    """1 - the mean cosine of two different vectors of the set: 0 all alike, 1 unrelated. Its mean does not depend on
    how many vectors there are."""
    unit, n = normalised(vectors), len(vectors)
    if n < 2:
        raise ValueError(f"a mean distance needs 2 vectors or more: {n} came.")
    total = unit.sum(axis=0)
    return float(1 - (total @ total - n) / (n * (n - 1)))


def at_size(
    vectors: Vectors, score: Callable[[Vectors], np.ndarray], size: int, *, draws: int = 20, seed: int = 0
) -> Float[np.ndarray, " score"]:
    """The mean of `score` over subsets of `size` vectors; all of them at once where there are just that many."""
    n = len(vectors)
    if not 2 <= size <= n:
        raise ValueError(f"size={size}: expected 2 to the number of vectors, {n}.")
    if size == n:
        return score(vectors)
    rng = np.random.default_rng(seed)
    return np.mean([score(vectors[rng.permutation(n)[:size]]) for _ in range(draws)], axis=0)


def half_sample_intervals(
    vectors: Vectors,
    score: Callable[[Vectors], np.ndarray],
    values: Float[np.ndarray, " score"],
    size: int,
    *,
    level: float = 0.95,
    draws: int = 100,
    seed: int = 0,
) -> list[Interval]:
    """Intervals of `values`, the scores at `size` vectors, over the vectors as a sample: t on a logarithmic scale.

    The error is the spread of the scores of random subsets of size / 2, scaled to all n vectors by h / (n - h). A
    bootstrap with replacement repeats vectors, and repetition is what a diversity score counts: its draws lie far below
    the score itself. Source: Shao & Wu 1989, doi:10.1214/aos/1176347263. Raises ValueError for fewer than 8 vectors a
    subset. Held the truth in 93 to 100 % of 300 simulated sets (95 % stated; 3 to 30 topics, 60 and 150
    texts), so it is often wider than it need be.
    """
    n, half = len(vectors), size // 2
    if half < 8:
        raise ValueError(f"half_sample_intervals needs subsets of 16 vectors or more: {size} came.")
    rng = np.random.default_rng(seed)
    drawn = np.log([np.maximum(score(vectors[rng.permutation(n)[:half]]), 1e-12) for _ in range(draws)])
    errors = drawn.std(axis=0, ddof=1) * math.sqrt(half / (n - half))
    reach = np.exp(t_quantile(half - 1, level) * errors)
    method = f"half-samples {level:.0%} over {n} vectors, {draws} draws"
    return [Interval(float(value / far), float(value * far), method) for value, far in zip(values, reach, strict=True)]


def normalised(vectors: Vectors) -> Vectors:
    """Each vector at length 1, float64. Raises ValueError for fewer than 2, zeros, NaN and infinities."""
    array = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    if len(array) < 2 or not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ValueError(
            f"expected 2 vectors or more, finite and not zero: {len(array)} came, "
            f"{int(np.count_nonzero(~np.isfinite(lengths)))} not finite, {int(np.count_nonzero(lengths == 0))} zero."
        )
    return array / lengths


def _effective_number(shares: Float[np.ndarray, " k"], order: float) -> float:
    if order <= 0:
        raise ValueError(f"order={order}: expected a number above 0, or infinity.")
    if math.isinf(order):
        return float(1 / shares.max())
    if order == 1:
        return float(np.exp(-(shares * np.log(shares)).sum()))
    return float((shares**order).sum() ** (1 / (1 - order)))
