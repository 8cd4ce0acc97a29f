"""Figure: the specificity index of donors' directions (rows) in recipients (columns), a panel an operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from workbench.reporting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TransferPanel:
    """NaN: not measurable. `told` cells lie above every matched control and have a frame; `own` cells are the
    recipient's own direction or domain, and are underlined."""

    donors: Sequence[str]
    recipients: Sequence[str]
    values: Float[np.ndarray, "donor recipient"]
    told: Bool[np.ndarray, "donor recipient"]
    own: Bool[np.ndarray, "donor recipient"]


def transfer_panels(
    panels: Mapping[str, TransferPanel], axis: Axes | Sequence[Axes] | None = None, *, words: str = "specificity index"
) -> Figure:
    """One matrix below another, all on one scale that is white at 0 and ends at -1 and 1 (values beyond keep the end's
    colour and their number). A cell that is not measurable is hatched. Raises ValueError when shapes and labels
    differ."""
    import matplotlib
    from matplotlib.patches import Rectangle

    for title, panel in panels.items():
        shape = (len(panel.donors), len(panel.recipients))
        if any(part.shape != shape for part in (panel.values, panel.told, panel.own)):
            raise ValueError(f"{title}: expected {shape[0]} x {shape[1]} cells for these labels.")
    rows = max((len(panel.donors) for panel in panels.values()), default=1)
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=0.75 + 0.2 * max(3, rows), stacked=True)
        scale = matplotlib.colormaps["PuOr_r"]
        mesh = None
        for this, (title, panel) in zip(axes, panels.items(), strict=True):
            mesh = this.pcolormesh(panel.values, cmap=scale, vmin=-1, vmax=1, edgecolors="white", linewidth=1.0)
            for (row, column), value in np.ndenumerate(panel.values):
                if np.isnan(value):
                    hatch = Rectangle((column, row), 1, 1, fill=False, hatch="////", edgecolor=style.GRID, linewidth=0)
                    this.add_patch(hatch)
                    continue
                color = scale((np.clip(value, -1, 1) + 1) / 2)
                style.cell_words(this, int(row), int(column), _short(value), color)
                if panel.own[row, column]:
                    ink = this.texts[-1].get_color()
                    this.plot([column + 0.25, column + 0.75], [row + 0.88] * 2, color=ink, linewidth=0.7)
                if panel.told[row, column]:
                    frame = Rectangle(
                        (column + 0.05, row + 0.05), 0.9, 0.9, fill=False, edgecolor=style.INK, linewidth=0.8
                    )
                    this.add_patch(frame)
            this.set_title(title)
            this.set_xticks(np.arange(len(panel.recipients)) + 0.5, list(panel.recipients), rotation=30, ha="right")
            this.tick_params(labelbottom=True, length=0)
            this.set_yticks(np.arange(len(panel.donors)) + 0.5, list(panel.donors))
            this.set_ylabel("direction of")
            if not this.yaxis_inverted():
                this.invert_yaxis()
            for spine in this.spines.values():
                spine.set_visible(False)
        axes[-1].set_xlabel("carried into the fine-tune on")
        if mesh is not None and axis is None:
            bar = figure.colorbar(mesh, ax=axes, label=words, fraction=0.04, pad=0.02, ticks=[-1, -0.5, 0, 0.5, 1])
            bar.outline.set_visible(False)
            bar.ax.tick_params(length=0)
    return figure


def _short(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".").replace("-", "−").replace("−.00", ".00")
