"""`docs/names.md`: every public name by subject, with what it gives and a place where it is seen at work.

`python tests/names_page.py` writes it anew; a test compares.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import workbench as wb

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "names.md"
LONGEST = 200  # letters of what a name says of itself
PAGES = (
    "README.md", "docs/tour.md", "docs/how_do_i.md", "docs/examples.md", "docs/concepts.md", "docs/scale.md",
    "docs/commands.md",
)  # fmt: skip
HEAD = """# Every public name

`import workbench as wb`; each name with what it gives and where it is seen at work. `help(wb.pca)`, for one, says
more. Made by `python tests/names_page.py`; a test compares.
"""


def said(name: str) -> str:
    """The first sentence of what the name says of itself: its docstring, or for a constant its value."""
    module = ROOT / wb._HOME[name].replace(".", "/")
    file = module.with_suffix(".py") if module.with_suffix(".py").exists() else module / "__init__.py"
    tree = ast.parse(file.read_text())
    made = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name]
    if not made:  # re-exported, or a constant
        value = getattr(wb, name)
        return _sentence(value.__doc__ or "") if callable(value) else f"The constant `{name}`, a {type(value).__name__}"
    return _sentence(ast.get_docstring(made[0]) or "")


def shown(name: str) -> str | None:
    """The first page, else script, that uses the name in code."""
    for page in PAGES:
        text = (ROOT / page).read_text()
        if name in _used("\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))):
            return page
    scripts = [file for file in sorted((ROOT / "experiments").glob("*.py")) if name in _used(file.read_text())]
    if scripts:
        return str(scripts[0].relative_to(ROOT))
    quoted = [page for page in PAGES if name in _used("\n".join(_quoted((ROOT / page).read_text())))]
    return quoted[0] if quoted else None


def drawn() -> str:
    lines = [HEAD]
    for subject, names in wb._SUBJECTS.items():
        lines += [f"## {subject}", "", "| name | gives | shown in |", "|---|---|---|"]
        for name in names:
            place = shown(name)
            link = (
                ""
                if place is None
                else f"[{Path(place).name}]({place[5:] if place.startswith('docs/') else '../' + place})"
            )
            lines.append(f"| `{name}` | {said(name).replace('|', chr(92) + '|')} | {link} |")
        lines.append("")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    text = " ".join(text.split("\n\n")[0].split())
    first = re.split(r"(?<=[.?!]) (?=[A-Z`])", text)[0].rstrip(".")
    return (
        first if len(first) <= LONGEST else re.split(r"[,;:(] ?", first[:LONGEST][::-1], maxsplit=1)[1][::-1] + " ..."
    )


def _quoted(page: str) -> list[str]:
    """Code in the text of a page: between backticks, or indented."""
    return re.findall(r"`[^`]+`|^    .+$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), flags=re.MULTILINE)


def _used(code: str) -> set[str]:
    return set(re.findall(r"\bwb\.(\w+)", code))


if __name__ == "__main__":
    PAGE.write_text(drawn())
