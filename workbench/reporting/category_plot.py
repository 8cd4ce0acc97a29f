"""Figure: the domains' values by category, every domain a mark with its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from workbench.reporting import style
from workbench.reporting.dose_lines import LOOKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMES = 16  # above, names would hide each other


def category_plot(
    categories: Mapping[str, Mapping[str, float]],
    axis: Axes | None = None,
    *,
    words: str = "misaligned answers",
    base: float | None = None,
    rate: bool = True,
) -> Figure:
    """`categories[name][domain]`: a column a category, its mean a bar; dotted: the base model. Domains are few, so they
    stand as they are: quartiles of four values would say no more."""
    every = [value for own in categories.values() for value in own.values()]
    low, high = (0.0, 1.0) if rate else (min(every), max(every))
    with style.applied():
        figure, (this,) = style.axes_for(axis, 1, height=3.0)
        for column, (name, own) in enumerate(categories.items()):
            look = LOOKS[column % len(LOOKS)]
            mean = sum(own.values()) / len(own)
            this.hlines(mean, column - 0.3, column - 0.05, color=look.color, linewidth=2.2, alpha=0.5)
            this.plot([column] * len(own), list(own.values()), look.marker, color=look.color, label=name)
            for domain, height in _spread(own, 0.052 * (high - low)).items() if len(every) <= MOST_NAMES else ():
                this.annotate(
                    domain, (column, height), (7, 0), textcoords="offset points", va="center", fontsize=style.SMALL
                )
        if base is not None:
            this.axhline(base, color=style.INK, linewidth=0.9, linestyle=(0, (1, 2)))
            this.annotate("base model", (-0.42, base), (0, 3), textcoords="offset points", fontsize=style.SMALL)
        this.set_xticks(range(len(categories)), [f"{name}\n({len(own)} domains)" for name, own in categories.items()])
        this.set_xlim(-0.45, len(categories) - 0.3)
        this.set_ylabel(words)
        if rate:
            style.percent_axis(this)
            this.set_ylim(-0.06, 1.06)
        else:
            this.yaxis.grid(True)
    return figure


def _spread(values: Mapping[str, float], least: float) -> dict[str, float]:
    """Heights of names, in the order of the values and at least so far apart, around where the values are."""
    ordered = sorted(values, key=lambda name: values[name])
    heights: dict[str, float] = {}
    runs: list[list[str]] = []
    for name in ordered:
        if runs and values[name] - values[runs[-1][-1]] < least:
            runs[-1].append(name)
        else:
            runs.append([name])
    for run in runs:
        middle = sum(values[name] for name in run) / len(run)
        heights |= {name: middle + least * (n - (len(run) - 1) / 2) for n, name in enumerate(run)}
    return heights
