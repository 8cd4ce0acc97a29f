"""Figure: shares of a trigger's effect by site and place of the prompt, a panel a way of patching."""

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
class GatePanel:
    """Rows are sites, from the embedding on, columns places of the prompt; NaN: not measured."""

    sites: Sequence[str]
    places: Sequence[str]
    shares: Float[np.ndarray, "site place"]


def gate_panels(panels: Mapping[str, GatePanel], axis: Axes | Sequence[Axes] | None = None) -> Figure:
    """One matrix a panel, on one scale from -100 % to 100 % of the trigger's effect, the embedding at the bottom; each
    cell with its per cent."""
    import matplotlib

    most = max((len(panel.sites) for panel in panels.values()), default=1)
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=0.9 + 0.2 * max(4, min(most, 40)))
        scale = matplotlib.colormaps["PuOr_r"]
        for this, (title, panel) in zip(axes, panels.items(), strict=True):
            shown = np.clip(panel.shares, -1, 1)
            this.pcolormesh(shown, cmap=scale, vmin=-1, vmax=1, edgecolors="white", linewidth=1.0)
            for (row, column), value in np.ndenumerate(panel.shares):
                if np.isnan(value) or most > 40:
                    continue
                words = f"{100 * value:.0f}".replace("-0", "0") if round(100 * value) == 0 else f"{100 * value:.0f}"
                color = scale((np.clip(value, -1, 1) + 1) / 2)
                style.cell_words(this, int(row), int(column), words.replace("-", "−"), color)
            this.set_title(title)
            this.set_xticks(np.arange(len(panel.places)) + 0.5, list(panel.places), rotation=35, ha="right")
            step = max(1, len(panel.sites) // 14)
            ticks = range(0, len(panel.sites), step)
            this.set_yticks([tick + 0.5 for tick in ticks], [panel.sites[tick] for tick in ticks])
            this.tick_params(length=0)
            for spine in this.spines.values():
                spine.set_visible(False)
        axes[0].set_ylabel("stream behind block")
    return figure
