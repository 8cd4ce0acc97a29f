"""Figure: domains by a metric, worst first, beside the ranks that tests and resampling leave open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.reporting import style
from workbench.reporting.dose_lines import LOOKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Ends = tuple[float, float] | None


@dataclass(frozen=True)
class RankRow:
    """One domain: value with interval, what each fine-tuning seed alone gave, the rank (1: worst) with the range that
    the tests leave open (`bounds`) and that of resampling (`drawn`), and the category that colours it."""

    domain: str
    value: float
    interval: Ends = None
    seeds: Sequence[float] = ()
    rank: float = 1.0
    bounds: Ends = None
    drawn: Ends = None
    category: str = ""


def ranking_plot(
    rows: Sequence[RankRow],
    axis: Sequence[Axes] | None = None,
    *,
    words: str = "misaligned answers",
    base: float | None = None,
    base_interval: Ends = None,
    rate: bool = True,
) -> Figure:
    """Two panels: values with 95 % intervals, small marks for single fine-tuning seeds, the base model dotted with its
    interval as a band; and ranks: thick what the tests leave open, thin the 95 % of resampled questions and trainings.
    Domains whose thick bars share ranks are ties."""
    categories = list(dict.fromkeys(row.category for row in rows))
    with style.applied():
        figure, (left, right) = style.axes_for(axis, 2, height=0.95 + 0.21 * len(rows), widths=[1.7, 1.0])
        if base_interval is not None:
            left.axvspan(*base_interval, color=style.THEME["isotropic"][0], alpha=0.25, linewidth=0)
        if base is not None:
            left.axvline(base, color=style.INK, linewidth=0.9, linestyle=(0, (1, 2)), label="base model")
        for place, row in enumerate(rows):
            look = LOOKS[categories.index(row.category) % len(LOOKS)]
            if row.interval is not None:
                left.hlines(place, *row.interval, color=look.color, linewidth=1.2, zorder=3)
            left.plot(row.seeds, [place] * len(row.seeds), look.marker, color=look.color, alpha=0.4, markersize=2.6)
            left.plot(row.value, place, look.marker, label=row.category or None, color=look.color, zorder=4)
            if row.bounds is not None:
                right.hlines(place, *row.bounds, color=look.color, linewidth=5, alpha=0.35, zorder=2)
            if row.drawn is not None:
                right.hlines(place, *row.drawn, color=look.color, linewidth=1.0, zorder=3)
            right.plot(row.rank, place, look.marker, color=look.color, zorder=4)
        left.set_xlabel(words)
        right.set_xlabel("rank (1: worst)")
        if rate:
            style.percent_axis(left, "x")
        else:
            left.xaxis.grid(True)
        right.xaxis.grid(True)
        right.set_xlim(0.4, len(rows) + 0.6)
        right.set_xticks(range(1, len(rows) + 1, 1 if len(rows) <= 11 else 5))
        for this in (left, right):
            this.set_yticks(range(len(rows)), [row.domain for row in rows])
            this.set_ylim(len(rows) - 0.4, -0.6)
            this.tick_params(axis="y", length=0)
        if axis is None:
            right.tick_params(labelleft=False)
        style.legend(figure, [left], columns=4, own=axis is None)
    return figure
