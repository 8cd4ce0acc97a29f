"""The table of docs/versions.md: which environments the tests were run in, and what held there."""

from __future__ import annotations

import re

import pytest
import versions
from versions import BEGIN, END, HEAD

JUNIT = """<testsuites><testsuite tests="9" failures="1" errors="2" skipped="1" timestamp="2026-11-21T23:20:00.1+00:00">
</testsuite></testsuites>"""


def page(*runs):
    drawn = "\n".join(f"| {' | '.join(cells)} |" for cells in [HEAD, ("---",) * len(HEAD), *runs])
    return f"before\n{BEGIN}\n{drawn}\n{END}\nafter"


def run(python="3.11.7", torch="2.13.0", transformers="5.23.0", tests="core", passed="5"):
    return (python, torch, transformers, "peft 0.21.2", tests, passed, "0", "0", "2026-11-21")


def test_a_run_becomes_a_row(tmp_path):
    (tmp_path / "results.xml").write_text(JUNIT)
    environment = ("3.12.1", "2.13.0", "5.23.0", "peft 0.21.2")
    made = versions.row(environment, "core", tmp_path / "results.xml")
    assert made == (*environment, "core", "5", "3", "1", "2026-11-21")


def test_a_run_without_tests_is_no_row(tmp_path):
    (tmp_path / "results.xml").write_text(JUNIT.replace('tests="9"', 'tests="0"'))
    with pytest.raises(ValueError, match="holds no test: expected the results of a run"):
        versions.row(("3.12.1", "2.13.0", "5.23.0", ""), "core", tmp_path / "results.xml")


def test_rows_stand_in_order_of_version_and_a_new_run_takes_the_place_of_an_old_one():
    before = page(run(python="3.9.1"), run(passed="1"))
    after = versions.page_with(before, [run(), run(torch="2.9.0"), run(tests="most")])
    assert versions.rows_of(after) == [run(python="3.9.1"), run(torch="2.9.0"), run(), run(tests="most")]
    assert after.startswith("before") and after.endswith("after")


def test_this_environment_is_told():
    python, torch, transformers, beside = versions.versions()
    assert all(re.match(r"\d+\.\d+\.\d+", version) for version in (python, torch, transformers))
    assert "peft" in beside and "huggingface_hub" in beside


def test_the_files_of_every_set_are_there():
    sizes = [len(versions.files(tests)) for tests in versions.SETS]
    assert sizes == sorted(sizes) and versions.files("core")[0] == "tests/test_contract_hf.py"
    assert [file for file in versions.files("most") if not (versions.ROOT / file).is_file()] == []


def test_the_page_is_as_the_script_would_write_it_and_nothing_failed():
    text = versions.PAGE.read_text()
    assert versions.page_with(text, []) == text
    assert versions.rows_of(text) and all(int(run[5]) > 500 and run[6] == "0" for run in versions.rows_of(text))
