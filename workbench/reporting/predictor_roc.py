"""Figure: ROC curves over domains, unfitted features, with the band in which random orders lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from workbench.reporting import style
from workbench.reporting.dose_lines import LOOKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANDOM_ORDERS = 4000


@dataclass(frozen=True)
class RocCurve:
    """Corners of the curve from (0, 0) to (1, 1); ties are one slanted step."""

    others: Float[np.ndarray, " corner"]
    found: Float[np.ndarray, " corner"]


def roc_curve(values: Sequence[float | int], misaligned: Sequence[bool]) -> RocCurve | None:
    """Of oriented values (higher: more likely misaligned); None where all domains are on one side."""
    x, marked = np.asarray(values, dtype=float), np.asarray(misaligned, dtype=bool)
    if marked.all() or not marked.any():
        return None
    cuts = np.unique(x)[::-1]
    found = [0.0, *((x[marked] >= cut).mean() for cut in cuts)]
    others = [0.0, *((x[~marked] >= cut).mean() for cut in cuts)]
    return RocCurve(np.array(others), np.array(found))


def random_band(
    misaligned: int, others: int, share: float = 0.9, seed: int = 0
) -> tuple[Float[np.ndarray, " step"], Float[np.ndarray, " step"]]:
    """At each number of others passed, between which shares of the misaligned the middle of random orders has found:
    low and high, over 0..others."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([True, False], [misaligned, others])
    drawn = rng.permuted(np.broadcast_to(labels, (RANDOM_ORDERS, len(labels))), axis=1)
    before = np.cumsum(drawn, axis=1) / misaligned  # found so far, at each place of the order
    passed = np.cumsum(~drawn, axis=1)
    found = np.array([[row[count <= j].max(initial=0.0) for j in range(others + 1)]
                      for row, count in zip(before, passed, strict=True)])  # fmt: skip
    low, high = np.quantile(found, [(1 - share) / 2, (1 + share) / 2], axis=0)
    return low, high


def predictor_roc(
    panels: Mapping[str, Mapping[str, RocCurve]],
    misaligned: int,
    others: int,
    axis: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """`panels[title][feature]`; grey: where nine in ten random orders of as many domains lie, point by point."""
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    low, high = random_band(misaligned, others)
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=3.0)
        for this, (title, curves) in zip(axes, panels.items(), strict=True):
            steps = np.arange(others + 1) / others
            this.fill_between(steps, low, high, step="post", color=style.GRID, linewidth=0, label="random orders")
            this.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
            for name, curve in curves.items():
                look = LOOKS[names.index(name) % len(LOOKS)]
                this.plot(curve.others, curve.found, look.line, marker=look.marker, markersize=2.5,
                          color=look.color, label=name, linewidth=1.1)  # fmt: skip
            this.set_title(title)
            this.set_xlabel("other domains passed")
            this.set_aspect("equal", adjustable="box")
            style.percent_axis(this, "x")
            style.percent_axis(this)
            this.set_xticks([0, 0.5, 1.0])
        axes[0].set_ylabel("misaligned domains found")
        style.legend(figure, axes, columns=3, own=axis is None)
    return figure
