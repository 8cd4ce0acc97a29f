"""Ridge regression on few features, predicted for units that were left out, the features chosen without them.

The prediction for a left-out unit is linear in the outcomes of the others once features and penalty are chosen, and so
are the errors by which they are chosen: all shuffles of the outcomes pass through the same few small matrices.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

AT_ONCE = 20_000_000  # numbers held in memory at a time
Features = Float[np.ndarray, "n k"]
Outcomes = Float[np.ndarray, "n column"]


@dataclass(frozen=True)
class Candidate:
    """Features (columns of x; none: the mean alone) and a penalty, in units of the variance of one feature."""

    columns: tuple[int, ...]
    penalty: float


@dataclass(frozen=True)
class LeftOut:
    """What was predicted for the rows left out of each fold, `[fold, left, column]`, one column an outcome vector;
    `chosen`: the number of the candidate that was chosen in each fold, `[fold, column]`."""

    predicted: Float[np.ndarray, "fold left column"]
    chosen: Int[np.ndarray, "fold column"]


def candidates_of(k: int, *, most: int = 1, penalties: Sequence[float | int] = (0.1, 1.0)) -> tuple[Candidate, ...]:
    """Every combination of 1 to `most` of k features with every penalty. Raises ValueError for more than 500."""
    if not most >= 1 or not penalties or min(penalties) <= 0:
        raise ValueError(
            f"most={most}, penalties={tuple(penalties)}: expected at least one feature, penalties above 0."
        )
    combinations = [each for size in range(1, most + 1) for each in itertools.combinations(range(k), size)]
    found = tuple(Candidate(each, float(penalty)) for each in combinations for penalty in penalties)
    if not 1 <= len(found) <= 500:
        raise ValueError(
            f"{k} features in combinations of up to {most} and {len(penalties)} penalties give {len(found)} "
            "candidates: expected 1 to 500. A choice among that many of few domains says nothing; name fewer features."
        )
    return found


def one_left_out(n: int) -> list[tuple[int, ...]]:
    return [(i,) for i in range(n)]


def pairs_left_out(n: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(n), 2))


def left_out(
    x: Features,
    y: Outcomes,
    folds: Sequence[tuple[int, ...]],
    candidates: Sequence[Candidate],
    new: Float[np.ndarray, "new k"] | None = None,
) -> LeftOut:
    """Predicts the rows of each fold (and those of `new`, appended) from all other rows, by ridge regression with an
    intercept that is not penalised, on features scaled by the other rows' mean and standard deviation.

    Among several candidates each fold chooses the one of least squared error when the *other* rows are left out in
    turn, so the rows of the fold take no part in the choice. Source: Varma & Simon 2006, doi:10.1186/1471-2105-7-91.
    """
    n = len(x)
    if min(n - len(fold) for fold in folds) < 3:
        raise ValueError(f"left_out: a fold leaves fewer than 3 of {n} units to fit on.")
    predicted, chosen = [], []
    for fold in folds:
        rest = np.setdiff1d(np.arange(n), fold)
        asked = x[list(fold)] if new is None else np.concatenate([x[list(fold)], new])
        maps = [_ridge_maps(x[rest], asked, candidate) for candidate in candidates]
        values, choices = _chosen(np.stack([m[0] for m in maps]), np.stack([m[1] for m in maps]), y[rest])
        predicted.append(values)
        chosen.append(choices)
    return LeftOut(np.stack(predicted), np.stack(chosen))


def _ridge_maps(x: Features, asked: Float[np.ndarray, "left k"], candidate: Candidate) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes -> predictions for `asked`, [left, n]; outcomes -> errors of each row when it alone is left out, [n, n].

    The scale of the features is that of all n rows in both; the errors are those of n refits, by the hat matrix.
    """
    n, columns = len(x), list(candidate.columns)
    middle, spread = x[:, columns].mean(axis=0), x[:, columns].std(axis=0)
    spread = np.where(spread > 1e-12 * np.abs(middle), spread, np.inf)  # a constant feature predicts nothing
    z, z_asked = (x[:, columns] - middle) / spread, (asked[:, columns] - middle) / spread
    solved = np.linalg.solve(z.T @ z + candidate.penalty * n * np.eye(len(columns)), z.T)
    hat = 1 / n + z @ solved
    return 1 / n + z_asked @ solved, (np.eye(n) - hat) / (1 - np.diag(hat))[:, None]


def _chosen(
    predict: Float[np.ndarray, "candidate left n"], errors: Float[np.ndarray, "candidate n n"], y: Outcomes
) -> tuple[np.ndarray, np.ndarray]:
    """Each column's predictions by the candidate of least squared error, the first of equals."""
    values = np.empty((predict.shape[1], y.shape[1]))
    choices = np.zeros(y.shape[1], np.intp)
    step = max(1, AT_ONCE // (len(predict) * len(y)))
    for start in range(0, y.shape[1], step):
        part = y[:, start : start + step]
        if len(predict) > 1:
            choices[start : start + step] = ((errors @ part) ** 2).sum(axis=1).argmin(axis=0)
        for choice in np.unique(choices[start : start + step]):
            mine = choices[start : start + step] == choice
            values[:, start : start + step][:, mine] = predict[choice] @ part[:, mine]
    return values, choices
