"""The map in docs/architecture.md names every file once, as the file names itself."""

from __future__ import annotations

import re

import house_map


def test_every_file_says_its_idea_in_a_sentence():
    for folder in house_map.folders():
        for file in folder.glob("*.py"):
            if file.name != "__init__.py":
                assert 15 < len(house_map.idea(file.read_text())) < 250, file


def test_the_map_is_that_of_the_files():
    """A file that was added, moved or given another idea shows here; `python tests/house_map.py` draws it anew."""
    page = house_map.PAGE.read_text()
    assert page == house_map.page_with_map(page), "run: python tests/house_map.py"
    named = re.findall(r"^\| `([a-z_0-9]+\.py)` \|", page, flags=re.MULTILINE)
    there = [file for folder in house_map.folders() for file in folder.glob("*.py") if file.name != "__init__.py"]
    assert sorted(named) == sorted(file.name for file in there)


def test_the_walk_names_files_that_are_there():
    walk = house_map.PAGE.read_text().split(house_map.BEGIN)[0]
    files = re.findall(r"`((?:hooks|stores|workbench|tests|experiments)/[\w/]+\.py)`", walk)
    assert len(files) > 20
    assert [file for file in files if not (house_map.ROOT / file).is_file()] == []


def test_the_idea_is_the_first_sentence():
    assert house_map.idea('"""One. Two."""') == "One" and house_map.idea('"""a: b\nc.\n\nMore."""') == "a: b c"
