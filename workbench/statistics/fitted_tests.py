"""Fitted predictors against their own permutation distribution: the whole procedure, choices included, is run again for
every shuffle of the outcomes.

0.5 (or a skill of 0) is no yardstick. A prediction for a unit that was left out leans away from its outcome, since the
mean of the others does: under the null its skill is negative, and the AUROC of such predictions lies far below one half
(.28 measured with 11 units and one feature). Pairs left out together share one fit, so their AUROC is not bent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import special

from stores.printed import Printed
from workbench.statistics.left_out import Candidate, Outcomes, left_out, one_left_out, pairs_left_out
from workbench.statistics.logistic import logistic_predictions
from workbench.statistics.permutation import format_p, p_value
from workbench.statistics.values import finite

Features = Float[np.ndarray, "n k"]
FITS_AT_ONCE = 20_000


@dataclass(frozen=True)
class AgainstShuffles(Printed):
    """A statistic of a procedure, and the same of it after every shuffle (`null`); p is one-sided, larger is better;
    `exact`: the shuffles are all there are."""

    value: float
    p: float
    null: tuple[float, ...]
    exact: bool

    @property
    def null_mean(self) -> float:
        """What to compare the value with, in place of 0 or 0.5."""
        return float(np.mean(self.null))

    def null_quantile(self, share: float) -> float:
        return float(np.quantile(self.null, share))

    def __str__(self) -> str:
        p = format_p(self.p, len(self.null), exact=self.exact)
        shuffled = f"{'all' if self.exact else 'random'} {len(self.null)} shuffles"
        usual = f"mean {self.null_mean:.3f}, 95 % below {self.null_quantile(0.95):.3f}"
        return f"{self.value:.3f} (shuffled: {usual}; p {p}, {shuffled})"


def against_shuffles(statistics: Float[np.ndarray, " column"], *, exact: bool = False) -> AgainstShuffles:
    """The first value is the observed one, the others those of the shuffles."""
    observed, null = float(statistics[0]), statistics[1:]
    return AgainstShuffles(observed, p_value(observed, null), tuple(null.tolist()), exact)


def left_out_skills(x: Features, y: Outcomes, candidates: Sequence[Candidate]) -> Float[np.ndarray, " column"]:
    """The skill of ridge predictions, each unit left out once, for every column of outcomes: 1 - Σ squared errors / Σ
    squared errors of the mean of the others."""
    predicted = left_out(x, y, one_left_out(len(x)), candidates).predicted[:, 0]
    of_mean = (y - y.mean(axis=0)) * len(y) / (len(y) - 1)
    if not (np.square(of_mean).sum(axis=0) > 0).all():
        raise ValueError("left_out_skills: all outcomes are equal, so there is nothing to predict.")
    return 1 - np.square(y - predicted).sum(axis=0) / np.square(of_mean).sum(axis=0)


def left_out_aurocs(
    x: Features, y: Outcomes, labels: Float[np.ndarray, "n column"], candidates: Sequence[Candidate]
) -> Float[np.ndarray, " column"]:
    """The share of pairs of a labelled and an unlabelled unit that are predicted in the right order by a ridge fit on
    all others (leave-pair-out), ties half. `labels` are 1 and 0, shuffled along with `y`.
    Source: Airola et al. 2011, doi:10.1016/j.csda.2010.11.023."""
    pairs = pairs_left_out(len(x))
    predicted = left_out(x, y, pairs, candidates).predicted
    return _right_order(predicted[:, 0] - predicted[:, 1], labels, pairs)


def left_out_log_odds(
    x: Features,
    labels: Float[np.ndarray, "n column"],
    folds: Sequence[tuple[int, ...]],
    candidates: Sequence[Candidate],
) -> Float[np.ndarray, "fold left column"]:
    """Log odds of label 1 for the units of each fold, by a logistic regression on the others; NaN where the others
    hold one label only. Features are chosen in each fold by ridge regression on the labels (`left_out`)."""
    chosen = left_out(x, labels, folds, candidates).chosen
    out = np.full((len(folds), len(folds[0]), labels.shape[1]), np.nan)
    for place, fold in enumerate(folds):
        rest = np.setdiff1d(np.arange(len(x)), fold)
        both = np.ptp(labels[rest], axis=0) > 0
        for choice in np.unique(chosen[place]):
            candidate, mine = candidates[choice], np.flatnonzero((chosen[place] == choice) & both)
            seen, asked = x[rest][:, list(candidate.columns)], x[list(fold)][:, list(candidate.columns)]
            for start in range(0, len(mine), FITS_AT_ONCE):
                some = mine[start : start + FITS_AT_ONCE]
                alike = [np.broadcast_to(each, (len(some), *each.shape)) for each in (seen, asked)]
                odds = logistic_predictions(alike[0], labels[rest][:, some].T, alike[1], candidate.penalty)
                out[place][:, some] = odds.T
    return out


def logistic_skills(
    x: Features, labels: Float[np.ndarray, "n column"], candidates: Sequence[Candidate]
) -> Float[np.ndarray, " column"]:
    """1 - the log loss of logistic predictions over that of the others' share of label 1, each unit left out once."""
    _two_of_each(labels)
    n = len(labels)
    odds = left_out_log_odds(x, labels, one_left_out(n), candidates)[:, 0]
    signed = np.where(labels == 1, 1.0, -1.0)
    share = (labels.sum(axis=0) - labels) / (n - 1)
    return 1 - np.logaddexp(0, -signed * odds).sum(axis=0) / np.logaddexp(0, -signed * special.logit(share)).sum(axis=0)


