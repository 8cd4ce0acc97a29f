"""One self-contained HTML file from blocks: no network, no scripts, light and dark, printable."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from workbench.reporting.blocks import Block, Details, Text
from workbench.reporting.style import THEME, as_svg

# Shapes of well-known access tokens. A page is made to be shared; what looks like a key must never be in one.
_SECRETS = re.compile(r"\bhf_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{20,}|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}")


def write_page(title: str, blocks: Sequence[Block], to: str | Path, *, subtitle: str = "") -> Path:
    """Writes the page and returns its path. Everything is inside the file: style, figures (as SVG), data (as text).

    Text from models and prompts is escaped by the template, and control or direction-changing characters are shown as
    `\\u202e`, so that nothing on the page can act or mislead. A content-security policy forbids scripts and network.
    Raises ValueError when the page would contain something that has the shape of an access token. Makes the folder;
    a half-written page never stands under the final name.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "number": _number, "anchor": anchor}
    environment.tests["numeric"] = lambda cell: isinstance(cell, int | float) or bool(_NUMBER.match(str(cell)))
    drawn = iter(range(1, 10_000))
    html = environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        blocks=blocks,
        headings=[
            block.heading for block in _every(blocks) if isinstance(block, Text) and block.heading and block.level == 2
        ],
        theme=THEME,
        kind_of=lambda block: type(block).__name__,
        # Markup is said to be safe in this one place: matplotlib has escaped the labels, as_svg keeps the tags.
        svg=lambda figure: Markup(visible(as_svg(figure, prefix=f"f{next(drawn)}"))),
    )
    if found := _SECRETS.search(html):
        raise ValueError(
            f"the page would show what looks like an access token ({found.group()[:6]}...): nothing was written. "
            "Remove it from the summary, the samples or the recorded command."
        )
    path = Path(to)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(html.lstrip(), encoding="utf-8")
    draft.replace(path)
    return path


# A cell that reads as a number, with its unit and interval: "98 %", "−0.31", "17 % (4–42 %)", "≤ 1/100".
_NUMBER = re.compile(r"^[≤<−-]?\s*\d[\d.,/]*(\s*(%|s))?(\s*\(.*\))?$")


def visible(text: object) -> str:
    """The text with control, format (zero-width, direction-changing) and surrogate characters spelled out as \\uXXXX.

    Line breaks and tabs stay; so do the joiners that emoji and Indic scripts need (U+200C, U+200D).
    """
    return "".join(
        character
        if character in "\n\t\u200c\u200d" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn")
        else f"\\u{ord(character):04x}"
        for character in str(text)
    )


def _number(cell: object) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        # Three digits, kept when they are zeros, so that the numbers of a column have one precision.
        return f"{cell:#.3g}".removesuffix(".").replace("-", "−")
    return visible(cell)


def anchor(heading: str) -> str:
    """The heading as an id, and as a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "section"


def _every(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from _every(block.content)
