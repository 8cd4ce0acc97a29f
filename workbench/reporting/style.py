"""How every figure looks, decided once: sizes, fonts, colours, and the way out to SVG and PNG.

matplotlib is imported inside functions only, and never through pyplot: figures are plain `matplotlib.figure.Figure`
objects, so a user's own back end and rcParams stay as they are.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stores.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 5.0
"""Width of every figure in inches. 8-point type at this width is 14 px on the page, 5.4 points in a PRINTED column."""
PRINTED = 3.4
"""Width of a column of a printed page in inches."""
SMALL = 7.4
"""The smallest type, in points: of numbers in cells and names beside marks. 5 points in a PRINTED column."""

# name: (hex on white paper, hex on a dark screen). Series colours are Okabe and Ito's, which people with the common
# kinds of colour blindness tell apart; shape and line differ too, so a figure survives a grey printer.
THEME: dict[str, tuple[str, str]] = {
    "ink": ("#1f2328", "#e4e7ea"),
    "muted": ("#5f6973", "#9ba5af"),
    "grid": ("#e6e8eb", "#30353b"),
    "contrary": ("#d55e00", "#ff8b45"),
    "right": ("#0072b2", "#5ab8ef"),
    "other": ("#cc79a7", "#dd93bb"),
    "ill_formed": ("#7a828b", "#939ca5"),
    "energy_matched": ("#4a9d83", "#62b79c"),
    "isotropic": ("#a3abb4", "#7f8891"),
    "orthogonal": ("#c2a74e", "#c9b065"),
}
INK, MUTED, GRID = (THEME[name][0] for name in ("ink", "muted", "grid"))


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of one series, and the words for it in a legend."""

    color: str
    marker: str
    line: str
    label: str


RATES = {
    "contrary": Look(THEME["contrary"][0], "o", "-", "contrary"),
    "right": Look(THEME["right"][0], "s", "--", "right"),
    "other": Look(THEME["other"][0], "^", "-.", "other, well-formed"),
    "ill_formed": Look(THEME["ill_formed"][0], "X", ":", "ill-formed"),
}
CONTROLS = {
    "energy_matched": Look(THEME["energy_matched"][0], "", "-", "random, matched in energy"),
    "isotropic": Look(THEME["isotropic"][0], "", "--", "random, isotropic"),
    "orthogonal": Look(THEME["orthogonal"][0], "", ":", "random, orthogonal"),
}

RC = {
    "font.family": "sans-serif",
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.0,
    "savefig.dpi": 200,
    # Labels are data: a "$" in one must print a dollar sign, never start a formula.
    "text.parse_math": False,
    # Text stays text: a reader can select it, a screen reader can say it, and the file is a third of the size.
    "svg.fonttype": "none",
    # Without a salt the ids are random, and the same numbers would not give the same file.
    "svg.hashsalt": "workbench",
}


def control_look(kind: str) -> Look:
    """The look of a control by its kind; an unknown kind gets the plain grey one and its own name."""
    return CONTROLS.get(kind) or Look(THEME["isotropic"][0], "", "--", kind.replace("_", " "))


@contextmanager
def applied() -> Iterator[None]:
    """Within this block matplotlib draws in our style; afterwards every rcParam is what it was."""
    import matplotlib

    with matplotlib.rc_context(dict(RC)):  # pyright: ignore[reportArgumentType]
        yield


def percent(value: float) -> str:
    """A fraction as per cent: whole numbers, one decimal where rounding would claim 0 or 100 %. The space is hard."""
    rounded = f"{100 * value:.0f}"
    if rounded in ("0", "-0", "100") and abs(100 * value - float(rounded)) >= 0.05:
        rounded = f"{100 * value:.1f}"
    return f"{rounded.removeprefix('-') if float(rounded) == 0 else rounded}\u00a0%".replace("-", "−")


