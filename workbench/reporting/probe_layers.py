"""Figure: mean AUROC of probes by the layer they are read at, a line a kind of pair, and the same after erasure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from workbench.reporting import style
from workbench.reporting.dose_lines import LOOKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ProbeLine:
    """Mean AUROC at each of `layers`, its intervals (NaN: none), and what is left after erasure."""

    layers: Sequence[int]
    values: Float[np.ndarray, " layer"]
    intervals: Float[np.ndarray, "layer 2"]
    erased: Float[np.ndarray, " layer"]


def probe_layers(panels: Mapping[str, Mapping[str, ProbeLine]], axis: Axes | Sequence[Axes] | None = None) -> Figure:
    """`panels[title][line]`, side by side. Thin and dotted: the same rows after LEACE. Grey: an AUROC of .5."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=2.9)
        for this, (title, lines) in zip(axes, panels.items(), strict=True):
            this.axhline(0.5, color=style.MUTED, linewidth=0.7, zorder=1)
            for name, line in lines.items():
                place = names.index(name)
                look = LOOKS[place % len(LOOKS)]
                at = np.asarray(line.layers, dtype=float) + (place - (len(names) - 1) / 2) * 0.06
                this.vlines(at, line.intervals[:, 0], line.intervals[:, 1], color=look.color, linewidth=0.8, alpha=0.6)
                this.plot(at, line.values, look.line, marker=look.marker, color=look.color, label=name, zorder=4)
                this.plot(at, line.erased, ":", color=look.color, linewidth=0.8, zorder=2)
            this.set_title(textwrap.fill(title, max(12, 52 // len(panels))))
            this.set_xlabel("layer (block)")
            this.set_ylim(0, 1.03)
            this.set_yticks([0, 0.25, 0.5, 0.75, 1])
            this.yaxis.grid(True)
            layers = sorted({layer for line in lines.values() for layer in line.layers})
            this.set_xticks(layers if len(layers) <= 8 else layers[:: -(-len(layers) // 8)])
        axes[0].set_ylabel("mean AUROC")
        style.legend(figure, axes, columns=2, own=axis is None)
    return figure
