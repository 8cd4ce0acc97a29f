"""The pictures of a report in the documentation: python tests/page_screenshots.py RUN_FOLDER docs/images"""

from __future__ import annotations

import sys
from pathlib import Path

from chromium import Chromium

WIDTH, HEIGHT = 1180, 780


def screenshots(page: Path, to: Path) -> list[Path]:
    """What was found, a figure, the answers side by side, a table, and a picture's question in the dark."""
    made = []
    with Chromium(WIDTH, HEIGHT) as browser:
        for name, scheme, heading in (
            ("report_findings", "light", "what-was-found"),
            ("report_answers", "light", "what-the-models-say"),
            ("report_figures", "light", "before-and-after-the-fine-tune"),
            ("report_tokens", "dark", "the-direction-token-by-token"),
            ("report_table", "light", "where-the-numbers-come-from"),
        ):
            browser.media(scheme)
            browser.open(page)
            browser.js("document.querySelectorAll('details').forEach(d => { d.open = d.textContent.length > 20000; })")
            place = f"document.getElementById('{heading}')"
            if name == "report_table":
                place = "[...document.querySelectorAll('summary')].at(-1)"
            if name == "report_findings":
                place = "document.body"
            if name == "report_tokens":
                place = "document.querySelector('.seen').closest('.heat')"
            if name == "report_answers":
                browser.js("document.querySelector('.answers input[type=search]').focus()")
            if name == "report_table":
                browser.js("document.querySelectorAll('details:last-of-type th .sort')[6].click()")
            browser.js(f"{place}.scrollIntoView({{block: 'start', behavior: 'instant'}})")
            (to / f"{name}.png").write_bytes(browser.screenshot())
            made.append(to / f"{name}.png")
            if browser.faults:
                raise SystemExit(f"the page is not sound: {browser.faults}")
    return made


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    print(*screenshots(Path(sys.argv[1]) / "report.html", Path(sys.argv[2])), sep="\n")
