"""Figure: what an edit changed, by where its direction was built and where it was applied; a panel a question set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from workbench.reporting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = {"different": "≠ 0", "equivalent": "≈ 0", "neither": "?"}  # what the test of equivalence says


@dataclass(frozen=True)
class RoutingPanel:
    """Rows are where directions were built, columns where they were applied. NaN: not possible. `intervals` and
    `verdicts` (of MARKS, "" where there is none) belong to the values."""

    built: Sequence[str]
    applied: Sequence[str]
    values: Float[np.ndarray, "built applied"]
    intervals: Float[np.ndarray, "built applied 2"]
    verdicts: Sequence[Sequence[str]]


def routing_panels(panels: Mapping[str, RoutingPanel], axis: Axes | Sequence[Axes] | None = None) -> Figure:
    """One matrix a panel, side by side, on one scale that is the same to both sides of 0: in each cell the change, what
    the test of equivalence says of it, and its interval. A combination that is not possible is hatched and says so."""
    import matplotlib
    from matplotlib.patches import Rectangle

    most = max((float(np.nanmax(np.abs(p.values))) for p in panels.values() if not np.isnan(p.values).all()), default=1)
    most = most or 1.0
    rows = max((len(panel.built) for panel in panels.values()), default=1)
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=0.8 + 0.55 * rows)
        scale = matplotlib.colormaps["PuOr_r"]
        for this, (title, panel) in zip(axes, panels.items(), strict=True):
            this.pcolormesh(panel.values, cmap=scale, vmin=-most, vmax=most, edgecolors="white", linewidth=1.5)
            for (row, column), value in np.ndenumerate(panel.values):
                if np.isnan(value):
                    hatched = Rectangle(
                        (column, row), 1, 1, fill=False, hatch="////", edgecolor=style.GRID, linewidth=0
                    )
                    this.add_patch(hatched)
                    lines = "not\npossible"
                else:
                    mark = MARKS.get(panel.verdicts[int(row)][int(column)], "")
                    low, high = panel.intervals[row, column]
                    ends = "" if np.isnan(low) else f"\n{_signed(low)}\nto {_signed(high)}"
                    lines = f"{_signed(value)} {mark}{ends}"
                color = scale(0.5 if np.isnan(value) else (value / most + 1) / 2)
                style.cell_words(this, int(row), int(column), lines, color)
            this.set_title(title)
            this.set_xticks(np.arange(len(panel.applied)) + 0.5, list(panel.applied))
            this.set_yticks(np.arange(len(panel.built)) + 0.5, list(panel.built))
            this.set_xlabel("edited at")
            this.tick_params(length=0)
            for spine in this.spines.values():
                spine.set_visible(False)
        axes[0].invert_yaxis()
        for this in axes[1:]:
            if this.yaxis_inverted() != axes[0].yaxis_inverted():  # axes of the user's own do not share their scale
                this.invert_yaxis()
        axes[0].set_ylabel("built at")
    return figure


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−").replace("−0.00", "0.00").replace("+0.00", "0.00")
