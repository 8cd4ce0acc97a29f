"""What the spectrum and the mean of a shift would be by chance: each question has its own null."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.statistics import Significance, p_value
from workbench.statistics.clusters import cluster_index
from workbench.statistics.sign_flips import all_signs, random_signs
from workbench.subspace.pca import top_shares, with_random_signs

MEAN_KEPT = "; the mean is kept for components 2 and on, and not for component 1"
SWAPPED = "base and tuned swapped prompt by prompt"


def null_shares(
    rows: Float[np.ndarray, "row d_model"], k: int, kind: str, draws: int, rng: np.random.Generator, *, mean: bool
) -> tuple[Float[np.ndarray, "draw k"], Float[np.ndarray, "draw k"]]:
    """Shares of the k leading components in data whose coordinates share nothing, draw by draw: one by one, and of the
    first 1, 2, .. k together.

    `rows` without their mean (`mean=False`): centred, every entry gets a random sign (or every column is permuted on
    its own), centred again. Rows with their mean: the deviations are broken in the same way and the mean is put back,
    or each draw would spread the energy of the mean over all components, and hide real ones behind it. Component 1 is
    there compared with signs of the rows themselves, which have no mean in common: "is anything shared at all?" Columns
    that are permuted keep their mean, so with them component 1 says nothing of the mean shift (`mean_test` does).
    Components together are always those of one matrix, the mean put back where it is kept.
    """
    middle = rows.mean(axis=0)
    centred = rows - middle
    shares, together = np.empty((draws, k)), np.empty((draws, k))
    for draw in range(draws):
        broken = _broken(centred, kind, rng)
        broken -= broken.mean(axis=0)
        shares[draw] = top_shares(broken + middle if mean else broken, k)
        together[draw] = np.cumsum(shares[draw])
        if mean and kind == "signs":
            shares[draw, 0] = top_shares(with_random_signs(rows, rng), 1)[0]
    return shares, together


def _broken(centred: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    return with_random_signs(centred, rng) if kind == "signs" else rng.permuted(centred, axis=0)


def mean_test(
    differences: Float[np.ndarray, "pair d_model"], prompts: Sequence[str], draws: int, seed: int
) -> Significance:
    """Is the mean shift longer than chance makes it? Statistic: ‖mean‖. All rows of a prompt change sign together.

    The null of a *mean*: flips of whole rows leave the spectrum as it was, and say nothing of it. All patterns are
    counted when there are at most `draws` + 1.
    """
    index = cluster_index(prompts, len(differences))
    sums = np.zeros((index.max() + 1, differences.shape[1]))
    np.add.at(sums, index, differences)
    gram, n = sums @ sums.T, len(sums)
    exact = n < 63 and 2**n <= draws + 1
    signs = all_signs(n) if exact else random_signs(n, draws, seed)
    observed = float(np.sqrt(max(gram.sum(), 0.0))) / len(differences)
    null = np.sqrt(np.clip(np.einsum("sn,nm,sm->s", signs, gram, signs, optimize=True), 0, None)) / len(differences)
    method = f"sign flips of {n} prompts, {'all' if exact else 'random'} {len(signs) + exact} patterns"
    return Significance(observed, p_value(observed, null), method, len(signs), exact)


def group_test(
    base: Float[np.ndarray, "left d_model"],
    tuned: Float[np.ndarray, "right d_model"],
    prompts: tuple[Sequence[str], Sequence[str]],
    draws: int,
    seed: int,
) -> Significance:
    """The same for groups of different prompts: ‖mean - mean‖ against prompts shuffled between the groups."""
    named = [*(("base", name) for name in prompts[0]), *(("tuned", name) for name in prompts[1])]
    rows = np.vstack([base, tuned])
    index = cluster_index(named, len(rows))
    sums, counts = np.zeros((index.max() + 1, rows.shape[1])), np.bincount(index).astype(np.float64)
    np.add.at(sums, index, rows - rows.mean(axis=0))
    gram = sums @ sums.T
    first = np.array([side == "tuned" for side, _ in dict.fromkeys(named)])
    rng = np.random.default_rng(seed)
    masks = np.vstack([first, rng.permuted(np.tile(first, (draws, 1)), axis=1)])
    weights = masks / (masks @ counts)[:, None] - ~masks / (~masks @ counts)[:, None]
    found = np.sqrt(np.clip(np.einsum("sn,nm,sm->s", weights, gram, weights, optimize=True), 0, None))
    method = f"permutation of {int((~first).sum())} + {int(first.sum())} prompts, random {draws} patterns"
    return Significance(float(found[0]), p_value(found[0], found[1:]), method, draws)


def swapped_shares(
    base: Float[np.ndarray, "pair d_model"],
    tuned: Float[np.ndarray, "pair d_model"],
    prompts: Sequence[str],
    classes: Sequence[Any],
    k: int,
    draws: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "draw k"]:
    """Leading eigenvalues of the scatter between classes after base and tuned were swapped in a random half of the
    prompts, as shares of the *observed* trace: their own trace varies, and with two classes would always be one
    component. Swapping leaves the scatter of all rows as it is, so any scaling by that is fair too."""
    observed = float((class_means(base, tuned, classes) ** 2).sum())
    index = cluster_index(prompts, len(base))
    shares = np.empty((draws, k))
    for draw in range(draws):
        swap = rng.integers(0, 2, index.max() + 1, dtype=bool)[index][:, None]
        means = class_means(np.where(swap, tuned, base), np.where(swap, base, tuned), classes)
        values = np.linalg.eigvalsh(means @ means.T)[::-1]
        shares[draw] = np.clip(values[:k], 0.0, None) / observed
    return shares


def class_means(
    base: Float[np.ndarray, "pair d_model"], tuned: Float[np.ndarray, "pair d_model"], classes: Sequence[Any]
) -> Float[np.ndarray, "n d_model"]:
    """sqrt(n_c) (mean of class c - mean of all), one row a class of (base or tuned, `classes`): its Gram matrix is the
    scatter between the classes."""
    index = cluster_index(classes, len(base))
    counts = np.bincount(index).astype(np.float64)
    sums = np.zeros((2, len(counts), base.shape[1]))
    np.add.at(sums[0], index, base)
    np.add.at(sums[1], index, tuned)
    means = (sums / counts[:, None]).reshape(-1, base.shape[1])
    weights = np.concatenate([counts, counts])
    return np.sqrt(weights)[:, None] * (means - weights @ means / weights.sum())


def marchenko_pastur_edge(variance: Float[np.ndarray, "site m"], freedom: int, d_model: int) -> np.ndarray:
    """The largest eigenvalue [site] that independent coordinates of one variance would have, as a guide.

    That variance is taken from the median of the non-zero eigenvalues, which a few real components do not move. Outlier
    channels have other variances: they pass the edge without sharing anything, which the null knows and this does not.
    Source: Marchenko & Pastur 1967, doi:10.1070/SM1967v001n04ABEH001994.
    """
    wide, narrow = max(freedom, d_model), min(freedom, d_model)
    ratio = narrow / wide
    # Of fewer rows than coordinates the Gram matrix over d_model follows the law; its eigenvalues are these times
    # freedom / d_model.
    middle = np.median(variance[:, :narrow], axis=1) * freedom / wide
    return middle / _median_of_law(ratio) * (1 + np.sqrt(ratio)) ** 2 * wide / freedom


@lru_cache
def _median_of_law(ratio: float) -> float:
    """Median of the Marchenko-Pastur law of unit variance, by quadrature."""
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2
    # x = middle + half·cos(angle) takes the square roots at both ends out of the integral.
    angle = (np.arange(20_000) + 0.5) * np.pi / 20_000
    x = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    mass = np.cumsum(np.sin(angle) ** 2 / x)
    return float(x[np.searchsorted(mass, mass[-1] / 2)])
