"""Figure: what the model says as a direction is added with growing strength."""

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
class DoseCurve:
    """One panel. `rates` and `intervals` are keyed by contrary, right, other, ill_formed; fractions; NaN: not measured.

    `control` holds the contrary rate under random directions of equal norm.
    """

    coefficients: Float[np.ndarray, " dose"]
    rates: Mapping[str, Float[np.ndarray, " dose"]]
    intervals: Mapping[str, Float[np.ndarray, "dose 2"]] = field(default_factory=dict)
    control: Float[np.ndarray, "draw dose"] | None = None
    control_label: str = "contrary, random directions"


def rates_by_dose(
    panels: Mapping[str, DoseCurve],
    axis: Axes | Sequence[Axes] | None = None,
    *,
    xlabel: str = "coefficient",
) -> Figure:
    """The four rates against the steering coefficient, one panel per entry side by side, one figure.

    The ill-formed rate stands beside the contrary rate because a strong push breaks a model before it persuades it.
    """
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=2.5)
        for this, (title, curve) in zip(axes, panels.items(), strict=True):
            _draw(this, curve)
            this.set_title(title)
            this.set_xlabel(xlabel)
            style.percent_axis(this)
        axes[0].set_ylabel("answers")
        style.legend(figure, axes, columns=3, own=axis is None)
    return figure


def _draw(axis: Axes, curve: DoseCurve) -> None:
    doses = np.asarray(curve.coefficients, dtype=float)
    order = np.argsort(doses)
    if curve.control is not None and not np.isnan(curve.control).all():
        measured = order[~np.isnan(curve.control[:, order]).all(axis=0)]
        low, high = np.nanmin(curve.control[:, measured], axis=0), np.nanmax(curve.control[:, measured], axis=0)
        band = style.THEME["isotropic"][0]
        axis.fill_between(doses[measured], low, high, color=band, alpha=0.4, linewidth=0, label=curve.control_label)
        axis.plot(doses[measured], high, color=band, linewidth=1.0)
    step = np.diff(np.unique(doses)).min() if len(np.unique(doses)) > 1 else 1.0
    for place, (kind, look) in enumerate(style.RATES.items()):
        if kind not in curve.rates:
            continue
        # Interval bars of equal rates would hide each other: a twentieth of a step apart they do not.
        at = doses[order] + (place - 1.5) * 0.05 * step
        if kind in curve.intervals:
            bars = curve.intervals[kind][order]
            axis.vlines(at, bars[:, 0], bars[:, 1], color=look.color, linewidth=1.0, zorder=3)
        axis.plot(
            at, curve.rates[kind][order], look.line, marker=look.marker, color=look.color, label=look.label, zorder=4
        )
    if len(doses) <= 7:
        axis.set_xticks(np.unique(doses), [f"{dose:g}" for dose in np.unique(doses)])
