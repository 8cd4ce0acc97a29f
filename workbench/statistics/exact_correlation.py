"""The p of a correlation over all n! orders of up to 13 points, without walking through them."""

from __future__ import annotations

import itertools
import math

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from workbench.statistics.correlation import Kind, correlation
from workbench.statistics.permutation import Significance
from workbench.statistics.values import Tail, finite, known_tail, midranks

MOST_POINTS = 13  # 13! = 6.2 thousand million orders in about a second


def exact_correlation_test(
    x: ArrayLike, y: ArrayLike, kind: Kind = "spearman", *, tail: Tail = "two-sided"
) -> Significance:
    """Are x and y unrelated? p is the share of all n! orders of y whose r is at least as extreme, ties included.

    One point must be one independent unit (a domain). `two-sided` compares |r|. 11 points take some 10 ms. Raises
    ValueError for more than 13 points (`correlation_test` draws orders), and where no correlation is defined.
    """
    found = exact_correlation_ps(x, np.asarray(y, np.float64)[None], kind, tail=tail)[0]
    n = np.size(x)
    method = f"{kind}, n = {n}, all {math.factorial(n)} orders"
    return Significance(correlation(x, y, kind), float(found), method, math.factorial(n) - 1, True)


def exact_correlation_ps(
    x: ArrayLike, orders: ArrayLike, kind: Kind = "spearman", *, tail: Tail = "two-sided"
) -> Float[np.ndarray, " order"]:
    """The exact p of several orders [order, n] of the *same* values of y: they share one null.

    Raises ValueError where a row holds other values than the first one.
    """
    known_tail(tail)
    rows = np.atleast_2d(np.asarray(orders, np.float64))
    a, n = _unit(x, kind), np.size(x)
    correlation(x, rows[0], kind)  # refuses what has no correlation
    if n > MOST_POINTS:
        raise ValueError(
            f"{n} points have too many orders to count: expected at most {MOST_POINTS}; draw some instead."
        )
    if not np.array_equal(np.sort(rows, axis=1), np.broadcast_to(np.sort(rows[0]), rows.shape)):
        raise ValueError(
            "exact_correlation_ps: the rows of `orders` hold different values, so they share "
            "no null; expected orders of the same values."
        )
    b = _unit(rows[0], kind)
    r = np.array([_unit(row, kind) @ a for row in rows])
    # Equal up to rounding counts as at least as extreme: a tie must never make p smaller.
    slack = 1e-12
    if tail == "greater":
        counts = _at_least(a, b, r - slack)
    elif tail == "less":
        counts = _at_least(-a, b, -r - slack)
    else:
        bound = np.maximum(np.abs(r) - slack, 0.0)
        counts = _at_least(a, b, bound) + np.where(bound > 0, _at_least(-a, b, bound), _below(a, b))
    return np.minimum(counts / math.factorial(n), 1.0)


def _at_least(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"], bounds: Float[np.ndarray, " m"]) -> np.ndarray:
    """In how many orders of b the dot product with a is at least each bound.

    An order is a choice of the values for the first half of the places, and an order within either half: for every
    choice the sums of both halves are listed, and the pairs that reach a bound are counted by sorting one list.
    """
    n, half = len(a), len(a) // 2
    first, second = _all_orders(half), _all_orders(n - half)
    counts = np.zeros(len(bounds))
    for chosen in itertools.combinations(range(n), half):
        rest = [place for place in range(n) if place not in chosen]
        left = b[list(chosen)][first] @ a[:half]
        right = np.sort(b[rest][second] @ a[half:])
        reached = np.searchsorted(right, (bounds[:, None] - left[None]).ravel())
        counts += (len(right) - reached).reshape(len(bounds), -1).sum(axis=1)
    return counts


def _below(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """The orders that `_at_least(a, b, 0)` leaves out."""
    return math.factorial(len(a)) - float(_at_least(a, b, np.zeros(1))[0])


def _all_orders(n: int) -> np.ndarray:
    return np.array(list(itertools.permutations(range(n))), np.intp).reshape(-1, n)


def _unit(values: ArrayLike, kind: Kind) -> Float[np.ndarray, " n"]:
    row = finite(values, "values")
    row = midranks(row) if kind == "spearman" else row
    row = row - row.mean()
    return row / max(float(np.linalg.norm(row)), 1e-300)
