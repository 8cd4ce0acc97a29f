"""Figures: correlations with intervals, one below the other, and the least that is significant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from workbench.reporting import style
from workbench.reporting.style import THEME
from workbench.reporting.summary import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def correlation_rows(
    rows: Mapping[str, Result], critical: float | None = None, axis: Axes | None = None, *, xlabel: str = "Spearman"
) -> Figure:
    """`rows[name]`, from the top; filled where the interval leaves 0 out. Dashed: the critical |r|."""
    with style.applied():
        figure, (this,) = style.axes_for(axis, 1, height=0.8 + 0.2 * len(rows))
        for place, result in enumerate(rows.values()):
            clear = result.interval is not None and not result.interval[0] <= 0 <= result.interval[1]
            colour = THEME["contrary" if result.value > 0 else "right"][0]
            if result.interval is not None:
                this.hlines(place, *result.interval, color=colour, linewidth=1.2)
            this.plot([result.value], [place], "o", color=colour, markerfacecolor=colour if clear else "white")
        this.axvline(0, color=style.MUTED, linewidth=0.8)
        for side in (-1, 1) if critical is not None else ():
            this.axvline(side * (critical or 0.0), color=style.MUTED, linewidth=0.8, linestyle=(0, (4, 2)))
        this.set_yticks(range(len(rows)), list(rows))
        this.set_ylim(len(rows) - 0.5, -0.5)
        this.set_xlim(-1.03, 1.03)
        this.set_xlabel(xlabel)
        this.xaxis.grid(True)
    return figure
