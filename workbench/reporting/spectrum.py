"""Figure: how much of a shift's variance each principal component explains, against chance and a benign fine-tune."""

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


@dataclass(frozen=True)
class Spectrum:
    """One panel: explained variance (fraction) of components 1, 2, ...; the null's 5 and 95 % per component."""

    explained: Float[np.ndarray, " k"]
    null: Float[np.ndarray, "k_null 2"] | None = None
    benign: Float[np.ndarray, " k_benign"] | None = None
    effective_rank: float | None = None
    benign_rank: float | None = None


def variance_spectrum(panels: Mapping[str, Spectrum], axis: Axes | Sequence[Axes] | None = None) -> Figure:
    """Scree plots side by side (one per chosen layer, at most four): the shift, the null band, the benign fine-tune.

    Each legend gives the effective rank, exp(entropy of the spectrum). Raises ValueError for more than four panels.
    """
    if len(panels) > 4:
        raise ValueError(f"variance_spectrum draws at most 4 layers: came {len(panels)}. Choose layers to show.")
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=2.45)
        tallest = 0.0
        for this, (title, spectrum) in zip(axes, panels.items(), strict=True):
            _draw(this, spectrum)
            this.set_title(title)
            this.legend(loc="upper right", handlelength=1.4)
            curves = (spectrum.explained, spectrum.null, spectrum.benign)
            tallest = max(tallest, *(float(np.nanmax(curve)) for curve in curves if curve is not None))
        for this in axes:
            # Headroom for the legend: a tall first component would stand behind it.
            style.percent_axis(this, top=1.6 * tallest)
            this.set_yticks([tick for tick in this.get_yticks() if 0 <= tick <= 1.0])
            this.set_ylim(-0.03 * tallest, 1.6 * tallest)
        axes[0].set_ylabel("variance explained")
        for this in axes:
            this.set_xlabel("component")
    return figure


def _draw(axis: Axes, spectrum: Spectrum) -> None:
    if spectrum.null is not None:
        at = np.arange(1, len(spectrum.null) + 1)
        # The band reaches half a step to each side, so that a single component has one too.
        edges = np.repeat(at, 2) + np.tile([-0.5, 0.5], len(at))
        low, high = np.repeat(spectrum.null, 2, axis=0).T
        axis.fill_between(edges, low, high, color=style.MUTED, alpha=0.3, linewidth=0, label="chance, 5–95 %")
    if spectrum.benign is not None:
        at = np.arange(1, len(spectrum.benign) + 1)
        words = "benign" + (f", rank {spectrum.benign_rank:.1f}" if spectrum.benign_rank is not None else "")
        look = style.RATES["right"]
        axis.plot(at, spectrum.benign, "--", marker="s", color=look.color, label=words, markersize=3.2)
    at = np.arange(1, len(spectrum.explained) + 1)
    words = "this shift" + (f", rank {spectrum.effective_rank:.1f}" if spectrum.effective_rank is not None else "")
    axis.plot(at, spectrum.explained, "-", marker="o", color=style.RATES["contrary"].color, label=words)
    axis.set_xticks(at if len(at) <= 6 else at[:: max(1, len(at) // 5)])
