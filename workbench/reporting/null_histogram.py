"""Figure: an observed number against the distribution of the same number over control runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from workbench.reporting import style
from workbench.reporting.verdict import as_extreme
from workbench.statistics import Tail

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Observed:
    """One panel: a rate (fraction), the same rate in control runs by kind, and the rate without any edit.

    `tail` is the side that the claim is on: "less" or "greater".
    """

    value: float
    controls: Mapping[str, Float[np.ndarray, " _"]]
    tail: Tail = "less"
    reference: float | None = None


def null_distributions(panels: Mapping[str, Observed], axis: Axes | Sequence[Axes] | None = None) -> Figure:
    """One histogram per kind of control, the observed value as a line through all of them; panels side by side.

    Beside each histogram: how many runs are as extreme (ties count). Raises ValueError for a panel without draws.
    """
    for title, panel in panels.items():
        if not panel.controls or any(len(draws) == 0 for draws in panel.controls.values()):
            raise ValueError(f"{title!r} has no control draws to show: expected at least one kind, each with draws.")
    kinds = list(dict.fromkeys(kind for panel in panels.values() for kind in panel.controls))
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=0.95 + 0.52 * len(kinds))
        for this, (title, panel) in zip(axes, panels.items(), strict=True):
            _draw(this, panel, kinds)
            this.set_title(title)
        axes[0].set_yticks(
            range(len(kinds)), [style.control_look(kind).label.replace(", ", ",\n") for kind in kinds], va="bottom"
        )
        axes[0].set_ylim(len(kinds) - 0.85, -0.95)
        style.legend(figure, axes, columns=3, own=axis is None)
    return figure


def _draw(axis: Axes, panel: Observed, kinds: Sequence[str]) -> None:
    bins = np.linspace(0, 1, 41)
    for row, kind in enumerate(kinds):
        if kind not in panel.controls:
            continue
        draws, look = panel.controls[kind], style.control_look(kind)
        heights, _ = np.histogram(np.clip(draws, 0, 1), bins)
        scaled = 0.75 * heights / heights.max()
        axis.stairs(row - scaled, bins, baseline=row, fill=True, color=look.color, linewidth=0)
        axis.axhline(row, color=style.GRID, linewidth=0.8, zorder=0)
        words = f"{as_extreme(panel.value, draws, panel.tail)} of {len(draws)}\nas extreme"
        # Outside the panel: inside, some row's bars or lines would stand behind the words.
        beside = axis.get_yaxis_transform()
        axis.text(1.03, row, words, transform=beside, va="bottom", fontsize=style.SMALL, color=style.INK)
    color = style.RATES["contrary" if panel.tail == "less" else "right"].color
    axis.axvline(panel.value, color=color, linewidth=1.8, label=f"observed, {style.percent(panel.value)}")
    if panel.reference is not None:
        axis.axvline(panel.reference, color=style.MUTED, linestyle=(0, (6, 2)), linewidth=1.0, label="no edit")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    style.percent_axis(axis, "x")
    axis.set_xticks([0, 0.5, 1.0])
