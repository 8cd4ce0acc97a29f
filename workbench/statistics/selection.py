"""The best candidate is chosen on dev items; what is reported is its value on items that took no part in the choice."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from stores.printed import Printed
from workbench.statistics.clusters import Clusters, cluster_interval, cluster_means
from workbench.statistics.intervals import Interval
from workbench.statistics.rates import clustered_wilson
from workbench.statistics.values import Bounds, finite


@dataclass(frozen=True)
class Selected(Printed):
    """The candidate that won on dev, and its held-out `value` with interval: the result.

    `dev_value` is kept to show how much of it was luck of the choice (`dev_value - value`); it is no result. `tied` are
    candidates that were as good on dev and came later.
    """

    winner: Hashable
    value: float
    interval: Interval
    dev_value: float
    candidates: int
    tied: tuple[Hashable, ...]

    def __str__(self) -> str:
        return (
            f"{self.winner}, best of {self.candidates} on dev items: held-out {self.value:.3g} {self.interval}; "
            f"the dev value that chose it, {self.dev_value:.3g}, is no result"
        )


def selected(
    dev_scores: Mapping[Hashable, ArrayLike],
    confirm_scores: Mapping[Hashable, ArrayLike] | Callable[[Hashable], ArrayLike],
    *,
    clusters: Clusters | None = None,
    best: Literal["greatest", "least"] = "greatest",
    level: float = 0.95,
    bounds: Bounds | None = None,
) -> Selected:
    """Chooses by the mean dev score, and reports the mean held-out score of the winner.

    Scores are one number an item (or one summary). `confirm_scores` may be a function of the winner, so that nothing
    else is ever measured on held-out items. `clusters` names each held-out value's cluster; then the value is the mean
    of cluster means. Zeros and ones get the cluster-adjusted Wilson interval, other values `cluster_interval`.
    """
    if not dev_scores:
        raise ValueError("selected: no candidate came in dev_scores, expected at least one.")
    if best not in ("greatest", "least"):
        raise ValueError(f"best={best!r} is unknown: expected 'greatest' or 'least'.")
    sign = 1.0 if best == "greatest" else -1.0
    means = {name: _mean(scores, f"dev_scores[{name!r}]") for name, scores in dev_scores.items()}
    winner = max(means, key=lambda name: sign * means[name])
    tied = tuple(name for name, mean in means.items() if name != winner and mean == means[winner])
    if not callable(confirm_scores) and winner not in confirm_scores:
        raise ValueError(f"selected: {winner!r} won on dev but has no held-out scores; measure it there.")
    held_out = finite(confirm_scores(winner) if callable(confirm_scores) else confirm_scores[winner], "confirm_scores")
    groups = range(len(held_out)) if clusters is None else clusters
    if bounds is None and np.isin(held_out, (0.0, 1.0)).all():
        interval = clustered_wilson(held_out, groups, weigh="clusters", level=level)
    else:
        interval = cluster_interval(held_out, groups, level=level, bounds=bounds)
    value = float(cluster_means(held_out, groups).mean())
    return Selected(winner, value, interval, means[winner], len(means), tied)


def _mean(scores: ArrayLike, name: str) -> float:
    values = finite(scores, name)
    if not len(values):
        raise ValueError(f"{name} holds no score: expected at least one choice with a number.")
    return float(values.mean())
