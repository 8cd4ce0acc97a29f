"""Nulls of trend statistics: Page's L, Jonckheere and Terpstra's J, and Kendall's S, counted whole or drawn."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from workbench.statistics.correlation import all_orders

COUNTED_DOSES = 8  # a row of Page's table has at most 8! = 40,320 orders that are counted
COUNTED_PATTERNS = 10**300  # more of them do not fit into the exponent of a float
AT_ONCE = 2_000_000  # permuted values held in memory at a time


def page_is_counted(n: int, doses: int) -> bool:
    return doses <= COUNTED_DOSES and math.factorial(doses) ** n < COUNTED_PATTERNS


def page_null(ranks: Int[np.ndarray, "n dose"]) -> tuple[Int[np.ndarray, " value"], Float[np.ndarray, " value"]]:
    """Every value of sum(dose number × rank) over all orders within each row, and its probability. `ranks` are whole
    numbers (midranks times 2): rows with ties have their own distribution. Rows are independent, so theirs convolve."""
    least, mass = 0, np.ones(1)
    for row, times in Counter(tuple(sorted(row)) for row in ranks.tolist()).items():
        low, one = _row_null(row)
        least, mass = least + times * low, np.convolve(mass, _power(one, times))
    return least + np.arange(len(mass)), mass


@functools.lru_cache(maxsize=256)
def _row_null(row: tuple[int, ...]) -> tuple[int, np.ndarray]:
    values = np.array(row)[all_orders(len(row))] @ np.arange(1, len(row) + 1)
    low = int(values.min())
    return low, np.bincount(values - low) / len(values)


def _power(mass: np.ndarray, times: int) -> np.ndarray:
    """`times` copies convolved, by squaring; sums of positive numbers, so that far tails keep their digits."""
    out = np.ones(1)
    while times:
        if times % 2:
            out = np.convolve(out, mass)
        times //= 2
        if times:
            mass = np.convolve(mass, mass)
    return out


def page_draws(ranks: Int[np.ndarray, "n dose"], draws: int, seed: int) -> Int[np.ndarray, " draw"]:
    """The statistic after a random order within each row."""
    rng, weights, out = np.random.default_rng(seed), np.arange(1, ranks.shape[1] + 1), []
    for size in _chunks(draws, ranks.size):
        shuffled = rng.permuted(np.broadcast_to(ranks, (size, *ranks.shape)), axis=2)
        out.append(shuffled.sum(axis=1) @ weights)
    return np.concatenate(out)


def jonckheere(
    values: Float[np.ndarray, " n"], labels: Int[np.ndarray, "draw n"], groups: int
) -> Float[np.ndarray, " draw"]:
    """J for each labelling: pairs in which the value of the higher group is the larger one, ties at a half."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) > 0])  # the first of each run of equal values
    out = []
    for part in np.array_split(labels[:, order], max(1, math.ceil(labels.size * groups / AT_ONCE))):
        here = np.add.reduceat((part[:, :, None] == np.arange(groups)).astype(np.float64), starts, axis=1)
        below = here.cumsum(axis=1) - here / 2
        out.append((here * (below.cumsum(axis=2) - below)).sum(axis=(1, 2)))
    return np.concatenate(out)


def labellings(sizes: Sequence[int]) -> int:
    """How many ways there are to divide the units into groups of these sizes."""
    return math.factorial(sum(sizes)) // math.prod(math.factorial(size) for size in sizes)


def all_labels(sizes: Sequence[int]) -> Int[np.ndarray, "pattern n"]:
    """Every one of them, as the group of each unit."""

    def filled(free: tuple[int, ...], group: int) -> Iterator[dict[int, int]]:
        if group == len(sizes):
            yield {}
            return
        for chosen in itertools.combinations(free, sizes[group]):
            rest = tuple(unit for unit in free if unit not in chosen)
            for others in filled(rest, group + 1):
                yield dict.fromkeys(chosen, group) | others

    n = sum(sizes)
    return np.array([[of[unit] for unit in range(n)] for of in filled(tuple(range(n)), 0)])


def kendall(values: Float[np.ndarray, " n"], orders: Int[np.ndarray, "draw n"]) -> Int[np.ndarray, " draw"]:
    """S for each order of the values: pairs that rise minus pairs that fall."""
    rises = np.sign(values[None, :] - values[:, None]).astype(np.int32)
    out = np.zeros(len(orders), np.int64)
    for a, b in itertools.combinations(range(len(values)), 2):
        out += rises[orders[:, a], orders[:, b]]
    return out


def _chunks(draws: int, size: int) -> Iterator[int]:
    each = max(1, AT_ONCE // size)
    for at in range(0, draws, each):
        yield min(each, draws - at)
