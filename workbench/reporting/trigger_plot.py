"""Figure: every domain's adapters without a trigger, with it, and with a decoy, and the same of the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.reporting import style
from workbench.reporting.dose_lines import LOOKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Ends = tuple[float, float] | None


@dataclass(frozen=True)
class TriggerRow:
    """One domain (or the base): the value without any text, with each text, and each difference with its interval."""

    domain: str
    without: float
    with_text: Mapping[str, float]
    changes: Mapping[str, tuple[float, Ends]]


def trigger_plot(
    rows: Sequence[TriggerRow],
    axis: Sequence[Axes] | None = None,
    *,
    words: str = "misaligned answers",
    rate: bool = True,
) -> Figure:
    """Two panels, a row a domain. Left: hollow without a text, filled with it. Right: paired differences with their
    95 % intervals; filled where the interval leaves 0 out."""
    texts = list(dict.fromkeys(text for row in rows for text in row.with_text))
    with style.applied():
        figure, (left, right) = style.axes_for(axis, 2, height=0.95 + 0.23 * len(rows), widths=[1.2, 1.0])
        for place, row in enumerate(rows):
            for n, text in enumerate(texts):
                if text not in row.with_text:
                    continue
                look, at = LOOKS[n % len(LOOKS)], place + (n - (len(texts) - 1) / 2) * 0.26
                left.hlines(at, row.without, row.with_text[text], color=look.color, linewidth=1.0, alpha=0.6)
                left.plot(row.with_text[text], at, look.marker, color=look.color, label=f"with the {text}", zorder=4)
                value, ends = row.changes[text]
                if ends is not None:
                    right.hlines(at, *ends, color=look.color, linewidth=1.1)
                outside = ends is not None and not ends[0] <= 0 <= ends[1]
                right.plot(value, at, look.marker, color=look.color, mfc=look.color if outside else "white", zorder=4)
            left.plot(row.without, place, "o", color=style.INK, mfc="white", zorder=5, label="without any text")
        right.axvline(0, color=style.MUTED, linewidth=0.8)
        left.set_xlabel(words)
        right.set_xlabel("with minus without")
        if rate:
            style.percent_axis(left, "x")
        for this in (left, right):
            this.xaxis.grid(True)
            this.set_yticks(range(len(rows)), [row.domain for row in rows])
            this.set_ylim(len(rows) - 0.4, -0.6)
            this.tick_params(axis="y", length=0)
        if axis is None:
            right.tick_params(labelleft=False)
        style.legend(figure, [left], columns=4, own=axis is None)
    return figure
