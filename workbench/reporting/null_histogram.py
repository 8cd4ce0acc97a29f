"""Figure: an observed number against the distribution of the same number over control runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from workbench.reporting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def null_distributions(
    observed: float,
    controls: Mapping[str, Float[np.ndarray, " draw"]],
    axis: Axes | None = None,
    *,
    tail: str = "less",
    xlabel: str = "contrary answers after ablation",
    reference: float | None = None,
) -> Figure:
    """One histogram per kind of control on a common axis, the observed value as a line through all of them.

    Beside each: how many runs are as extreme (`tail` "less" or "greater", ties count). `reference` draws a second,
    dashed line (the unedited model). Values are fractions. Raises ValueError for another tail or an empty control.
    """
    if tail not in ("less", "greater"):
        raise ValueError(f"tail is 'less' or 'greater': came {tail!r}.")
    if not controls or any(len(draws) == 0 for draws in controls.values()):
        raise ValueError("null_distributions needs at least one control, each with draws: came none or an empty one.")
    with style.applied():
        figure, (this,) = style.axes_for(axis, 1, height=0.85 + 0.55 * len(controls))
        bins = np.linspace(0, 1, 41)
        for row, (kind, draws) in enumerate(controls.items()):
            look = style.control_look(kind)
            heights, _ = np.histogram(np.clip(draws, 0, 1), bins)
            scaled = 0.75 * heights / heights.max()
            this.bar(bins[:-1], -scaled, np.diff(bins), bottom=row, align="edge", color=look.color, linewidth=0)
            this.axhline(row, color=style.GRID, linewidth=0.8, zorder=0)
            extreme = int(np.sum(draws <= observed if tail == "less" else draws >= observed))
            this.text(
                1.02, row, f"{extreme} of {len(draws)}\n{'≤' if tail == 'less' else '≥'} observed",
                transform=this.get_yaxis_transform(), va="bottom", fontsize=7, color=style.INK,
            )  # fmt: skip
        color = style.RATES["contrary" if tail == "less" else "right"].color
        this.axvline(observed, color=color, linewidth=1.8, label=f"this direction, {100 * observed:.0f} %")
        if reference is not None:
            words = f"no edit, {100 * reference:.0f} %"
            this.axvline(reference, color=style.MUTED, linestyle=(0, (6, 2)), linewidth=1.0, label=words)
        this.set_yticks(range(len(controls)), [style.control_look(kind).label for kind in controls], va="bottom")
        this.set_ylim(len(controls) - 0.85, -0.95)
        this.tick_params(axis="y", length=0)
        this.spines["left"].set_visible(False)
        style.percent_axis(this, "x")
        this.set_xlabel(xlabel)
        style.legend(figure, [this], columns=2, own=axis is None)
    return figure
