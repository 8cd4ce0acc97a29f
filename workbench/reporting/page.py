"""One self-contained HTML file from blocks: no network, light and dark, printable, whole without its script."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from stores.files import write_file
from workbench.reporting.blocks import Block, Details, Text
from workbench.reporting.heat_words import patches_said, share_of, side_of, signed
from workbench.reporting.inline_pictures import PictureRefused, checked
from workbench.reporting.sort_key import sort_key
from workbench.reporting.style import THEME, as_svg

HERE = Path(__file__).parent
# Shapes of well-known access tokens. A page is made to be shared; what looks like a key must never be in one.
_SECRETS = re.compile(r"\bhf_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{20,}|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}")


def write_page(title: str, blocks: Sequence[Block], to: str | Path, *, subtitle: str = "") -> Path:
    """Writes the page and returns its path. Everything is inside the file: style, figures (as SVG), data (as text),
    pictures (as checked PNG or JPEG), and one script that sorts, filters and browses what stands there.

    Text from models and prompts is escaped by the template, and control or direction-changing characters are shown as
    `\\u202e`, so that nothing on the page can act or mislead. A content-security policy forbids the network, and every
    script but that one file (`page.js`), which it knows by its hash. Raises ValueError when the page would contain
    something that has the shape of an access token. Makes the folder; a half-written page never stands under the final
    name.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": visible, "number": _number, "anchor": anchor, "sort_key": sort_key, "signed": signed,
    }  # fmt: skip
    drawn = iter(range(1, 10_000))
    script = (HERE / "page.js").read_text(encoding="utf-8")
    html = environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        blocks=blocks,
        headings=[
            block.heading for block in _every(blocks) if isinstance(block, Text) and block.heading and block.level == 2
        ],
        theme=THEME,
        kind_of=lambda block: type(block).__name__,
        # Markup is said to be safe in these two places: a file of ours, whose hash the policy states; and figures,
        # where matplotlib has escaped the labels and as_svg keeps the tags.
        script=Markup(script),
        script_hash=hash_of(script),
        svg=lambda figure: Markup(visible(as_svg(figure, prefix=f"f{next(drawn)}"))),
        inline=_inline,
        **{"side_of": side_of, "share_of": share_of, "patches_said": patches_said},
    )
    if found := _SECRETS.search(html):
        raise ValueError(
            f"the page would show what looks like an access token ({found.group()[:6]}...): nothing was written. "
            "Remove it from the summary, the samples or the recorded command."
        )
    write_file(Path(to), html.lstrip())
    return Path(to)


def hash_of(script: str) -> str:
    """The script as a content-security policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


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


def _inline(uri: object) -> str | None:
    """The picture, or None for what is none that a page may hold; the page says so in its place."""
    try:
        return checked(uri)
    except PictureRefused:
        return None


def anchor(heading: str) -> str:
    """The heading as an id, and as a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "section"


def _every(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from _every(block.content)
