"""Figures of mitigations: misalignment against what each dose costs, and the chosen doses side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.reporting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("right", "contrary", "energy_matched", "other", "orthogonal", "ill_formed", "ink")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
Ends = tuple[float, float] | None


@dataclass(frozen=True)
class Mark:
    """One dose of an arm: misalignment and what was kept, each with an interval; `chosen` by the match."""

    kept: float
    misalignment: float
    kept_interval: Ends = None
    interval: Ends = None
    chosen: bool = False


def cost_of_mitigation(
    panels: Mapping[str, Mapping[str, Sequence[Mark]]],
    references: Mapping[str, Mapping[str, Mark]],
    axis: Axes | Sequence[Axes] | None = None,
    *,
    rate: bool = True,
) -> Figure:
    """Misalignment (up) against what is kept (right): `panels[quantity][arm]` are the doses of an arm, gentlest first,
    joined by a line; the chosen one is filled. `references[quantity]` are the base and the harmful fine-tune. Good is
    the lower right corner."""
    arms = list(dict.fromkeys(arm for panel in panels.values() for arm in panel))
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=3.4)
        for this, (quantity, panel) in zip(axes, panels.items(), strict=True):
            for arm, marks in panel.items():
                color, marker = _look(arms.index(arm))
                this.plot(
                    [m.kept for m in marks], [m.misalignment for m in marks], color=color, linewidth=0.7, alpha=0.7
                )
                for mark in marks:
                    _bars(this, mark, color)
                    face = color if mark.chosen else "white"
                    size = 6.5 if mark.chosen else 4.0
                    this.plot(mark.kept, mark.misalignment, marker, color=color, mfc=face, markersize=size, zorder=4)
                this.plot([], [], marker, color=color, label=arm)
            for name, mark in references.get(quantity, {}).items():
                this.plot(mark.kept, mark.misalignment, "+", color=style.INK, markersize=9, mew=1.6, zorder=5)
                this.annotate(
                    name,
                    (mark.kept, mark.misalignment),
                    (-7, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=style.SMALL,
                )
            this.set_title(quantity)
            this.set_xlabel("kept")
            if rate:
                style.percent_axis(this, "x")
                style.percent_axis(this, "y")
                this.set_xlim(-0.06, 1.06)
        axes[0].set_ylabel("misalignment outside the fine-tuned domain")
        style.legend(figure, axes, columns=2, own=axis is None)
    return figure


@dataclass(frozen=True)
class Chosen:
    """The value of an arm at its chosen dose with its interval, and the range under random directions."""

    value: float
    interval: Ends = None
    random: Ends = None


def chosen_doses(
    panels: Mapping[str, Mapping[str, Chosen]],
    references: Mapping[str, Mapping[str, float]],
    axis: Axes | Sequence[Axes] | None = None,
    *,
    rate: bool = True,
) -> Figure:
    """Misalignment of every arm at its chosen dose, `panels[modality][arm]`, with the base and the harmful fine-tune as
    lines and the range under random directions as a grey band."""
    rows = list(dict.fromkeys(arm for panel in panels.values() for arm in panel))
    with style.applied():
        figure, axes = style.axes_for(axis, len(panels), height=0.9 + 0.27 * len(rows))
        for this, (modality, panel) in zip(axes, panels.items(), strict=True):
            for row, arm in enumerate(rows):
                if arm not in panel:
                    continue
                one = panel[arm]
                if one.random is not None:
                    this.hlines(row, *one.random, color=style.THEME["isotropic"][0], linewidth=7, alpha=0.5,
                                label="random directions")  # fmt: skip
                if one.interval is not None:
                    this.hlines(row, *one.interval, color=style.THEME["contrary"][0], linewidth=1.2)
                this.plot(one.value, row, "o", color=style.THEME["contrary"][0], label="chosen dose, other questions")
            for line, (name, value) in zip(("-", "--"), references.get(modality, {}).items(), strict=False):
                this.axvline(value, color=style.INK, linestyle=line, linewidth=0.9, label=name)
            this.set_title(modality)
            this.set_xlabel("misalignment")
            if rate:
                style.percent_axis(this, "x")
                this.set_xticks([0, 0.5, 1.0])
            this.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(rows)), rows)
        axes[0].set_ylim(len(rows) - 0.5, -0.5)
        style.legend(figure, axes, columns=2, own=axis is None)
    return figure


def _look(index: int) -> tuple[str, str]:
    return style.THEME[COLOURS[index % len(COLOURS)]][0], MARKERS[index % len(MARKERS)]


def _bars(axis: Axes, mark: Mark, color: str) -> None:
    if mark.interval is not None:
        axis.vlines(mark.kept, *mark.interval, color=color, linewidth=0.6, alpha=0.35)
    if mark.kept_interval is not None:
        axis.hlines(mark.misalignment, *mark.kept_interval, color=color, linewidth=0.6, alpha=0.35)
