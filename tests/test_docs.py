"""The pages of docs/: every code block runs as printed (`make docs-test`), names and commands exist, links lead on."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import LONG

import workbench as wb
from workbench.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "experiments" / "README.md"])
CODE = [page for page in PAGES if "```python" in page.read_text() and page.parent == ROOT / "docs"]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


@LONG
@pytest.mark.parametrize("page", CODE, ids=named)
def test_the_blocks_of_a_page_run_as_printed(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    for block in blocks(page):
        exec(compile(block, named(page), "exec", dont_inherit=True), names)


def test_there_are_pages_with_code():
    assert len(CODE) >= 3 and sum(len(blocks(page)) for page in CODE) >= 15


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_public_names_of_a_page_exist(page):
    """In blocks and in the text: `wb.name`."""
    for block in blocks(page):
        ast.parse(block)
    used = set(re.findall(r"\bwb\.([A-Za-z_]\w*)", page.read_text()))
    assert used - set(dir(wb)) == set()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_of_a_page_exist(page, capsys):
    """`workbench COMMAND ... --option`: each command has each option that a page gives it."""
    for line in set(re.findall(r"(?<!import )(?<![\w/-])workbench ([a-z]+(?: [^\n`|]*)?)", "\n".join(_code(page)))):
        command, *words = line.split()
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, f"{page.name}: workbench {command}"
        told = capsys.readouterr().out
        options = {word.strip("[]").split("=")[0] for word in words if word.strip("[").startswith("--")}
        assert {option for option in options if option not in told} == set(), f"{page.name}: workbench {line}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_of_a_page_lead_somewhere(page):
    targets = [
        target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in target
    ]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def _code(page: Path) -> list[str]:
    """What a page shows as code: fenced or indented blocks, and words between backticks."""
    text = page.read_text()
    fenced = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return fenced + inline + re.findall(r"^    (.+)$", text, flags=re.MULTILINE)
