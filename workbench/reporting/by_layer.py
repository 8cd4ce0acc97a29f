"""Figure: a rate at each layer, with its interval, against what random directions do at the same layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from workbench.reporting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DODGE_UP_TO = 12
"""Up to this many layers each control gets a bar of its own beside the point; above, continuous bands."""


@dataclass(frozen=True)
class LayerCurve:
    """One panel: a rate (fraction) by layer. NaN marks what was not measured."""

    layers: Sequence[int]
    value: Float[np.ndarray, " layer"]
    interval: Float[np.ndarray, "layer 2"] | None = None
    controls: Mapping[str, Float[np.ndarray, "_ layer"]] = field(default_factory=dict)
    base: float | None = None
    tuned: float | None = None
    every_layer: float | None = None


def rate_by_layer(
    panels: Mapping[str, LayerCurve],
    axis: Axes | Sequence[Axes] | None = None,
    *,
    rate: str = "contrary",
    ylabel: str = "contrary answers",
) -> Figure:
    """The rate after an edit at one layer, by layer: one stacked panel per entry (text, image), one figure.

    Points with interval bars are the direction under study; beside them each control's 5-95 % range (thick) and
    min..max (thin). Horizontal lines: the base and the fine-tuned model, and the edit at all layers at once.
    """
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=1.95, stacked=True)
        for this, (title, curve) in zip(axes, panels.items(), strict=True):
            _draw(this, curve, style.RATES[rate])
            this.set_title(title)
            this.set_ylabel(ylabel)
            style.percent_axis(this)
        axes[-1].set_xlabel("layer edited (counted from 0)")
        style.legend(figure, axes, columns=3, own=axis is None)
    return figure


def _draw(axis: Axes, curve: LayerCurve, look: style.Look) -> None:
    layers = np.asarray(curve.layers, dtype=float)
    for level, words, line in (
        (curve.tuned, "fine-tuned, no edit", (0, (6, 2))),
        (curve.base, "base model", (0, (1, 1.5))),
        (curve.every_layer, "edited at all layers", "-"),
    ):
        if level is not None:
            color = look.color if words == "edited at all layers" else style.MUTED
            axis.axhline(level, color=color, linestyle=line, linewidth=1.0, label=words, zorder=1)
    dodged = len(layers) <= DODGE_UP_TO
    for order, (kind, draws) in enumerate(curve.controls.items()):
        measured = ~np.isnan(draws).all(axis=0)
        if not measured.any():
            continue
        at = layers[measured]
        low, five, ninety_five, high = np.nanpercentile(draws[:, measured], [0, 5, 95, 100], axis=0)
        control = style.control_look(kind)
        if dodged:
            at = at + 0.17 * (order + 1)
            axis.vlines(at, low, high, color=control.color, linewidth=1.0, zorder=2)
            axis.vlines(at, five, ninety_five, color=control.color, linewidth=4.5, label=control.label, zorder=2)
            # A control that never moves has a range of length zero: the tick keeps it visible.
            axis.plot(at, np.nanmedian(draws[:, measured], axis=0), "_", color=control.color, markersize=5, zorder=2)
        else:
            axis.fill_between(at, five, ninety_five, color=control.color, alpha=0.35, linewidth=0, label=control.label)
            for edge in (low, high):
                axis.plot(at, edge, color=control.color, linestyle=control.line, linewidth=0.8)
    if curve.interval is not None:
        axis.vlines(layers, curve.interval[:, 0], curve.interval[:, 1], color=look.color, linewidth=1.2, zorder=3)
    axis.plot(layers, curve.value, look.marker, color=look.color, label="this direction", zorder=4)
    if not dodged:
        axis.plot(layers, curve.value, color=look.color, linewidth=1.0, zorder=3)
    if dodged:
        axis.set_xticks(layers, [str(int(layer)) for layer in layers])
