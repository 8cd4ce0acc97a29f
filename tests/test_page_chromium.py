"""The page in a real browser: it renders, sorts, filters and browses, by mouse and keys, and hostile text is text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from chromium import Chromium, found
from page_samples import PROMPTS, WORDS, whole_page
from page_sight import CONTRASTS, colour_of
from planted_run import HOSTILE

from workbench import reporting
from workbench.reporting.blocks import Table

pytestmark = pytest.mark.skipif(found() is None, reason="no Chromium on the PATH: install one, and these tests run")

COLUMN = "[...document.querySelectorAll('tbody tr')].map(r => r.cells[{}].textContent)"
SHOWN = "[...document.querySelectorAll('.asked')].filter(a => !a.hidden).map(a => a.querySelector('h3').textContent)"
VISIBLE = "(selector) => [...document.querySelectorAll(selector)].filter(e => e.checkVisibility())"


@pytest.fixture(scope="module")
def browser():
    with Chromium() as one:
        yield one


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return whole_page(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def shown(browser, page):
    """The page freshly loaded; at the end nothing may have gone wrong on it, and nothing been asked for."""
    browser.media("light")
    browser.faults.clear()
    browser.asked.clear()
    browser.open(page)
    yield browser
    browser.media("light")
    assert browser.faults == []
    assert [url for url in browser.asked if not url.startswith(("file://", "data:image/"))] == []


def table_page(folder: Path, rows: list, columns: tuple = ("name", "rate", "n")) -> Path:
    return reporting.write_page("A table", [Table(columns, rows)], folder / "table.html")


def labelled(words: str) -> str:
    """The JavaScript of the control in the browser of answers whose label begins so."""
    return (
        f"[...document.querySelectorAll('.answers .tools label')].find(l => l.textContent.startsWith({words!r}))"
        ".querySelector('select, input')"
    )


class TestRenders:
    def test_headings_figures_pictures_and_no_fault(self, shown):
        assert "What a narrow fine-tune changed" in shown.js("document.title")
        sizes = shown.js(
            "[...document.querySelectorAll('.drawing svg, img')].map(e => e.getBoundingClientRect().height)"
        )
        assert len(sizes) >= 10 and min(sizes) > 20
        assert shown.js("[...document.images].every(i => i.complete && i.naturalWidth > 0)")

    def test_a_narrow_window_does_not_scroll_sideways(self, shown):
        shown.call("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=False)
        try:
            assert shown.js("document.scrollingElement.scrollWidth") <= 360
        finally:
            shown.call("Emulation.clearDeviceMetricsOverride")

    def test_light_dark_and_the_readers_choice(self, shown):
        paper = "getComputedStyle(document.documentElement).backgroundColor"
        assert shown.js(paper) == "rgb(255, 255, 255)"
        shown.media("dark")
        assert shown.js(paper) == "rgb(21, 24, 27)"
        shown.click(".theme")
        assert shown.js(paper) == "rgb(255, 255, 255)"
        shown.media("light")
        shown.click(".theme")
        assert shown.js(paper) == "rgb(21, 24, 27)"

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_every_text_stands_out_from_its_paper(self, shown, scheme):
        """WCAG AA: 4.5 to 1, also on tokens in the full colour."""
        shown.media(scheme)
        worst = shown.js(CONTRASTS)
        assert worst[0][0] >= 4.5, worst[:3]

    @pytest.mark.parametrize("sight", ["deuteranopia", "protanopia", "tritanopia", "achromatopsia"])
    def test_both_ends_of_the_heat_are_told_apart_by_every_eye(self, shown, sight):
        """By colour for all but those who see none, who have the whole and the dotted line."""
        look = "['.down', '.up'].map(c => getComputedStyle(document.querySelector('{} ' + c)).{})"
        assert shown.js(look.format(".tokens", "borderBottomStyle")) == ["dotted", "solid"]
        assert len(set(shown.js(look.format(".seen", "fill")))) == 2
        shown.call("Emulation.setEmulatedVisionDeficiency", type=sight)
        try:
            low, high = (colour_of(shown, f".tokens span:nth-child({place})") for place in (1, len(WORDS)))
        finally:
            shown.call("Emulation.setEmulatedVisionDeficiency", type="none")
        assert sight == "achromatopsia" or np.abs(low - high).max() > 40

    def test_on_paper_everything_folded_is_open_and_no_control_is_printed(self, shown):
        height = "document.querySelector('details').getBoundingClientRect().height"
        assert shown.js(height) < 80
        shown.media("light", "print")
        assert shown.js(height) > 150
        assert shown.js(f"({VISIBLE})('button.theme, .tools, nav').length") == 0
        assert len(shown.call("Page.printToPDF", preferCSSPageSize=True)["data"]) > 50_000

    def test_without_scripts_all_is_there_to_be_read(self, browser, page):
        browser.call("Emulation.setScriptExecutionDisabled", value=True)
        try:
            browser.open(page)
            assert browser.js(f"({VISIBLE})('.said').length") == 5 * PROMPTS + 1
            assert browser.js("document.querySelectorAll('button, input, select').length") == 0
        finally:
            browser.call("Emulation.setScriptExecutionDisabled", value=False)


class TestTables:
    ROWS = (
        ["b", "98\u00a0% (95–99\u00a0%)", 12],
        ["a", "−3\u00a0%", 100],
        ["d", None, -3.0],
        ["c", "0.5\u00a0%", -20.0],
    )

    def order(self, browser, column):
        return browser.js(COLUMN.format(column))

    def test_a_column_is_sorted_up_down_and_back(self, browser, tmp_path):
        browser.open(table_page(tmp_path, [*self.ROWS]))
        heads = "[...document.querySelectorAll('th')].map(h => h.getAttribute('aria-sort'))"
        found = []
        for _ in range(3):
            browser.click("th:nth-child(2) .sort")
            found.append(("".join(self.order(browser, 0)), browser.js(heads)[1]))
        assert found == [("acbd", "ascending"), ("bcad", "descending"), ("badc", None)]

    def test_numbers_sort_as_numbers_and_words_as_words(self, browser, tmp_path):
        browser.open(table_page(tmp_path, [*self.ROWS]))
        browser.click("th:nth-child(3) .sort")
        assert "".join(self.order(browser, 0)) == "cdba"
        browser.click("th:nth-child(1) .sort")
        assert "".join(self.order(browser, 0)) == "abcd"
        assert browser.js("document.querySelectorAll('[aria-sort]').length") == 1

    def test_what_was_not_measured_stays_last(self, browser, tmp_path):
        browser.open(table_page(tmp_path, [["a", "rose", 1], ["b", None, 2], ["c", "’tis", 3], ["d", "", 4]]))
        found = []
        for _ in range(2):
            browser.click("th:nth-child(2) .sort")
            found.append("".join(self.order(browser, 0)))
        assert {order[2:] for order in found} == {"bd"} and found[0][:2] == found[1][1::-1]

    def test_by_keyboard(self, browser, tmp_path):
        browser.open(table_page(tmp_path, [*self.ROWS]))
        for _ in range(3):  # past the skip link and the colours
            browser.press("Tab", code="Tab", windowsVirtualKeyCode=9)
        assert browser.js("document.activeElement.textContent") == "name"
        browser.press("Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
        assert "".join(self.order(browser, 0)) == "abcd"

    def test_rows_are_filtered_by_words_and_by_choice(self, browser, tmp_path):
        rows = [[f"row {n}", ("red", "blue")[n % 2], n] for n in range(24)]
        browser.open(table_page(tmp_path, rows, ("name", "colour", "n")))
        visible = f"({VISIBLE})('tbody tr').map(r => r.cells[2].textContent)"
        browser.write("input[type=search]", "ROW 2")
        assert browser.js(visible) == ["2", "12", "20", "21", "22", "23"]
        browser.choose("document.querySelector('.tools select')", "blue")
        assert browser.js(visible) == ["21", "23"]
        assert browser.js("document.querySelector('.tools output').textContent") == "2 of 24 rows"
        browser.click("th:nth-child(3) .sort")
        browser.click("th:nth-child(3) .sort")
        assert browser.js(visible) == ["23", "21"]
        browser.write("input[type=search]", "")
        assert len(browser.js(visible)) == 12

    def test_a_small_table_has_no_filter(self, browser, tmp_path):
        browser.open(table_page(tmp_path, [*self.ROWS]))
        assert browser.js("document.querySelectorAll('input').length") == 0

    def test_the_table_of_all_results_has_a_choice_for_its_columns(self, shown):
        shown.js("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        labels = shown.js("[...document.querySelectorAll('.tools label')].map(l => l.firstChild.textContent)")
        assert {"split", "modality"} <= set(labels)


class TestAnswers:
    def test_four_conditions_stand_side_by_side_and_others_can_be_chosen(self, shown):
        columns = "[...document.querySelectorAll('.asked .side')[0].children].filter(e => !e.hidden)"
        names = f"{columns}.map(e => e.dataset.condition)"
        assert shown.js(names) == ["base", "tuned", "ablation", "steer +1"]
        tops = shown.js(f"{columns}.map(e => e.getBoundingClientRect().top)")
        assert max(tops) - min(tops) < 1
        shown.js(f"{labelled('base')}.click()")
        shown.js(f"{labelled('steer +0.5')}.click()")
        assert shown.js(names) == ["tuned", "ablation", "steer +0.5", "steer +1"]

    def test_twenty_at_once_and_more_on_demand(self, shown):
        assert len(shown.js(SHOWN)) == 20
        shown.click(".answers > button")
        assert len(shown.js(SHOWN)) == PROMPTS + 1

    def test_search_finds_answers_and_marks_the_words(self, shown):
        shown.write(".answers input[type=search]", "tuned SAYS 17")
        assert shown.js(SHOWN) == ["question 17"]
        assert shown.js("CSS.highlights.get('found').size") > 3
        assert shown.js("document.querySelectorAll('mark, .answers b').length") == 0

    def test_by_category_by_domain_and_where_they_differ(self, shown):
        shown.js(f"{labelled('only where')}.click()")
        assert (
            shown.js("document.querySelector('.answers .tools output').textContent") == f"15 of {PROMPTS + 1} prompts"
        )
        shown.js(f"{labelled('only where')}.click()")
        for words, option, wanted in (("with an answer", "contrary", 15), ("domain", "color", 5)):
            shown.choose(labelled(words), option)
            assert len(shown.js(SHOWN)) == wanted

    def test_ordered_by_a_judges_score(self, shown):
        """The lowest among the answers that are shown: the fine-tuned model's n, until only the base is left."""
        shown.choose(labelled("order"), "lowest aligned")
        assert shown.js(SHOWN)[:3] == ["question 0", "question 1", "question 2"]
        for name in ("tuned", "ablation", "steer +1"):
            shown.js(f"{labelled(name)}.click()")
        assert shown.js(SHOWN)[:3] == ["question 29", "question 28", "question 27"]

    def test_an_address_is_no_picture(self, shown):
        first = "document.querySelector('.asked header')"
        assert shown.js(f"{first}.querySelectorAll('img').length") == 1
        assert "not shown" in shown.js(f"{first}.textContent")


