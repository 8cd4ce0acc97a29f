"""Correlation of few points, such as domains: exact p by all permutations, intervals, and how large r must be."""

from __future__ import annotations

import functools
import math
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import special

from workbench.statistics.intervals import Interval, t_quantile
from workbench.statistics.permutation import Significance, p_value
from workbench.statistics.values import Tail, alike, coverage, finite, midranks

Kind = Literal["spearman", "pearson"]
ALL_ORDERS = 9  # up to here every permutation is counted: 9! = 362,880


def correlation(x: ArrayLike, y: ArrayLike, kind: Kind = "spearman") -> float:
    """Pearson's r, or Spearman's rho (r of the ranks, ties at the mean of theirs); ValueError where it is undefined."""
    a, b = _standardised(x, y, kind)
    return float(np.clip(a @ b, -1.0, 1.0))


def correlation_test(
    x: ArrayLike, y: ArrayLike, kind: Kind = "spearman", *, tail: Tail = "two-sided", draws: int = 9999, seed: int = 0
) -> Significance:
    """Are x and y unrelated? The order of y is permuted: all n! orders up to n = 9, otherwise `draws` random ones.

    One point must be one independent unit (a domain): rows of a domain share its label, and `clustered` refuses them.
    """
    a, b = _standardised(x, y, kind)
    n, observed = len(a), float(a @ b)
    exact = n <= ALL_ORDERS
    if exact:
        null = b[all_orders(n)[1:]] @ a  # the first order is the observed one
    else:
        rng = np.random.default_rng(seed)
        null = rng.permuted(np.broadcast_to(b, (draws, n)), axis=1) @ a
    method = f"{kind}, n = {n}, {f'all {math.factorial(n)}' if exact else f'{draws} random'} orders"
    return Significance(float(np.clip(observed, -1, 1)), p_value(observed, null, tail), method, len(null), exact)


def correlation_interval(x: ArrayLike, y: ArrayLike, kind: Kind = "spearman", *, level: float = 0.95) -> Interval:
    """Interval by Fisher's z, for 4 points or more; with Bonett & Wright's error for Spearman.

    r = 1 or -1 shows no spread on that scale: the interval is then [-1, 1], and its method says so.
    Source: Fisher 1921; Bonett & Wright 2000, doi:10.1007/BF02294183.
    """
    r, n = correlation(x, y, kind), np.size(x)
    if n < 4:
        raise ValueError(f"correlation_interval needs at least 4 points: {n} came.")
    if abs(r) > 1 - 1e-12:
        return Interval(-1.0, 1.0, f"none: {kind} of {r:.0f} over {n} points shows no spread")
    error = np.sqrt((1 + (r * r / 2 if kind == "spearman" else 0)) / (n - 3))
    half = float(special.ndtri(0.5 + coverage(level) / 2)) * error
    low, high = np.tanh(np.arctanh(r) + np.array([-half, half]))
    return Interval(float(low), float(high), f"Fisher z {level:.0%}, {kind}, n = {n}")


def critical_correlation(n: int, alpha: float = 0.05) -> float:
    """The least |r| of `n` points that is significant, two-sided, under normality: 0.60, 0.63, 0.67 for 11, 10, 9."""
    if n < 3:
        raise ValueError(f"critical_correlation needs n >= 3 points: {n} came.")
    t = t_quantile(n - 2, 1 - alpha)
    return t / math.sqrt(n - 2 + t * t)


@functools.lru_cache(maxsize=2)
def all_orders(n: int) -> np.ndarray:
    """Every permutation of 0..n-1 as int8 rows, [n!, n], the identity first."""
    orders = np.zeros((1, 1), np.int8)
    for size in range(1, n):
        # Insert the new number at each place, the last one first: so the identity stays in front.
        orders = np.concatenate(
            [np.insert(orders, place, np.int8(size), axis=1) for place in range(size, -1, -1)], axis=0
        )
    return orders


def _standardised(x: ArrayLike, y: ArrayLike, kind: Kind) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Centred, of unit length: their dot product is the correlation."""
    if kind not in ("spearman", "pearson"):
        raise ValueError(f"kind={kind!r} is unknown: expected 'spearman' or 'pearson'.")
    a, b = finite(x, "x"), finite(y, "y")
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"a correlation needs 2 pairs or more: {len(a)} and {len(b)} values came.")
    for values, name in ((a, "x"), (b, "y")):
        if alike(values):
            raise ValueError(f"all {len(values)} values of {name} are equal: no correlation is defined.")
    if kind == "spearman":
        a, b = midranks(a), midranks(b)
    a, b = a - a.mean(), b - b.mean()
    return a / np.linalg.norm(a), b / np.linalg.norm(b)
