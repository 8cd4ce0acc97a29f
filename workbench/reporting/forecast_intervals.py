"""Figure: what was foretold for every domain, what the mean of the others foretells, and what came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.reporting import style
from workbench.reporting.style import THEME

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Ends = tuple[float, float] | None


@dataclass(frozen=True)
class ForecastRow:
    """One domain. `measured` is None for one that nobody fine-tuned on; an interval is None where it is infinite."""

    domain: str
    predicted: float
    interval: Ends
    of_mean: float | None = None
    mean_interval: Ends = None
    measured: float | None = None
    measured_interval: Ends = None

    @property
    def held(self) -> bool | None:
        if self.measured is None or self.interval is None:
            return None
        return self.interval[0] <= self.measured <= self.interval[1]


def forecast_intervals(
    rows: Sequence[ForecastRow], axis: Axes | None = None, *, xlabel: str = "misalignment", rate: bool = True
) -> Figure:
    """From the top; filled marks are what was measured. `rate`: fractions, shown as per cent."""
    with style.applied():
        figure, (this,) = style.axes_for(axis, 1, height=0.9 + 0.27 * len(rows))
        for place, row in enumerate(rows):
            _line(this, place - 0.2, row.predicted, row.interval, THEME["right"][0], "s", "foretold, with its interval")
            if row.of_mean is not None:
                colour = THEME["isotropic"][0]
                _line(this, place + 0.2, row.of_mean, row.mean_interval, colour, "|", "mean of the other domains")
            if row.measured is not None:
                _line(this, place, row.measured, row.measured_interval, THEME["contrary"][0], "o", "measured")
        this.set_yticks(range(len(rows)), [row.domain for row in rows])
        this.set_ylim(len(rows) - 0.5, -0.5)
        this.set_xlabel(xlabel)
        if rate:
            style.percent_axis(this, "x")
        else:
            this.xaxis.grid(True)
        style.legend(figure, [this], columns=3, own=axis is None)
    return figure


def _line(axis: Axes, y: float | int, value: float, ends: Ends, colour: str, marker: str, label: str) -> None:
    if ends is not None:
        axis.hlines(y, *ends, color=colour, linewidth=1.2)
    face = colour if marker == "o" else "white"
    axis.plot([value], [y], marker, color=colour, markerfacecolor=face, linestyle="none", label=label, zorder=3)
