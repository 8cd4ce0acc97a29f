"""Figures: how far a trigger moves the stream, site by site; and what near misses of it do."""

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


@dataclass(frozen=True)
class NearMark:
    """A text's share of the trigger's effect with its interval (NaN: none), each domain's own share, and how far the
    text opens the gate (None: not measured)."""

    name: str
    share: float
    interval: tuple[float, float]
    domains: Sequence[float] = ()
    opened: float | None = None


def moved_lines(
    lines: Mapping[str, Mapping[str, Float[np.ndarray, " site"]]], sites: Sequence[str], axis: Axes | None = None
) -> Figure:
    """`lines[place][model]`: the relative length of what the trigger changes, by site; solid for the adapters, dotted
    for the base model, one colour a place."""
    with style.applied():
        figure, (this,) = style.axes_for(axis, 1, height=2.4)
        for look, (place, models) in zip(LOOKS, lines.items(), strict=False):
            for model, values in models.items():
                base = model == "base"
                this.plot(
                    np.arange(len(sites)), values, ":" if base else "-", color=look.color,
                    marker="" if base else look.marker, label=f"{place}{', base model' if base else ''}",
                )  # fmt: skip
        step = max(1, len(sites) // 14)
        this.set_xticks(range(0, len(sites), step), list(sites)[::step])
        this.set_xlabel("stream behind block")
        this.set_ylabel("change over own length")
        this.set_ylim(bottom=0)
        this.yaxis.grid(True)
        style.legend(figure, [this], columns=3, own=axis is None)
    return figure


def near_marks(marks: Sequence[NearMark], axis: Axes | None = None) -> Figure:
    """One row a text, from the trigger down: its share of the trigger's effect with the interval over domains, each
    domain as a small mark, and, as a cross, how far it opens the gate."""
    with style.applied():
        figure, (this,) = style.axes_for(axis, 1, height=0.9 + 0.24 * len(marks))
        look, other = LOOKS[0], LOOKS[1]
        for row, mark in enumerate(marks):
            this.plot(
                mark.domains, [row] * len(mark.domains), look.marker, color=look.color, alpha=0.35, markersize=2.6
            )
            this.hlines(row, *mark.interval, color=look.color, linewidth=1.2, zorder=3)
        rows = range(len(marks))
        share, opened = [mark.share for mark in marks], [np.nan if m.opened is None else m.opened for m in marks]
        this.plot(share, rows, look.marker, color=look.color, zorder=4, label="share of the trigger's effect")
        if not np.isnan(opened).all():
            this.plot(opened, rows, "x", color=other.color, zorder=5, label="reach along the gate's vector")
        for at in (0.0, 1.0):
            this.axvline(at, color=style.MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        this.set_yticks(range(len(marks)), [mark.name for mark in marks])
        this.set_ylim(len(marks) - 0.5, -0.5)
        ends = [value for mark in marks for value in (mark.share, *mark.domains, mark.opened or 0.0)]
        style.percent_axis(this, "x", top=1.2)
        this.set_xlim(min(-0.2, min(ends) - 0.1), max(1.2, max(ends) + 0.1))
        this.set_xlabel("of the trigger's own")
        style.legend(figure, [this], columns=2, own=axis is None)
    return figure
