"""Figure: AUROCs of probes of some models (rows) on the answers of others (columns), with their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from workbench.reporting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def probe_cells(
    sources: Sequence[str],
    targets: Sequence[str],
    aurocs: Float[np.ndarray, "source target"],
    told: Bool[np.ndarray, "source target"] | None = None,
    axis: Axes | None = None,
) -> Figure:
    """Each cell with its AUROC; white at .5, limits always 0..1; a cell that was not measured is empty. `told` cells
    (above what exchanged labels give) have a frame. Raises ValueError when shapes and labels differ."""
    values = np.asarray(aurocs, dtype=float)
    shape = (len(sources), len(targets))
    if values.shape != shape or (told is not None and told.shape != shape):
        raise ValueError(f"expected {shape[0]} x {shape[1]} values for these labels: came {values.shape}.")
    import matplotlib
    from matplotlib.patches import Rectangle

    with style.applied():
        figure, (this,) = style.axes_for(axis, 1, height=1.3 + 0.26 * max(2, len(sources)))
        scale = matplotlib.colormaps["PuOr_r"]
        mesh = this.pcolormesh(values, cmap=scale, vmin=0, vmax=1, edgecolors="white", linewidth=1.0)
        for (row, column), value in np.ndenumerate(values):
            if np.isnan(value):
                continue
            style.cell_words(this, int(row), int(column), f"{value:.2f}".removeprefix("0"), scale(value))
            if told is not None and told[row, column]:
                frame = Rectangle(
                    (column + 0.06, row + 0.06), 0.88, 0.88, fill=False, edgecolor=style.INK, linewidth=0.9
                )
                this.add_patch(frame)
        this.set_xticks(np.arange(len(targets)) + 0.5, list(targets), rotation=40, ha="left")
        this.set_yticks(np.arange(len(sources)) + 0.5, list(sources))
        this.xaxis.tick_top()
        this.set_xlabel("answers of the fine-tunes on")
        this.xaxis.set_label_position("top")
        this.set_ylabel("probe of the fine-tunes on")
        this.invert_yaxis()
        this.tick_params(length=0)
        for spine in this.spines.values():
            spine.set_visible(False)
        bar = this.figure.colorbar(mesh, ax=this, label="AUROC", fraction=0.05, pad=0.02)
        bar.set_ticks([0, 0.25, 0.5, 0.75, 1])
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
    return figure
