"""Looking at many cells (layers × coefficients) at once: each is compared with the largest of each null run."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from workbench.statistics.clusters import Clusters, cluster_index
from workbench.statistics.permutation import p_value
from workbench.statistics.sign_flips import all_signs, random_signs
from workbench.statistics.values import Tail, known_tail


def max_statistic(observed: ArrayLike, null: ArrayLike, tail: Tail = "greater") -> Float[np.ndarray, " *cells"]:
    """p per cell, corrected for looking at all cells: each cell against the maximum over cells of each null run.

    `observed` is [*cells] (such as [layer, coefficient]), `null` [run, *cells], the result [*cells]. One null run is
    one control (a random direction) taken through the whole sweep of layers and coefficients. The cells must share a
    unit and scale, or the noisiest cell rules the maximum. `two-sided` compares sizes, so both must be differences that
    are 0 under the null. Source: Westfall & Young 1993.
    """
    known_tail(tail)
    cells, runs = np.asarray(observed, np.float64), np.asarray(null, np.float64)
    if runs.ndim < 2 or cells.shape != runs.shape[1:]:
        raise ValueError(
            f"max_statistic: expected observed [*cells] and null [run, *cells]; {cells.shape} and {runs.shape} came."
        )
    if tail == "less":
        cells, runs = -cells, -runs
    elif tail == "two-sided":
        cells, runs = np.abs(cells), np.abs(runs)
    largest = runs.reshape(len(runs), -1).max(axis=1)
    return np.array([p_value(value, largest, "greater") for value in cells.ravel()]).reshape(cells.shape)


def max_sign_flip_test(
    differences: Float[np.ndarray, " n *cells"],
    clusters: Clusters | None = None,
    *,
    tail: Tail = "two-sided",
    draws: int = 9999,
    seed: int = 0,
) -> Float[np.ndarray, " *cells"]:
    """p per cell of paired differences that were measured in every cell, corrected for looking at all cells.

    A cluster (or row) flips its sign in all cells together, so cells may depend on each other in any way; the statistic
    is t over clusters, so they may differ in unit and scale. All 2^n patterns are counted when at most `draws` + 1.
    A cell whose differences are all 0 has p = 1. ValueError for fewer than 2 clusters. Source: as `max_statistic`.
    """
    values = np.asarray(differences, np.float64)
    flat = values.reshape(len(values), -1)
    index = np.arange(len(flat)) if clusters is None else cluster_index(clusters, len(flat))
    means = np.zeros((int(index.max(initial=-1)) + 1, flat.shape[1]))
    np.add.at(means, index, flat)
    means /= np.bincount(index)[:, None]
    n = len(means)
    if n < 2:
        raise ValueError(f"max_sign_flip_test needs at least 2 clusters: {n} came.")
    signs = all_signs(n) if n < 63 and 2**n <= draws + 1 else random_signs(n, draws, seed)
    null, observed = _t(signs @ means / n, means), _t(means.mean(axis=0)[None], means)[0]
    return max_statistic(observed, null, tail).reshape(values.shape[1:])


def _t(flipped: Float[np.ndarray, "draw cell"], means: Float[np.ndarray, "n cell"]) -> Float[np.ndarray, "draw cell"]:
    """t of each cell; squares do not change with the signs. Differences without spread give a huge t, not NaN."""
    n, square = len(means), (means**2).mean(axis=0)
    spread = np.sqrt(np.maximum(square - flipped**2, 1e-14 * square) / (n - 1))
    return np.divide(flipped, spread, out=np.zeros_like(flipped), where=spread > 0)
