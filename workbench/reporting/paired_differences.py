"""Figure: paired differences with their intervals, one below the other, a panel a kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.reporting import style
from workbench.reporting.style import THEME

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Gap:
    """A difference, its interval, and whether the interval leaves 0 out."""

    value: float
    interval: tuple[float, float] | None = None

    @property
    def clear(self) -> bool:
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def paired_differences(
    panels: Mapping[str, Mapping[str, Gap]], axis: Axes | Sequence[Axes] | None = None, *, rate: bool = True
) -> Figure:
    """`panels[title][row]`, stacked; filled where the interval leaves 0 out. `rate`: fractions, shown in points."""
    most = max((len(rows) for rows in panels.values()), default=1)
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=0.55 + 0.17 * most, stacked=True)
        for this, (title, rows) in zip(axes, panels.items(), strict=True):
            for place, gap in enumerate(rows.values()):
                colour = THEME["contrary" if gap.value > 0 else "right"][0]
                if gap.interval is not None:
                    this.hlines(place, *gap.interval, color=colour, linewidth=1.2)
                face = colour if gap.clear else "white"
                this.plot([gap.value], [place], "o", color=colour, markerfacecolor=face, zorder=3)
            this.axvline(0, color=style.MUTED, linewidth=0.8)
            this.set_yticks(range(len(rows)), list(rows))
            this.set_ylim(len(rows) - 0.5, -0.5)
            this.set_title(title)
            this.xaxis.grid(True)
            if rate:
                style.percent_axis(this, "x")
                this.set_xlim(-1.03, 1.03)
                this.set_xticks([-1, -0.5, 0, 0.5, 1])
    return figure
