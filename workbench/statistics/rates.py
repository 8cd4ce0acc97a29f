"""Rates of clustered rows: the Wilson interval at the number of independent rows that would say as much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from workbench.statistics.clusters import Clusters, cluster_index
from workbench.statistics.intervals import Interval, score_ends, t_quantile
from workbench.statistics.values import finite

Weighing = Literal["rows", "clusters"]
FEW_EVENTS = 5
"""With fewer effective successes (or failures) the spread between clusters is hardly seen, and Wilson may be narrow."""


@dataclass(frozen=True)
class DesignEffect:
    """A rate, its variance over that of independent rows (at least 1), and the rows that are left: rows / effect.

    `freedom` is that of the variance: the effective number of clusters - 1. One cluster that stands alone is worth 3.
    """

    rate: float
    effect: float
    effective: float
    freedom: float
    rows: int
    clusters: int

    @property
    def events(self) -> float:
        """Effective successes, or failures where those are fewer."""
        return self.effective * min(self.rate, 1 - self.rate)


def clustered_wilson(
    values: ArrayLike, clusters: Clusters, *, weigh: Weighing = "rows", level: float = 0.95
) -> Interval:
    """Wilson interval of a rate whose rows share clusters (samples of a prompt, questions of a domain).

    `values` are 0 or 1, one a row. The number of trials is rows / design effect; the quantile is Student's, with a
    degree of freedom for each cluster that carries variance (`DesignEffect.freedom`). `weigh="rows"` is about the share
    of all rows, "clusters" about the mean of the clusters' rates. Where all values are equal the clusters count as
    trials: nothing tells how alike their rows are. Measured coverage: docs/statistics.md. With fewer than 5 effective
    events, which the method then states, compare `beta_binomial_interval`. Raises ValueError for other values than 0
    and 1 or fewer than 2 clusters. Sources: Kish 1965 (design effect); Korn & Graubard 1998, Survey Methodology 24,
    193-201 (effective rows and t); the degrees of freedom match the fourth moment, after Satterthwaite 1946.
    """
    design = design_effect(values, clusters, weigh)
    low, high = score_ends(design.rate, design.effective, t_quantile(design.freedom, level))
    few = f", under {FEW_EVENTS} effective events" if design.events < FEW_EVENTS else ""
    kind = "cluster-adjusted Wilson" if weigh == "rows" else "cluster-adjusted Wilson of the mean over clusters"
    stated = f"{design.effective:.3g} effective of {design.rows} rows in {design.clusters} clusters"
    return Interval(low, high, f"{kind} {level:.0%} (t, df {design.freedom:.3g}), {stated}{few}")


def design_effect(values: ArrayLike, clusters: Clusters, weigh: Weighing = "rows") -> DesignEffect:
    """The design effect of a rate, from the spread of the clusters around it (linearised variance), never below 1."""
    successes, sizes = clustered_counts(values, clusters)
    n, k = int(sizes.sum()), len(sizes)
    if weigh == "rows":
        rate = float(successes.sum() / n)
        away, independent = (successes - sizes * rate) / n, float(n)
    elif weigh == "clusters":
        rate = float((successes / sizes).mean())
        away, independent = (successes / sizes - rate) / k, float(k**2 / (1 / sizes).sum())
    else:
        raise ValueError(f"weigh={weigh!r} is unknown: expected 'rows' or 'clusters'.")
    if rate in (0.0, 1.0):
        return DesignEffect(rate, n / k, float(k), float(k - 1), n, k)
    # Shares of the squared deviations in their sum; of k normal ones the squared shares add up to 3 / k.
    total = float((away**2).sum())
    alone = float(((away**2 / total) ** 2).sum()) if total else 0.0
    freedom = k - 1 if alone <= 3 / k else 3 / alone - 1
    effective = min(independent, rate * (1 - rate) / (total * k / (k - 1))) if total else independent
    return DesignEffect(rate, n / effective, effective, float(freedom), n, k)


def clustered_counts(
    values: ArrayLike, clusters: Clusters
) -> tuple[Int[np.ndarray, " cluster"], Int[np.ndarray, " cluster"]]:
    """(successes, rows) of each cluster; raises ValueError for other values than 0 and 1, or fewer than 2 clusters."""
    values = finite(values, "values")
    index = cluster_index(clusters, len(values))
    if not np.isin(values, (0.0, 1.0)).all():
        raise ValueError("a rate is a mean of zeros and ones, and other values came: use cluster_interval for scores.")
    sizes = np.bincount(index)
    if len(sizes) < 2:
        raise ValueError(f"a clustered rate needs at least 2 clusters: {len(sizes)} came. One says nothing of spread.")
    return np.bincount(index, weights=values).astype(np.intp), sizes
