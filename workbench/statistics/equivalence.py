"""Two one-sided tests: "no difference found" is not "no difference", and this says which of the two it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from stores.printed import Printed
from workbench.statistics.bootstrap import paired_bootstrap
from workbench.statistics.clusters import Clusters, cluster_means
from workbench.statistics.intervals import Interval, t_quantile
from workbench.statistics.values import Bounds, alike, coverage, finite

Margin = float | int | Bounds


@dataclass(frozen=True)
class Equivalence(Printed):
    """Is a difference within the margin that was stated beforehand, is it away from 0, or is neither shown?

    `p_equivalent` is the larger of the two one-sided p, `p_different` the two-sided p against 0; both None where an
    interval decided. `interval` has coverage 1 - 2 alpha: within the margin means equivalent.
    """

    estimate: float
    margin: tuple[float, float]
    interval: Interval
    equivalent: bool
    different: bool
    alpha: float
    p_equivalent: float | None = None
    p_different: float | None = None

    @property
    def verdict(self) -> Literal["equivalent", "different", "neither"]:
        """Equivalent comes first: a difference can be within the margin and yet be told from 0 (see `different`)."""
        return "equivalent" if self.equivalent else "different" if self.different else "neither"

    def __str__(self) -> str:
        margin = f"margin [{self.margin[0]:.3g}, {self.margin[1]:.3g}]"
        also = ", though told from 0" if self.equivalent and self.different else ""
        return f"{self.verdict}{also}: {self.estimate:.3g} {self.interval}, {margin}"


def tost(
    differences: ArrayLike, margin: Margin, clusters: Clusters | None = None, *, alpha: float = 0.05
) -> Equivalence:
    """Equivalence of two paired conditions from their differences, by t over pairs, or over cluster means.

    `margin` is the largest difference that would not matter, in the units of the differences: a number means both
    sides. State it before the measurement. Equal differences show no spread, so nothing is decided ("neither").
    Source: Schuirmann 1987, doi:10.1007/BF01068419.
    """
    values = finite(differences, "differences")
    values = values if clusters is None else cluster_means(values, clusters)
    if len(values) < 2:
        raise ValueError(f"tost needs at least 2 independent differences: {len(values)} came.")
    error = 0.0 if alike(values) else float(values.std(ddof=1) / np.sqrt(len(values)))
    units = "differences" if clusters is None else "cluster means"
    return _by_t(float(values.mean()), error, len(values) - 1, margin, alpha, f"{len(values)} {units}")


def tost_independent(a: ArrayLike, b: ArrayLike, margin: Margin, *, alpha: float = 0.05) -> Equivalence:
    """Equivalence of two independent groups, mean(a) - mean(b), by Welch's t: spreads may differ.

    For clustered rows give `cluster_means` of each group. Source: as `tost`, and Welch 1947.
    """
    a, b = finite(a, "a"), finite(b, "b")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"tost_independent needs 2 values of each group: {len(a)} and {len(b)} came.")
    parts = np.array([0.0 if alike(each) else each.var(ddof=1) / len(each) for each in (a, b)])
    squares = (parts**2 / [len(a) - 1, len(b) - 1]).sum()
    freedom = float(parts.sum() ** 2 / squares) if squares else 1.0
    words = f"Welch, {len(a)} + {len(b)} values"
    return _by_t(float(a.mean() - b.mean()), float(np.sqrt(parts.sum())), freedom, margin, alpha, words)


def tost_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Clusters,
    margin: Margin,
    clusters_b: Clusters | None = None,
    *,
    alpha: float = 0.05,
    **options: Any,
) -> Equivalence:
    """Equivalence by the paired cluster bootstrap: its 1 - 2 alpha interval lies within the margin.

    `options` as of `paired_bootstrap` (strata, resamples, seed, bounds). No p comes out of it.
    """
    low, high = _margin(margin)
    narrow = paired_bootstrap(a, b, clusters, clusters_b, level=1 - 2 * alpha, **options)
    wide = paired_bootstrap(a, b, clusters, clusters_b, level=1 - alpha, **options)
    other = clusters if clusters_b is None else clusters_b
    estimate = float(cluster_means(a, clusters).mean() - cluster_means(b, other).mean())
    within = low < narrow.low and narrow.high < high
    return Equivalence(estimate, (low, high), narrow, within, 0.0 not in wide, alpha)


def _by_t(estimate: float, error: float, freedom: float | int, margin: Margin, alpha: float, words: str) -> Equivalence:
    low, high = _margin(margin)
    level = coverage(1 - 2 * alpha)
    if error == 0:
        nothing = Interval(-np.inf, np.inf, f"none: {words} are all alike, so no spread is seen")
        return Equivalence(estimate, (low, high), nothing, False, False, alpha, 1.0, 1.0)
    above, below = ((estimate - low) / error, (estimate - high) / error)
    p = max(float(special.stdtr(freedom, -above)), float(special.stdtr(freedom, below)))
    p_different = 2 * float(special.stdtr(freedom, -abs(estimate) / error))
    half = t_quantile(freedom, level) * error
    interval = Interval(estimate - half, estimate + half, f"t {level:.0%}, {words}")
    return Equivalence(estimate, (low, high), interval, p < alpha, p_different < alpha, alpha, p, p_different)


def _margin(margin: Margin) -> tuple[float, float]:
    low, high = margin if isinstance(margin, tuple) else (-abs(margin), abs(margin))
    if not low < 0 < high:
        raise ValueError(f"margin={margin}: expected a number above 0, or (low, high) around 0.")
    return float(low), float(high)
