"""Figure: a behaviour over the number of dimensions that are taken out, or kept, against subspaces of equal energy."""

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


@dataclass(frozen=True)
class DimensionPanel:
    """One panel: the behaviour at each of `ks` with its interval (NaN: none). `controls`: kind -> draws by k, NaN where
    a k has none; `base` and `unedited` are the two ends; `beside`: other rates of the same answers (right, ill_formed),
    without which a broken model looks mended."""

    ks: Sequence[int]
    value: Float[np.ndarray, " k"]
    interval: Float[np.ndarray, "k 2"]
    controls: Mapping[str, Float[np.ndarray, "draw k"]] = field(default_factory=dict)
    base: float | None = None
    unedited: float | None = None
    beside: Mapping[str, Float[np.ndarray, " k"]] = field(default_factory=dict)


def behaviour_by_dimensions(
    panels: Mapping[str, DimensionPanel], axis: Axes | Sequence[Axes] | None = None, *, ylabel: str = "contrary answers"
) -> Figure:
    """The causal curve: one panel an entry, side by side. The band is the middle 95 % of the control draws, its line
    their mean; ticks are the ks, evenly spaced, since they grow by steps of their own."""
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=2.6)
        rates = all(_is_rate(panel) for panel in panels.values())
        for this, (title, panel) in zip(axes, panels.items(), strict=True):
            _draw(this, panel)
            this.set_title(title)
            this.set_xlabel("dimensions k")
            if rates:
                style.percent_axis(this)
            else:
                this.grid(True, axis="y")
        axes[0].set_ylabel(ylabel)
        style.legend(figure, axes, columns=3, own=axis is None)
    return figure


def _is_rate(panel: DimensionPanel) -> bool:
    ends = np.array([end for end in (panel.base, panel.unedited) if end is not None])
    numbers = np.concatenate([np.ravel(panel.value), np.ravel(panel.interval), ends])
    return bool(np.nanmin(numbers) >= 0 and np.nanmax(numbers) <= 1)


def _draw(axis: Axes, panel: DimensionPanel) -> None:
    at = np.arange(len(panel.ks), dtype=float)
    for kind, draws in panel.controls.items():
        look, there = style.control_look(kind), ~np.isnan(draws).all(axis=0)
        if there.any():
            low, high = np.nanquantile(draws[:, there], [0.025, 0.975], axis=0)
            axis.fill_between(at[there], low, high, color=look.color, alpha=0.3, linewidth=0, label=look.label)
            axis.plot(at[there], np.nanmean(draws[:, there], axis=0), look.line, color=look.color, linewidth=1.0)
    for end, words, line in ((panel.base, "base model", ":"), (panel.unedited, "fine-tune, unedited", "--")):
        if end is not None:
            axis.axhline(end, color=style.MUTED, linestyle=line, linewidth=0.9, label=words)
    for kind, values in panel.beside.items():
        look = style.RATES[kind]
        axis.plot(at, values, look.line, marker=look.marker, color=look.color, label=look.label, linewidth=0.9)
    look = style.RATES["contrary"]
    axis.vlines(at, panel.interval[:, 0], panel.interval[:, 1], color=look.color, linewidth=1.0, zorder=3)
    axis.plot(at, panel.value, "-", marker="o", color=look.color, label="this subspace", zorder=4)
    axis.set_xticks(at, [str(k) for k in panel.ks])
