"""Folds of the prompts that a map is fitted on: for choosing a rank or a layer without a look at held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from stores.printed import Printed
from workbench.interventions.linear_maps import Method, Reduced, fitted, reached_axes, shrinkage

FOLDS = 3
Cut = tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]  # row numbers to fit on, and to ask


@dataclass(frozen=True, eq=False)
class Fold(Printed):
    """One split of the training rows: `source` is the reduction of the rows `train`, in the coordinates of all; the
    rows `asked` are predicted from them."""

    train: Int[np.ndarray, " train"]
    asked: Int[np.ndarray, " asked"]
    source: Reduced


def cuts(prompts: Int[np.ndarray, " n"]) -> list[Cut]:
    """Row numbers of FOLDS splits into (fit, asked); rows of one prompt stay together. A function of the prompts alone,
    so that shuffled refits and all methods meet the same folds."""
    names = np.unique(prompts)
    place = np.empty(len(names), np.intp)
    place[np.random.default_rng(0).permutation(len(names))] = np.arange(len(names)) % FOLDS
    fold = place[np.searchsorted(names, prompts)]
    return [(np.flatnonzero(fold != one), np.flatnonzero(fold == one)) for one in range(FOLDS)]


def folds_of(source: Reduced, splits: Sequence[Cut]) -> list[Fold]:
    """The folds of one source site: FOLDS singular value decompositions, whatever it is then mapped to."""
    return [Fold(train, asked, Reduced.of(source.rows[train])) for train, asked in splits]


def chosen_rank(
    folds: Sequence[Fold], source: Reduced, target: Reduced, *, ridge: float | int, order: np.ndarray | None = None
) -> tuple[int, float]:
    """The rank of a low-rank map with the least squared error over the folds, the smallest of equals, and its R² there.

    All ranks at once: the k-th axis of a fold's fit adds the same to every larger rank, so one decomposition a fold
    serves them all. 1 at least, since a map of rank 0 maps nothing.
    """
    here, there = source.rows, target.rows if order is None else target.rows[order]
    gains: list[np.ndarray] = []
    total = 0.0
    for fold in (one for one in folds if len(one.source.scales)):
        mean = there[fold.train].mean(axis=0)
        shrink = shrinkage(fold.source, ridge)
        agreement = fold.source.left.T @ (there[fold.train] - mean)
        axes = reached_axes(shrink[:, None] * agreement)
        centred = (here[fold.asked] - fold.source.mean) @ fold.source.right.T
        predicted = centred @ ((shrink**2 / fold.source.scales)[:, None] * agreement) @ axes.T
        actual = there[fold.asked] - mean
        gains.append((2 * (actual @ axes.T) * predicted - predicted**2).sum(axis=0))
        total += float((actual**2).sum())
    if not gains:  # no fold whose source rows vary
        return 1, 0.0
    least = min(map(len, gains))
    explained = np.cumsum(np.sum([gain[:least] for gain in gains], axis=0))
    best = int(explained.argmax())
    return best + 1, float(explained[best] / total) if total > 0 else 0.0


def folded_r2(
    folds: Sequence[Fold], source: Reduced, target: Reduced, method: Method, *, ridge: float | int, rank: int | None
) -> float:
    """R² over the folds of the training prompts: what a layer is chosen by. The identity fits nothing, and is asked on
    all of them."""
    if method == "identity":
        error = source.mean + source.rows @ source.right - target.mean - target.rows @ target.right
        return 1 - float((error**2).sum() / (target.scales**2).sum())
    if method == "low_rank" and rank is None:
        return chosen_rank(folds, source, target, ridge=ridge)[1]
    off = total = 0.0
    for fold in folds:
        there = Reduced.of(target.rows[fold.train])
        if not len(there.scales) or not len(fold.source.scales):
            return -np.inf
        carry, _ = fitted(fold.source, there, method, ridge=ridge, scaled=False, rank=rank)
        actual = target.rows[fold.asked]
        off += float(((actual - carry.point(source.rows[fold.asked])) ** 2).sum())
        total += float(((actual - there.mean) ** 2).sum())
    return 1 - off / total


def unbiased_cka(x: Reduced, y: Reduced) -> float:
    """Linear centred kernel alignment of paired rows, debiased: about 0 for unrelated rows, however wide the models.

    From singular values and vectors alone, without an n x n array; the ordinary estimate is near 1 for any two models
    as soon as n is not far above their widths. NaN where fewer than 4 rows, or hardly any variance, leave it undefined.
    Source: Kornblith et al. 2019, arXiv 1905.00414; Song et al. 2012 (unbiased HSIC).
    """
    if len(x.left) < 4:
        return np.nan
    among_x, among_y = _hsic(x, x), _hsic(y, y)
    return _hsic(x, y) / float(np.sqrt(among_x * among_y)) if min(among_x, among_y) > 0 else np.nan


def _hsic(x: Reduced, y: Reduced) -> float:
    """n (n - 3) times the unbiased estimate. Rows are centred, so kernel rows sum to 0, and without the diagonal to
    minus the diagonal."""
    n = len(x.left)
    a, b = _squares(x.rows), _squares(y.rows)
    cross = float(((x.scales[:, None] * (x.left.T @ y.left) * y.scales) ** 2).sum())
    both = float(a @ b)
    return cross - both + float(a.sum() * b.sum()) / ((n - 1) * (n - 2)) - 2 * both / (n - 2)


def _squares(rows: Float[np.ndarray, "n r"]) -> Float[np.ndarray, " n"]:
    return np.einsum("nr,nr->n", rows, rows)
