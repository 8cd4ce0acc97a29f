"""Trends over ordered doses (ranks of an adapter, fractions of a mixture): tested, and every step looked at.

A trend test says that values rise over the doses on the whole; it does not say that they rise at each step. So a result
also states how many steps go the other way, and how many may.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from workbench.statistics.clusters import Clusters, cluster_index
from workbench.statistics.correlation import ALL_ORDERS, all_orders
from workbench.statistics.permutation import Significance, p_value
from workbench.statistics.trend_nulls import (
    all_labels,
    jonckheere,
    kendall,
    labellings,
    page_draws,
    page_is_counted,
    page_null,
)
from workbench.statistics.trend_steps import Step, Trend, independent_steps, paired_steps, unknown_steps
from workbench.statistics.values import Bounds, Tail, finite, known_tail, midranks

Doses = Sequence[float | int] | np.ndarray
"""Numbers of which only the order counts."""

__all__ = ["Step", "Trend", "dose_table", "jonckheere_trend", "kendall_trend", "page_trend"]


def page_trend(
    table: ArrayLike,
    doses: Doses | None = None,
    clusters: Clusters | None = None,
    *,
    tail: Tail = "two-sided",
    alpha: float = 0.05,
    bounds: Bounds | None = None,
    draws: int = 9999,
    seed: int = 0,
) -> Trend:
    """Do the same items score higher at higher doses? `table` is [item, dose]; under the null the doses of an item, or
    of a cluster (its mean), could as well be in any other order. Page's L, for 3 doses or more.

    All orders are counted up to 8 doses and 10^300 patterns; beyond, `draws` random ones. The item is what the claim is
    about: with prompts as items and one adapter a dose, the trend is one of *these adapters*; for one of the dose, the
    items are fine-tuning seeds (`dose_table` averages what an item has). `bounds` are the ends of the scale: they limit
    the steps where all items agree. Raises ValueError for doses that are not distinct, or a table that does not fit.
    Source: Page 1963, doi:10.1080/01621459.1963.10500843.
    """
    known_tail(tail)
    values = np.asarray(table, np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"page_trend needs a table [item, dose]: an array of shape {values.shape} came.")
    finite(values, "table")
    steps_up, order = _ascending(range(values.shape[1]) if doses is None else doses, values.shape[1])
    values = values[:, order]
    if clusters is not None:
        index = cluster_index(clusters, len(values))
        values = np.array([values[index == cluster].mean(axis=0) for cluster in range(index.max() + 1)])
    n, k = values.shape
    # Rounding of a mean must not break a tie: 0.1 averaged over 3 rows and over 7 differs in the last bit.
    ranks = np.array([2 * midranks(row) for row in _rounded(values)]).astype(np.int64)
    observed = int(ranks.sum(axis=0) @ np.arange(1, k + 1))
    units = f"{n} {'items' if clusters is None else 'clusters'} x {k} doses"
    if page_is_counted(n, k):
        patterns = math.factorial(k) ** n
        p, least = _counted(observed, *page_null(ranks), tail)
        test = Significance(observed / 2, p, f"Page's L, {units}, all orders within each", patterns - 1, True)
    else:
        null = page_draws(ranks, draws, seed)
        p, least = p_value(observed, null, tail), 1 / (1 + draws)
        test = Significance(observed / 2, p, f"Page's L, {units}, {draws} random orders within each", draws)
    middle, highest = n * k * (k + 1) ** 2 / 4, n * k * (k + 1) * (2 * k + 1) / 6
    strength = (observed / 2 - middle) / (highest - middle)
    steps = paired_steps(values, steps_up, alpha=alpha, bounds=bounds, seed=seed)
    return Trend(steps_up, tuple(values.mean(axis=0).tolist()), strength, test, least, steps, n, alpha, tail)


def jonckheere_trend(
    values: ArrayLike,
    doses: Doses,
    clusters: Clusters | None = None,
    *,
    tail: Tail = "two-sided",
    alpha: float = 0.05,
    draws: int = 9999,
    seed: int = 0,
) -> Trend:
    """Do independent units score higher at higher doses? `doses` says the dose of each value; under the null any unit
    could have had any dose. Jonckheere and Terpstra's J, for 3 doses or more; steps by Welch's t.

    `clusters` are units of several values (their mean counts), each at one dose: what is at several is paired, and
    refused (`page_trend`). All labellings are counted when there are at most `draws` + 1.
    Source: Jonckheere 1954, doi:10.1093/biomet/41.1-2.133; Terpstra 1952.
    """
    known_tail(tail)
    given, at = finite(values, "values"), finite(list(doses), "doses")
    if len(given) != len(at):
        raise ValueError(f"jonckheere_trend needs one dose a value: {len(given)} values and {len(at)} doses came.")
    if clusters is not None:
        index = cluster_index(clusters, len(given))
        if len(set(zip(index, at, strict=True))) > index.max() + 1:
            raise ValueError(
                "jonckheere_trend: there are clusters with values at several doses, which are paired: use page_trend."
            )
        first = np.array([np.argmax(index == cluster) for cluster in range(index.max() + 1)])
        given, at = np.bincount(index, weights=given) / np.bincount(index), at[first]
    steps_up, _ = _ascending(sorted(set(at.tolist())))
    groups = [given[at == dose] for dose in steps_up]
    sizes, pooled = [len(group) for group in groups], _rounded(np.concatenate(groups))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    observed = float(jonckheere(pooled, labels[None], len(sizes))[0])
    exact = labellings(sizes) <= draws + 1
    if exact:
        null = jonckheere(pooled, all_labels(sizes), len(sizes))
        p, least = _counted(observed, null, np.full(len(null), 1 / len(null)), tail)
    else:
        rng = np.random.default_rng(seed)
        shuffled = rng.permuted(np.broadcast_to(labels, (draws, len(labels))), axis=1)
        null = jonckheere(pooled, shuffled, len(sizes))
        p, least = p_value(observed, null, tail), 1 / (1 + draws)
    units = f"{' + '.join(map(str, sizes))} {'values' if clusters is None else 'clusters'}"
    method = f"Jonckheere-Terpstra, {units}, {'all' if exact else 'random'} {len(null)} labellings"
    test = Significance(observed, p, method, len(null) - exact, exact)
    pairs = (sum(sizes) ** 2 - sum(size**2 for size in sizes)) / 2
    means = tuple(float(group.mean()) for group in groups)
    steps = independent_steps(groups, steps_up, alpha=alpha)
    return Trend(steps_up, means, 2 * observed / pairs - 1, test, least, steps, sum(sizes), alpha, tail)


def kendall_trend(
    values: ArrayLike,
    doses: Doses,
    *,
    tail: Tail = "two-sided",
    alpha: float = 0.05,
    draws: int = 9999,
    seed: int = 0,
) -> Trend:
    """Does a curve of one value a dose rise? Kendall's tau (b) between dose and value, with all n! orders of the values
    up to 9 doses, otherwise `draws` random ones. Few doses show little: 4 have no two-sided p below 1/12, 5 have 1/60.

    One value says nothing of its error, so the steps carry no intervals. Source: Kendall 1938,
    doi:10.1093/biomet/30.1-2.81.
    """
    known_tail(tail)
    given = finite(values, "values")
    steps_up, order = _ascending(doses, len(given))
    given, n = given[order], len(given)
    rounded, exact = _rounded(given), n <= ALL_ORDERS
    observed = int(kendall(rounded, np.arange(n)[None])[0])
    if exact:
        null = kendall(rounded, all_orders(n))
        p, least = _counted(observed, null, np.full(len(null), 1 / len(null)), tail)
    else:
        rng = np.random.default_rng(seed)
        null = kendall(rounded, rng.permuted(np.broadcast_to(np.arange(n), (draws, n)), axis=1))
        p, least = p_value(observed, null, tail), 1 / (1 + draws)
    pairs = n * (n - 1) / 2
    tied = sum(count * (count - 1) / 2 for count in np.unique(rounded, return_counts=True)[1].tolist())
    tau = observed / math.sqrt(pairs * (pairs - tied)) if tied < pairs else 0.0
    method = f"Kendall's tau, {n} doses, {'all' if exact else 'random'} {len(null)} orders"
    test = Significance(tau, p, method, len(null) - exact, exact)
    steps = unknown_steps(given, steps_up)
    return Trend(steps_up, tuple(given.tolist()), observed / pairs, test, least, steps, n, alpha, tail)


def dose_table(
    values: ArrayLike, doses: Doses, items: Sequence[Hashable]
) -> tuple[Float[np.ndarray, "item dose"], tuple[float, ...], list[Hashable]]:
    """A row of values, each with its dose and item (a prompt, an image, a fine-tuning seed), as the table of
    `page_trend`, with its doses (ascending) and items; several values of an item at a dose are averaged.

    Raises ValueError where an item has no value at one of the doses: drop it first, and say how many.
    """
    given, at = finite(values, "values"), finite(list(doses), "doses")
    if not len(given) == len(at) == len(items):
        raise ValueError(f"{len(given)} values, {len(at)} doses and {len(items)} items came: expected as many of each.")
    rows, names = cluster_index(items, len(given)), list(dict.fromkeys(items))
    columns, place = np.unique(at, return_inverse=True)
    sums, counts = np.zeros((len(names), len(columns))), np.zeros((len(names), len(columns)))
    np.add.at(sums, (rows, place), given)
    np.add.at(counts, (rows, place), 1)
    if not counts.all():
        lacking = int((counts == 0).any(axis=1).sum())
        raise ValueError(
            f"{lacking} of {len(names)} items have no value at one of the {len(columns)} doses: drop them first, and "
            "say how many."
        )
    return sums / counts, tuple(columns.tolist()), names


def _ascending(doses: Doses, expected: int | None = None) -> tuple[tuple[float, ...], list[int]]:
    """The doses from low to high, and where each stood."""
    given = finite(list(doses), "doses").tolist()
    if expected is not None and len(given) != expected:
        raise ValueError(f"{len(given)} doses for {expected} values of each item came: expected as many.")
    if len(set(given)) < len(given):
        raise ValueError(f"doses {given} are not distinct: expected each once (average what a dose has several of).")
    if len(given) < 3:
        raise ValueError(f"a trend needs 3 doses: {len(given)} came. Two are compared by sign_flip_test.")
    order = sorted(range(len(given)), key=given.__getitem__)
    return tuple(given[i] for i in order), order


def _rounded(values: np.ndarray) -> np.ndarray:
    """12 significant digits of the largest: what differs by less is a tie."""
    scale = float(np.abs(values).max())
    return np.round(values / scale, 12) if scale else values


def _counted(observed: float | int, null: np.ndarray, mass: np.ndarray, tail: Tail) -> tuple[float, float]:
    """p of the observed value, and the least p that any value has, among all patterns."""
    share = mass / mass.sum()
    away = np.asarray(null, np.float64) - float((null * share).sum())
    here = observed - (null[0] - away[0])
    if tail == "two-sided":
        away, here = np.abs(away), abs(here)
    elif tail == "less":
        away, here = -away, -here
    slack = 1e-9 * max(1.0, float(np.abs(away).max()))
    most = away[share > 0].max()
    return _total(share[away >= here - slack]), _total(share[away >= most - slack])


def _total(share: np.ndarray) -> float:
    return min(1.0, math.fsum(share))
