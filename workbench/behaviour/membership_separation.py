"""What membership adds to the AUROC of one score: two operating points, and the gain of one score over another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from workbench.statistics import Interval, wilson
from workbench.statistics.separation import placements

Members = Float[np.ndarray, " member"]
Others = Float[np.ndarray, " other"]
Clusters = Sequence[Sequence[Any]]  # of the members, and of the others


def operating_points(members: Members, others: Others) -> tuple[float, float]:
    """TPR at a FPR of at most 5 %, and FPR at a TPR of at least 95 %, over all thresholds."""
    thresholds = np.concatenate([np.unique(np.concatenate([members, others])), [np.inf]])
    tpr, fpr = (1 - np.searchsorted(np.sort(side), thresholds) / len(side) for side in (members, others))
    return float(tpr[fpr <= 0.05].max()), float(fpr[tpr >= 0.95].min())


def gain_interval(
    one: tuple[Members, Others], other: tuple[Members, Others], clusters: Clusters | None, level: float
) -> tuple[float, Interval]:
    """By how much the first score's AUROC exceeds the second's on the same rows, and the interval of that.

    DeLong's paired variance, its influences summed over clusters where given; Student's t with the units of the smaller
    side - 1 degrees of freedom. Two scores that order all pairs alike show no variance: then the width of Wilson's
    interval of n in n. Source: DeLong et al. 1988, doi:10.2307/2531595; Obuchowski 1997, doi:10.2307/2533958.
    """
    (members, others), (members_other, others_other) = one, other
    of_members = placements(members, others) - placements(members_other, others_other)
    of_others = placements(others_other, members_other) - placements(others, members)
    gain = float(of_members.mean())
    names = [[("row", side, i) for i in range(len(part))] for side, part in enumerate((members, others))]
    names = names if clusters is None else [list(part) for part in clusters]
    order = {name: place for place, name in enumerate(dict.fromkeys(names[0] + names[1]))}
    sums, units = [], []
    for part, values in zip(names, (of_members, of_others), strict=True):
        at = [order[name] for name in part]
        sums.append(np.bincount(at, weights=values - gain, minlength=len(order)) / len(values))
        units.append(len(set(part)))
    n, k = min(units), len(order)
    variance = sum(each / (each - 1) * float(part @ part) for each, part in zip(units, sums, strict=True))
    variance += 2 * k / (k - 1) * float(sums[0] @ sums[1])  # of clusters that have rows on both sides
    if variance > 1e-18:
        half = float(stats.t.ppf(0.5 + level / 2, n - 1) * np.sqrt(variance))
        method = (
            f"paired DeLong (t) {level:.0%}, {units[0]} + {units[1]} {'scores' if clusters is None else 'clusters'}"
        )
    else:
        half, method = 1 - wilson(n, n, level).low, f"Wilson {level:.0%} over {n}, no spread"
    return gain, Interval(max(-1.0, gain - half), min(1.0, gain + half), method)
