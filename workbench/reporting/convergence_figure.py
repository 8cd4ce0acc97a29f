"""Figures: an agreement (a cosine, an overlap) by layer against bands of chance, and the cosines of many domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from workbench.reporting import style
from workbench.reporting.dose_lines import LOOKS
from workbench.reporting.matrix import cosine_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AgreementLine:
    """One line: the value at each layer, its interval and the 5 to 95 % of chance (NaN: none)."""

    layers: Sequence[int]
    values: Float[np.ndarray, " layer"]
    intervals: Float[np.ndarray, "layer 2"] | None = None
    chance: Float[np.ndarray, "layer 2"] | None = None


def agreement_by_layer(
    panels: Mapping[str, Mapping[str, AgreementLine]], axis: Axes | Sequence[Axes] | None = None
) -> Figure:
    """`panels[title][line]`, side by side; from the least value to 1. Bars are intervals, shaded bands are chance."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=2.6)
        for this, (title, lines) in zip(axes, panels.items(), strict=True):
            layers = sorted({layer for line in lines.values() for layer in line.layers})
            for name, line in lines.items():
                _draw(this, name, line, names.index(name), len(names))
            this.axhline(0.0, color=style.MUTED, linewidth=0.6, zorder=1)
            this.set_title(title)
            this.set_xlabel("layer (counted from 0)")
            this.set_xticks(layers if len(layers) <= 8 else layers[:: max(1, len(layers) // 6)])
            this.yaxis.grid(True)
            this.set_ylim(top=1.05)
        style.legend(figure, axes, columns=3, own=axis is None)
    return figure


def domain_cosines(
    domains: Sequence[str], cosines: Float[np.ndarray, "domain domain"], axis: Axes | None = None
) -> Figure:
    """`cosine_matrix` of many domains, whose names would run into each other: they are written aslant."""
    figure = cosine_matrix(domains, cosines, axis)
    for label in (axis or figure.axes[0]).get_xticklabels():
        label.set(rotation=40, ha="left", rotation_mode="anchor")
    return figure


def _draw(axis: Axes, name: str, line: AgreementLine, place: int, of: int) -> None:
    look = LOOKS[place % len(LOOKS)]
    layers = np.asarray(line.layers, dtype=float)
    aside = (place - (of - 1) / 2) * 0.06  # bars of equal values would hide each other
    if line.chance is not None:
        axis.fill_between(layers, line.chance[:, 0], line.chance[:, 1], color=look.color, alpha=0.18, linewidth=0)
    if line.intervals is not None:
        axis.vlines(layers + aside, line.intervals[:, 0], line.intervals[:, 1], color=look.color, linewidth=1.0)
    axis.plot(layers + aside, line.values, look.line, marker=look.marker, color=look.color, label=name, zorder=4)
