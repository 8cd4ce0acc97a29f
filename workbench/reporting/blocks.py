"""What a page is made of: small frozen blocks, in reading order. They hold data; `page.html` decides how it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Said:
    """One answer: of which condition, its text, the judge's category and why, and its scores by what they measure."""

    condition: str
    text: str
    kind: str = "unjudged"
    reason: str = ""
    scores: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """One prompt with its answers. `pictures` are data URIs; `facts` (domain, modality, ...) may be filtered by."""

    prompt: str
    said: Sequence[Said]
    facts: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[str] = ()


@dataclass(frozen=True)
class Answers:
    """A browser of answers: every prompt's side by side. Those of the conditions `first` are shown until the reader
    chooses others; without scripts, those of all."""

    asked: Sequence[Asked]
    conditions: Sequence[str]
    first: Sequence[str]
    caption: str = ""


@dataclass(frozen=True)
class Token:
    """One token with its projection (None: not measured); `part` is "template", "prompt", "response" or "image"."""

    text: str
    value: float | None
    part: str = "prompt"


@dataclass(frozen=True)
class Patches:
    """A picture's projections, row by row. `columns` 0: the grid is unknown, they are shown in their order."""

    uri: str
    values: Sequence[float]
    columns: int = 0


@dataclass(frozen=True)
class Heat:
    """The projections of one text, each token in the colour of its value; `scale` is the value that has
    the full colour."""

    title: str
    tokens: Sequence[Token]
    scale: float
    pictures: Sequence[Patches] = ()


Block: TypeAlias = "Text | Picture | Table | Note | Code | Details | Answers | Heat"