def axes_for(
    axis: Axes | Sequence[Axes] | None,
    panels: int,
    *,
    height: float,
    stacked: bool = False,
    widths: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """The figure and its `panels` axes: those handed in, or a new figure `height` inches tall (per panel if stacked).

    Raises ValueError when the number of axes handed in is not the number of panels.
    """
    if axis is not None:
        given = list(axis) if isinstance(axis, Sequence) else [axis]
        if len(given) != panels:
            raise ValueError(f"this figure has {panels} panels: expected as many axes, came {len(given)}.")
        from matplotlib.text import Text

        for text in (text for each in given for text in each.findobj(Text)):
            text.set_parse_math(False)  # made before our style was applied: see RC
        figure = given[0].get_figure(root=True)
        assert figure is not None  # only an axis that was removed from its figure has none
        return figure, given
    if panels < 1:
        raise ValueError("there is nothing to draw: expected at least one panel, came none.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN, height * panels if stacked else height), layout="constrained")
    shape = (panels, 1) if stacked else (1, panels)
    ratios = {"width_ratios": widths} if widths else {}
    return figure, list(
        figure.subplots(*shape, squeeze=False, sharex=stacked, sharey=not stacked, gridspec_kw=ratios).flat
    )


def cell_words(axis: Axes, row: int, column: int, words: str, color: Sequence[float]) -> None:
    """Writes into the middle of a matrix's cell, black or white, whichever stands out from its `color` (red, green,
    blue, ...): relative luminance (ITU-R BT.709 weights) decides."""
    dark = 0.2126 * color[0] + 0.7152 * color[1] + 0.0722 * color[2] < 0.5
    ink = "white" if dark else "black"
    axis.text(column + 0.5, row + 0.5, words, ha="center", va="center", fontsize=SMALL, color=ink)


def percent_axis(axis: Axes, which: str = "y", *, top: float = 1.0) -> None:
    """Shows fractions as per cent with a light grid; leaves room so that marks at 0 and 100 % are whole."""
    from matplotlib.ticker import PercentFormatter

    along = axis.yaxis if which == "y" else axis.xaxis
    along.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    along.grid(True)
    limits = (-0.03 * top, 1.03 * top)
    if which == "y":
        axis.set_ylim(*limits)
    else:
        axis.set_xlim(*limits)
    if top == 1.0:
        along.set_ticks([0, 0.25, 0.5, 0.75, 1.0])


def legend(figure: Figure, axes: Sequence[Axes], *, columns: int, own: bool) -> None:
    """One legend without repeats: below the figure when we made it (`own`), else inside the user's first axis."""
    handles = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    if own:
        figure.legend(handles.values(), handles, loc="outside lower left", ncols=columns, columnspacing=1.4)
    else:
        axes[0].legend(handles.values(), handles, loc="best")


def as_svg(figure: Figure, prefix: str = "figure") -> str:
    """The figure as an `<svg>` element to be put into a page: theme colours become CSS variables, ids get `prefix`.

    Matplotlib escapes every label, so text in it stays text. Only what stands inside tags is rewritten here: the ids
    (several figures share a page), the colours (so that a dark page can repaint them) and the fixed size.
    """
    buffer = io.StringIO()
    with applied():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    raw = buffer.getvalue()
    raw = re.sub(r"<metadata>.*?</metadata>", "", raw[raw.index("<svg") :], flags=re.DOTALL)
    raw = re.sub(r"<!--.*?-->", "", raw, flags=re.DOTALL)
    variables = {light: f"var(--figure-{name.replace('_', '-')})" for name, (light, _) in THEME.items()}

    def rewritten(tag: re.Match[str]) -> str:
        text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{prefix}-", tag.group())
        if text.startswith("<svg"):
            text = re.sub(r'\s(width|height)="[^"]*"', "", text)
            return text.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
        return re.sub(r"#[0-9a-f]{6}\b", lambda hexed: variables.get(hexed.group(), hexed.group()), text)

    return re.sub(r"<[^>]+>", rewritten, raw).strip()


def save_png(figure: Figure, to: str | Path) -> Path:
    """Writes the figure as PNG on white, 200 dots an inch; returns the path. Makes the folder."""
    data = io.BytesIO()
    with applied():
        figure.savefig(data, format="png", facecolor="white", metadata={"Software": None})
    return write_file(to, data.getvalue())
