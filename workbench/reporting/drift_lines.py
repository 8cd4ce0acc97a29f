"""Figure: what was measured while adapters trained, against the step; flips and stops marked, controls in grey."""

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

KINDS = {
    "harmful": style.Look(style.THEME["contrary"][0], "o", "-", "harmful fine-tunes"),
    "benign": style.Look(style.THEME["isotropic"][0], "", "--", "benign fine-tunes (control)"),
}


@dataclass(frozen=True)
class DriftLine:
    """One run in one panel: `kind` of KINDS; intervals are over prompts (NaN: none)."""

    kind: str
    steps: Sequence[float]
    values: Float[np.ndarray, " step"]
    intervals: Float[np.ndarray, "step 2"]


@dataclass(frozen=True)
class DriftMarks:
    """Steps at which harmful runs flipped, and at which the rule stops them; levels by panel that decide it."""

    flips: Sequence[float] = ()
    stops: Sequence[float] = ()
    levels: Mapping[str, float] = field(default_factory=dict)


def drift_lines(
    panels: Mapping[str, Mapping[str, DriftLine]],
    marks: DriftMarks | None = None,
    axis: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """`panels[title][run]`, one below the other over the same steps, one line a run with its interval as a band.
    Triangles: flips; upright lines: where the rule stops; a dotted level: what a signal has to reach."""
    marks = marks or DriftMarks()
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=1.25, stacked=True)
        for this, (title, lines) in zip(axes, panels.items(), strict=True):
            for line in lines.values():
                look = KINDS.get(line.kind, KINDS["benign"])
                this.fill_between(line.steps, *line.intervals.T, color=look.color, alpha=0.15, linewidth=0)
                this.plot(line.steps, line.values, look.line, color=look.color, label=look.label, linewidth=1.1)
            for n, step in enumerate(sorted(set(marks.stops))):
                label = "the rule stops" if n == 0 else None
                this.axvline(step, color=style.THEME["right"][0], linewidth=0.9, label=label)
            if title in marks.levels:
                this.axhline(marks.levels[title], color=style.MUTED, linewidth=0.9, linestyle=":")
            this.set_title(title)
            this.yaxis.grid(True)
            for n, step in enumerate(marks.flips):
                label = "the behaviour flips" if n == 0 else None
                place = this.get_xaxis_transform()
                this.plot([step], [0.06], "^", color=style.INK, transform=place, label=label, clip_on=False, zorder=5)
        axes[-1].set_xlabel("optimizer step")
        style.legend(figure, axes, columns=2, own=axis is None)
    return figure
