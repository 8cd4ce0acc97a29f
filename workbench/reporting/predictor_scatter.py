"""Figure: domains as points, a feature against their measured misalignment, panels side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from workbench.reporting import style
from workbench.reporting.predictor_rows import DomainPoint
from workbench.reporting.style import THEME

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def predictor_scatter(
    panels: Mapping[str, tuple[str, Sequence[DomainPoint]]],
    axis: Axes | Sequence[Axes] | None = None,
    *,
    ylabel: str = "measured misalignment",
    rate: bool = True,
) -> Figure:
    """`panels[title] = (name of the feature, points)`; bars are the intervals of what was measured. No line is drawn:
    nothing was fitted. `rate`: fractions, shown as per cent."""
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=2.6)
        for this, (title, (feature, points)) in zip(axes, panels.items(), strict=True):
            for place, point in enumerate(sorted(points, key=lambda one: one.value)):
                if point.interval is not None:
                    this.vlines(point.value, *point.interval, color=THEME["isotropic"][0], linewidth=1.0, zorder=1)
                this.plot([point.value], [point.measured], "o", color=THEME["contrary"][0], zorder=3)
                side = 1 if place % 2 == 0 else -1  # neighbours' names would lie on each other
                this.annotate(
                    point.domain,
                    (point.value, point.measured),
                    xytext=(3, 4 * side),
                    textcoords="offset points",
                    fontsize=style.SMALL,
                    va="bottom" if side > 0 else "top",
                    color=style.INK,
                )
            this.set_title(title)
            this.set_xlabel(feature)
            this.margins(x=0.18)
            if rate:
                style.percent_axis(this)
            else:
                this.yaxis.grid(True)
        axes[0].set_ylabel(ylabel)
    return figure
