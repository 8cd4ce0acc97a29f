"""AUROC: how well a score tells two classes apart, with its interval by DeLong, rows or clusters independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import special

from workbench.statistics.clusters import Clusters
from workbench.statistics.intervals import Interval, t_quantile
from workbench.statistics.values import coverage, finite, midranks


def auroc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Chance that a random positive score exceeds a random negative one, ties counted half; 0.5 is no separation."""
    positive, negative = both_classes(positive, negative)
    ranks = midranks(np.concatenate([positive, negative]))[: len(positive)]
    wins = ranks.sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def auroc_interval(
    positive: ArrayLike,
    negative: ArrayLike,
    clusters_positive: Clusters | None = None,
    clusters_negative: Clusters | None = None,
    *,
    level: float = 0.95,
) -> Interval:
    """Interval of the AUROC by DeLong's variance on the logit scale, so it stays within (0, 1).

    With clusters the variance is over clusters (Obuchowski), and Student's t is used with the clusters of the smaller
    class - 1 degrees of freedom (all clusters - 1 where some hold both classes). Perfect separation, or ties alone,
    shows no variance: then Newcombe's interval, over clusters where given. Raises ValueError for fewer than 2 scores
    (clusters) of a class. Sources: DeLong et al. 1988, doi:10.2307/2531595; Obuchowski 1997, doi:10.2307/2533958;
    Newcombe 2006, doi:10.1002/sim.2324.
    """
    positive, negative = both_classes(positive, negative)
    if (clusters_positive is None) != (clusters_negative is None):
        raise ValueError("auroc_interval: clusters came for one class only; expected both, or neither.")
    area, clustered = auroc(positive, negative), clusters_positive is not None
    parts = components(positive, negative, clusters_positive, clusters_negative)
    n, m = parts.positive_units, parts.negative_units
    if min(n, m) < 2:
        raise ValueError(f"auroc_interval needs 2 independent units of each class to see spread: {n} and {m} came.")
    error = np.sqrt(max(parts.variance, 0.0))
    units = "clusters" if clustered else "scores"
    # On the logit scale an error is divided by area (1 - area).
    if area in (0.0, 1.0) or error <= 1e-9:
        return Interval(*_newcombe(area, n, m, level), f"Newcombe {level:.0%} of AUROC, {n} + {m} {units}")
    name, quantile = "DeLong (logit)", float(special.ndtri(0.5 + coverage(level) / 2))
    if clustered:
        freedom = parts.units - 1 if parts.units < n + m else min(n, m) - 1
        name, quantile = "clustered DeLong (logit, t)", t_quantile(freedom, level)
    half = quantile * error / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-half, half]))
    return Interval(float(low), float(high), f"{name} {level:.0%} of AUROC, {n} + {m} {units}")


@dataclass(frozen=True)
class Components:
    """The variance of an AUROC, and over how many independent units of each class (of both together) it was taken."""

    variance: float
    positive_units: int
    negative_units: int
    units: int


def components(
    positive: Float[np.ndarray, " n"],
    negative: Float[np.ndarray, " m"],
    clusters_positive: Clusters | None,
    clusters_negative: Clusters | None,
) -> Components:
    """DeLong's variance; summed over clusters where given, with the covariance of clusters that hold both classes."""
    n, m = len(positive), len(negative)
    above = placements(positive, negative)
    below = 1 - placements(negative, positive)
    area = above.mean()
    names_p = np.arange(n).tolist() if clusters_positive is None else list(clusters_positive)
    names_n = [("", i) for i in range(m)] if clusters_negative is None else list(clusters_negative)
    if len(names_p) != n or len(names_n) != m:
        raise ValueError(f"expected one cluster a score: {len(names_p)} for {n} and {len(names_n)} for {m} came.")
    order = {name: place for place, name in enumerate(dict.fromkeys(names_p + names_n))}
    at_p, at_n = np.array([order[name] for name in names_p]), np.array([order[name] for name in names_n])
    of_positive = np.bincount(at_p, weights=above - area, minlength=len(order)) / n
    of_negative = np.bincount(at_n, weights=below - area, minlength=len(order)) / m
    k_p, k_n, k = len(set(names_p)), len(set(names_n)), len(order)
    variance = (
        _inflation(k_p) * (of_positive**2).sum()
        + _inflation(k_n) * (of_negative**2).sum()
        + 2 * _inflation(k) * (of_positive * of_negative).sum()
    )
    return Components(float(variance), k_p, k_n, k)


def placements(scores: Float[np.ndarray, " n"], others: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """For each score the share of `others` below it, equals counted half."""
    ordered = np.sort(others)
    below, up_to = np.searchsorted(ordered, scores, "left"), np.searchsorted(ordered, scores, "right")
    return (below + up_to) / (2 * len(others))


def both_classes(positive: ArrayLike, negative: ArrayLike) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    positive, negative = finite(positive, "positive"), finite(negative, "negative")
    if not len(positive) or not len(negative):
        raise ValueError(
            f"auroc needs both classes: {len(positive)} positive and {len(negative)} negative scores came."
        )
    return positive, negative


def _inflation(units: int) -> float:
    return units / (units - 1) if units > 1 else 1.0


def _newcombe(area: float, n: int, m: int, level: float) -> tuple[float, float]:
    """Both areas that lie a normal quantile of *their own* Hanley-McNeil errors away, to 1e-12."""
    z = float(special.ndtri(0.5 + coverage(level) / 2))

    def beyond(theta: float) -> bool:
        shape = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) / (n * m) * (1 + ((n + m) / 2 - 1) * shape)
        return (area - theta) ** 2 > z * z * variance

    ends = []
    for far in (0.0, 1.0):
        near, outer = area, far
        for _ in range(60):
            middle = (near + outer) / 2
            near, outer = (near, middle) if beyond(middle) else (middle, outer)
        ends.append(area if area == far else (near + outer) / 2)
    return ends[0], ends[1]
