"""The map of the house: every file with the first sentence of its docstring, as tables of `docs/architecture.md`.

`python tests/house_map.py` writes them anew; a test compares.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
ROOMS = ("experiments", "workbench", "hooks", "stores", "tests")
BEGIN, END = "<!-- map: begin -->", "<!-- map: end -->"


def idea(source: str) -> str:
    """The first sentence of a file's docstring, on one line."""
    text = " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.?!]) (?=[A-Z`])", text)[0].rstrip(".")


def folders() -> Iterator[Path]:
    for room in ROOMS:
        inside = {file.parent for file in (ROOT / room).rglob("*.py")}
        yield from sorted(inside)


def table(folder: Path) -> list[str]:
    files = sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")
    said = [f"| `{file.name}` | {idea(file.read_text()).replace('|', chr(92) + '|')} |" for file in files]
    name = folder.relative_to(ROOT)
    return [f"### {name}/", "", f"| file of `{name}` | its idea |", "|---|---|", *said, ""] if files else []


def drawn() -> str:
    """All tables, room by room."""
    return "\n".join(line for folder in folders() for line in table(folder))


def page_with_map(page: str) -> str:
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n\n{drawn()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page_with_map(PAGE.read_text()))
