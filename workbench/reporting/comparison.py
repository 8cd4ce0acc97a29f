"""Figure: conditions side by side as horizontal bars with intervals, text and image apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.reporting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Bar:
    """A rate (fraction) and its interval."""

    value: float
    interval: tuple[float, float] | None = None


def condition_bars(
    panels: Mapping[str, Mapping[str, Mapping[str, Bar]]], axis: Axes | Sequence[Axes] | None = None
) -> Figure:
    """Bars of every condition: `panels[modality][condition][rate]`, with rate in contrary, right, other, ill_formed.

    Panels stand side by side and share their conditions, in the order of the first appearance; a missing bar is a
    rate that was not measured. Interval bars are drawn where there are intervals.
    """
    conditions = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    rates = [kind for kind in style.RATES if any(kind in bars for p in panels.values() for bars in p.values())]
    thick = 0.8 / max(1, len(rates))
    with style.applied():
        height = 0.75 + len(conditions) * max(0.36, 0.19 * len(rates))
        figure, axes = style.axes_for(axis, len(panels), height=height)
        for this, (title, panel) in zip(axes, panels.items(), strict=True):
            for place, kind in enumerate(rates):
                look = style.RATES[kind]
                drawn = [(row, panel[name][kind]) for row, name in enumerate(conditions) if kind in panel.get(name, {})]
                at = [row + (place - (len(rates) - 1) / 2) * thick for row, _ in drawn]
                this.barh(at, [bar.value for _, bar in drawn], 0.8 * thick, color=look.color, label=look.label)
                for y, (_, bar) in zip(at, drawn, strict=True):
                    low, high = bar.interval or (bar.value, bar.value)
                    this.hlines(y, low, high, color=style.INK, linewidth=1.0, zorder=3)
                    number = style.percent(bar.value)[:-2]
                    this.text(max(high, bar.value) + 0.025, y, number, va="center", fontsize=style.SMALL)
            this.set_title(title)
            style.percent_axis(this, "x")
            # Room at the right for the number beside a bar that ends at 100 %; three ticks fit half a column.
            this.set_xlim(0, 1.16)
            this.set_xticks([0, 0.5, 1.0])
            this.tick_params(axis="y", length=0)
            this.spines["left"].set_visible(False)
        axes[0].set_yticks(range(len(conditions)), conditions)
        axes[0].set_ylim(len(conditions) - 0.5, -0.5)
        style.legend(figure, axes, columns=len(rates), own=axis is None)
    return figure
