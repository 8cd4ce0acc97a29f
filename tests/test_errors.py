"""Every error that a user can meet: raised by a test, and its words say what was expected or how to mend it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("hooks", "stores", "workbench")
# What one part says to another; whoever catches it says more, or takes another way.
INSIDE = {
    "CannotReplay", "NotStatic", "RowsUnknown", "Refused", "Fault", "BrokenRow", "InstallRefused", "KeyError",
    "AttributeError",     "TypeError", "SystemExit", "StopIteration", "PermissionError", "OSError", "KeyboardInterrupt",
    "UnsafeFile",  # what is hostile is not mended
}  # fmt: skip
SAYS = re.compile(
    r"expected|mend|\b(?:use|give|ask|choose|run|install|need(?:s|ed)?|call|delete|set|pass|load|fit|make|write|try"
    r"|check|wait|name|restore|leave|say|find|compare|add|put|take|narrow|start|is for|select|capture|read the"
    r"|raise (?:it|the)|merge|measure|rename|shorten|save|remove|normalise|map|average|test|train on|decompose again"
    r"|must|there (?:is|are)|count from|the last one)\b|instead|belongs?|never hold|would read|would fill|refused as",
    flags=re.IGNORECASE,
)
OTHERS = {
    "error",
    "why",
    "reason",
    "faults",
    "left_out",
    "splits",
    "groups",
    "classes",
}  # whose words follow, or frame it
FILES = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]


def errors() -> dict[str, str]:
    """The exceptions that this house defines and does not keep to itself, with where."""
    found = {}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name not in INSIDE:
                bases = {ast.unparse(base) for base in node.bases}
                if any(re.search(r"(Error|Exception|Warning)$", base) or base in found for base in bases):
                    found[node.name] = str(file.relative_to(ROOT))
    return found


def raised(source: str) -> Iterator[tuple[int, str, str]]:
    """(line, exception, words) of every error raised with words of its own; names of constants count as their words."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
            continue
        name = ast.unparse(node.exc.func).split(".")[-1]
        parts = list(ast.walk(node.exc.args[0]))
        words = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        named = [part.id for part in parts if isinstance(part, ast.Name)] + [
            part.attr for part in parts if isinstance(part, ast.Attribute)
        ]
        if words:
            yield node.lineno, name, " ".join([*words, *named])


def bare(source: str) -> list[tuple[int, str]]:
    """Errors that only complain."""
    return [
        (line, words)
        for line, name, words in raised(source)
        if not OTHERS & set(words.split())
        and not name.startswith("_")
        and name not in INSIDE
        and name[:1].isupper()
        and len(words.split()) > 6
        and not SAYS.search(words)
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_an_error_says_what_was_expected_or_how_to_mend_it(room):
    found = {
        f"{file.relative_to(ROOT)}:{line}": words
        for file in FILES
        if file.relative_to(ROOT).parts[0] == room
        for line, words in bare(file.read_text())
    }
    assert found == {}, f"{len(found)} errors only complain"


def test_a_bare_complaint_is_found():
    assert bare('raise ValueError(f"the layer {l} is a bad one for this")') == [
        (1, "the layer   is a bad one for this l")
    ]
    assert bare('raise ValueError(f"bad layer {l}: expected 0..3")') == [] and bare("raise error") == []
    assert bare('raise StoreCorrupted(f"torn. {MEND}")') == []


def test_every_error_is_raised_by_a_test():
    """With its words: `pytest.raises(NAME, match=...)`; the class or one that it is a kind of."""
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").glob("*.py"))
    named = set(re.findall(r"\b([A-Z]\w+)\b", "\n".join(re.findall(r"(?:raises|warns)\([^)]*", tests))))
    assert len(errors()) > 20
    assert {name: where for name, where in errors().items() if name not in named} == {}
