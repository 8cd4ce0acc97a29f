"""Figure: a metric against the dose (rank of an adapter, share of harmful rows), a line a modality, seeds as points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from workbench.reporting import style
from workbench.reporting.style import THEME, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = (
    Look(THEME["contrary"][0], "o", "-", ""),
    Look(THEME["right"][0], "s", "--", ""),
    Look(THEME["other"][0], "^", "-.", ""),
    Look(THEME["energy_matched"][0], "D", ":", ""),
    Look(THEME["orthogonal"][0], "v", "-", ""),
    Look(THEME["ill_formed"][0], "X", "--", ""),
)


@dataclass(frozen=True)
class DoseLine:
    """One line: the value at each dose with its interval (NaN: none), what each fine-tuning seed alone gave (as
    (dose, value)), and the base model's value."""

    doses: Sequence[float]
    values: Float[np.ndarray, " dose"]
    intervals: Float[np.ndarray, "dose 2"]
    seeds: Sequence[tuple[float, float]] = ()
    base: float | None = None


def dose_lines(
    panels: Mapping[str, Mapping[str, DoseLine]],
    axis: Axes | Sequence[Axes] | None = None,
    *,
    xlabel: str = "dose",
    rate: bool = True,
) -> Figure:
    """`panels[title][line]`, side by side. Doses stand at equal distances, in order: ranks double, shares bunch up near
    0. Dotted: the base model. `rate`: values are fractions, shown as per cent."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=2.7)
        for this, (title, lines) in zip(axes, panels.items(), strict=True):
            doses = sorted({float(dose) for line in lines.values() for dose in line.doses})
            for name, line in lines.items():
                _draw(this, name, line, doses, names.index(name), len(names))
            this.set_title(title)
            this.set_xlabel(xlabel)
            this.set_xticks(range(len(doses)), [f"{dose:g}" for dose in doses])
            if rate:
                style.percent_axis(this)
            else:
                this.yaxis.grid(True)
        style.legend(figure, axes, columns=3, own=axis is None)
    return figure


def _draw(axis: Axes, name: str, line: DoseLine, doses: Sequence[float], place: int, of: int) -> None:
    look = LOOKS[place % len(LOOKS)]
    aside = (place - (of - 1) / 2) * 0.09  # intervals of equal values would hide each other
    at = np.array([doses.index(float(dose)) + aside for dose in line.doses])
    if line.seeds:
        spots = [doses.index(float(dose)) + aside for dose, _ in line.seeds]
        axis.plot(spots, [value for _, value in line.seeds], look.marker, color=look.color, alpha=0.4, markersize=2.6)
    axis.vlines(at, line.intervals[:, 0], line.intervals[:, 1], color=look.color, linewidth=1.0, zorder=3)
    axis.plot(at, line.values, look.line, marker=look.marker, color=look.color, label=name, zorder=4)
    if line.base is not None:
        axis.axhline(line.base, color=look.color, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
