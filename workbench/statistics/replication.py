"""Rows that repeat one label are no replication: the guard against p values of samples where only domains vary."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np

from workbench.statistics.clusters import Clusters, cluster_index


class PseudoReplication(ValueError):
    """A label is constant within groups, so a statistic over rows would count each group many times."""


class PseudoReplicationWarning(UserWarning):
    """The same, where the caller asked for a warning."""


def clustered(
    labels: Any, groups: Clusters, *, then: Literal["refuse", "warn"] = "refuse", name: str = "the label"
) -> int:
    """The number of independent units for statistics that relate `labels` to other values of the same rows.

    A label that varies within some group is one of rows: their number comes back (for intervals of means, clusters
    matter all the same). One that is constant within every group, such as the domain's rate repeated for each of
    its samples, has only as many values as there are groups: PseudoReplication, with that number; with `then="warn"` a
    PseudoReplicationWarning, and the number of groups comes back. The mend is `cluster_means(values, groups)` on both
    sides. `labels` are numbers or names, one a row.
    """
    if then not in ("refuse", "warn"):
        raise ValueError(f"then={then!r} is unknown: expected 'refuse' or 'warn'.")
    values = list(labels)
    index = cluster_index(groups, len(values))
    count = int(index.max(initial=-1)) + 1
    first: dict[int, Any] = {}
    constant = all(first.setdefault(int(group), value) == value for group, value in zip(index, values, strict=True))
    if not constant or count == len(values):
        return len(values)
    largest = int(np.bincount(index).max())
    message = (
        f"{name} is constant within each of {count} groups (the largest has {largest} of {len(values)} rows): n is "
        f"{count}, not {len(values)}. Average the rows of each group first: cluster_means(values, groups)."
    )
    if then == "refuse":
        raise PseudoReplication(message)
    warnings.warn(message, PseudoReplicationWarning, stacklevel=2)
    return count