def logistic_aurocs(
    x: Features, labels: Float[np.ndarray, "n column"], candidates: Sequence[Candidate]
) -> Float[np.ndarray, " column"]:
    """`left_out_aurocs` of logistic predictions."""
    _two_of_each(labels)
    pairs = pairs_left_out(len(x))
    odds = left_out_log_odds(x, labels, pairs, candidates)
    return _right_order(odds[:, 0] - odds[:, 1], labels, pairs)


def shuffled_labels(
    labels: ArrayLike, *, draws: int = 999, seed: int = 0
) -> tuple[Float[np.ndarray, "n column"], bool]:
    """Labels 1 and 0 as column 0, then in other arrangements: all there are where these are at most `draws`, else
    random ones; and whether they are all."""
    values = finite(labels, "labels")
    n, ones = len(values), int(values.sum())
    if not np.isin(values, (0, 1)).all():
        raise ValueError("shuffled_labels: expected labels 1 and 0.")
    if math.comb(n, ones) - 1 > draws:
        rng = np.random.default_rng(seed)
        drawn = rng.permuted(np.broadcast_to(values, (draws, n)), axis=1)
        return np.concatenate([values[None], drawn]).T, False
    patterns = np.array([[bits >> i & 1 for i in range(n)] for bits in range(2**n) if bits.bit_count() == ones])
    own = (patterns == values).all(axis=1)
    return np.concatenate([values[None], patterns[~own]]).T.astype(np.float64), True


def _right_order(
    apart: Float[np.ndarray, "pair column"], labels: Float[np.ndarray, "n column"], pairs: Sequence[tuple[int, ...]]
) -> Float[np.ndarray, " column"]:
    first, second = (labels[[pair[side] for pair in pairs]] for side in (0, 1))
    counted = first != second
    if not counted.any(axis=0).all():
        raise ValueError("an AUROC needs both labels: one came.")
    right = np.where(np.abs(apart) <= 1e-12, 0.5, (apart > 0) == (first > second))
    return np.where(counted, right, 0.0).sum(axis=0) / counted.sum(axis=0)


def _two_of_each(labels: Float[np.ndarray, "n column"]) -> None:
    ones = labels.sum(axis=0)
    if (ones < 2).any() or (len(labels) - ones < 2).any():
        raise ValueError(
            f"a logistic fit without one unit needs 2 units of each label: {int(ones.min())} and "
            f"{int(len(labels) - ones.max())} came. Choose another threshold, or model='ridge'."
        )
