"""Figures: annotated matrices. Cosines between directions; rates of source x target pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from workbench.reporting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NUMBERED = 12  # columns; in more, numbers that can be read would run into each other, and the colour speaks alone
MOST_UPRIGHT = 8


def cosine_matrix(
    labels: Sequence[str], cosines: Float[np.ndarray, "direction direction"], axis: Axes | None = None
) -> Figure:
    """Cosines between directions, each cell with its number. Diverging colours, limits always -1..1, white at 0.

    Raises ValueError when the matrix is not square, does not fit its labels, or leaves -1..1.
    """
    values = np.asarray(cosines, dtype=float)
    if values.shape != (len(labels), len(labels)):
        raise ValueError(
            f"expected a matrix of {len(labels)} x {len(labels)} for {len(labels)} labels: {values.shape}."
        )
    if np.nanmax(np.abs(values), initial=0.0) > 1 + 1e-6:
        raise ValueError(f"cosines lie in -1..1; the largest here is {np.nanmax(np.abs(values)):.3g}. Normalise first.")
    return _annotated(
        values, labels, labels, axis, colors="PuOr_r", limits=(-1.0, 1.0), words="cosine", text=_two_digits
    )


def transfer_matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    rates: Float[np.ndarray, "row column"],
    axis: Axes | None = None,
    *,
    words: str = "contrary answers",
) -> Figure:
    """Rates (fractions) of every row x column pair, each cell with its per cent; an empty cell was not measured.

    Raises ValueError when shape and labels differ.
    """
    values = np.asarray(rates, dtype=float)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"expected a matrix of {len(rows)} x {len(columns)} for these labels: came {values.shape}.")
    return _annotated(values, rows, columns, axis, colors="Oranges", limits=(0.0, 1.0), words=words, text=_per_cent)


def _two_digits(value: float) -> str:
    # "-0.00" reads as a finding; it is rounding.
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("0.", ".").replace("-", "−")


def _per_cent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _annotated(
    values: Float[np.ndarray, "row column"],
    rows: Sequence[str],
    columns: Sequence[str],
    axis: Axes | None,
    *,
    colors: str,
    limits: tuple[float, float],
    words: str,
    text: Callable[[float], str],
) -> Figure:
    import matplotlib

    with style.applied():
        cell = 0.34 if max(values.shape) <= 8 else 0.28
        figure, (this,) = style.axes_for(axis, 1, height=0.75 + cell * max(2, len(rows)))
        scale = matplotlib.colormaps[colors]
        # Cells as vector rectangles: an image would be resampled, and blurred in some viewers.
        mesh = this.pcolormesh(values, cmap=scale, vmin=limits[0], vmax=limits[1], edgecolors="white", linewidth=1.5)
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value) and values.shape[1] <= MOST_NUMBERED:
                color = scale((value - limits[0]) / (limits[1] - limits[0]))
                style.cell_words(this, int(row), int(column), text(value), color)
        if len(columns) <= MOST_UPRIGHT:
            width = max(6, 52 // len(columns))
            this.set_xticks(np.arange(len(columns)) + 0.5, [_wrapped(name, width) for name in columns])
        else:  # names side by side would run into each other
            this.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=40, ha="left", rotation_mode="anchor")
        this.set_yticks(np.arange(len(rows)) + 0.5, [_wrapped(name, 24) for name in rows])
        this.invert_yaxis()
        this.tick_params(length=0)
        this.xaxis.tick_top()
        for spine in this.spines.values():
            spine.set_visible(False)
        ticks = np.linspace(*limits, 5 if len(rows) > 2 else 3).tolist()
        bar = this.figure.colorbar(mesh, ax=this, label=words if len(rows) > 2 else "", fraction=0.05, pad=0.02)
        bar.set_ticks(ticks, labels=[text(tick) for tick in ticks])
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
    return figure


def _wrapped(label: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(label, width, break_long_words=False)) or label
