"""docs/names.md: every public name says what it gives, and is seen at work somewhere."""

from __future__ import annotations

import names_page
import pytest

import workbench as wb


def test_the_page_is_that_of_the_names():
    assert names_page.PAGE.read_text() == names_page.drawn(), "run: python tests/names_page.py"


@pytest.mark.parametrize("name", wb.__all__)
def test_a_public_name_says_what_it_gives_and_is_shown(name):
    assert 10 < len(names_page.said(name)) < 300
    assert names_page.shown(name) is not None, f"wb.{name} is in no page and no script: show it in docs/examples.md"