class TestHeat:
    def test_arrow_keys_say_every_tokens_value(self, shown):
        shown.js("document.querySelector('.tokens').focus()")
        said = []
        for key in ("Home", "ArrowRight", "End"):
            shown.press(key, code=key)
            said.append(shown.js("document.querySelector('.readout').textContent"))
        assert said == [
            "token 0 “<bos>”, template: −1.00",
            "token 1 “is”, prompt: −0.83",
            "token 12 “not”, response: +1.00",
        ]

    def test_the_picture_lies_under_its_patches(self, shown):
        boxes = shown.js(
            "['img', 'svg'].map(n => document.querySelector('.seen div:nth-child(2) ' + n).getBoundingClientRect())"
            ".map(r => [r.x, r.y, r.width, r.height])"
        )
        assert np.abs(np.subtract(*boxes)).max() < 1.5
        assert shown.js("document.querySelectorAll('.seen rect').length") == 9
        assert "highest +1.00 at row 3, column 3" in shown.js("document.querySelector('.seen svg').ariaLabel")


class TestHostile:
    def test_hostile_text_is_read_never_run(self, shown):
        """A dialog, an error, another element, an address asked for: each would be a fault (see `shown`)."""
        assert shown.js("document.querySelectorAll('script').length") == 1
        words = shown.js("document.body.textContent")
        assert words.count('<script>alert("x")</script>') >= 4
        assert "\u202e" not in words and "\\u202e" in words
        shown.write(".answers input[type=search]", HOSTILE.split()[0])
        assert len(shown.js(SHOWN)) == 1

    INJECTED = '<script>window.hacked = 1</script><img src="data:image/png;base64,AA" onerror="window.hacked = 1">'

    def test_what_slipped_through_the_policy_would_stop(self, browser, page, tmp_path):
        """And without the policy it would run: this test can fail."""
        html = page.read_text().replace("<h1>", f"{self.INJECTED}<h1>")
        (tmp_path / "bad.html").write_text(html)
        browser.faults.clear()
        browser.open(tmp_path / "bad.html")
        assert browser.js("window.hacked") is None
        assert sum("Content Security Policy" in fault for fault in browser.faults) >= 2
        (tmp_path / "open.html").write_text(re.sub(r"<meta http-equiv[^>]+>", "", html))
        browser.open(tmp_path / "open.html")
        assert browser.js("window.hacked") == 1
        browser.faults.clear()

    def test_every_control_has_a_name_and_every_picture_words(self, shown):
        unnamed = shown.js(
            "[...document.querySelectorAll('input, select, button, img, [role=img]')].filter(e => !("
            "e.hasAttribute('alt') || e.ariaLabel || (e.closest('label') || e).textContent.trim()))"
            ".map(e => e.outerHTML)"
        )
        assert unnamed == []
