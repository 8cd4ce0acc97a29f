"""Figure: a matrix of domains by domains of questions, each domain's own questions framed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from workbench.reporting import style
from workbench.reporting.matrix import MOST_UPRIGHT, _annotated, _per_cent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def domain_matrix_plot(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Float[np.ndarray, "row column"],
    axis: Axes | None = None,
    *,
    words: str = "misaligned answers",
    rate: bool = True,
) -> Figure:
    """Each cell with its number (`rate`: per cent); empty: not measured. Raises ValueError when shape and labels
    differ."""
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"expected a matrix of {len(rows)} x {len(columns)} for these labels: came {values.shape}.")
    ends = (0.0, 1.0) if rate or not np.isfinite(values).any() else _limits(values)
    text = _per_cent if rate else "{:.3g}".format
    figure = _annotated(values, rows, columns, axis, colors="Oranges", limits=ends, words=words, text=text)
    from matplotlib.patches import Rectangle

    this = axis if axis is not None else figure.axes[0]
    with style.applied():
        if len(columns) > MOST_UPRIGHT and axis is None:
            figure.set_size_inches(style.COLUMN, 1.2 + 0.3 * len(rows))
        for row, column in ((r, c) for r, one in enumerate(rows) for c, other in enumerate(columns) if one == other):
            frame = Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, fill=False, edgecolor=style.INK, linewidth=1.1)
            this.add_patch(frame)
    return figure


def _limits(values: Float[np.ndarray, "row column"]) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return (low, high) if high > low else (low - 0.5, high + 0.5)
