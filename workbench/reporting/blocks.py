"""What a page is made of: small frozen blocks, in reading order. They hold data; `page.html` decides how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Text:
    """A heading (of level 2 it enters the contents; empty: none) and paragraphs under it."""

    heading: str
    paragraphs: Sequence[str] = ()
    level: int = 2


@dataclass(frozen=True)
class Picture:
    """A figure with its caption. `alt` says in words what is to be seen, for those who do not see it."""

    figure: Figure
    caption: str
    alt: str


@dataclass(frozen=True)
class Marked:
    """A table cell that carries a category: its text, and a small coloured word under it."""

    text: str
    kind: str


@dataclass(frozen=True)
class Link:
    """A table cell that leads to a heading of the same page."""

    text: str
    heading: str


Cell: TypeAlias = "str | int | float | Marked | Link | None"


@dataclass(frozen=True)
class Table:
    """Rows of cells. Numbers stand right-aligned; None is shown as a dash: not measured."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True)
class Note:
    """One sentence that must not be overlooked. `kind`: "warning", "construction" or "missing"."""

    text: str
    kind: str = "warning"


@dataclass(frozen=True)
class Code:
    """A command or listing, shown as it is."""

    text: str


@dataclass(frozen=True)
class Details:
    """Blocks folded away under a summary line; they are printed open."""

    summary: str
    content: Sequence[Block]


Block: TypeAlias = "Text | Picture | Table | Note | Code | Details"
