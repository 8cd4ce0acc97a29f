"""The HTML page of a summary that somebody else wrote: its words stay words."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

import workbench as wb
from workbench.reporting import page

SCRIPT = "<script>alert(1)</script>"
WORDS = {
    "a script": SCRIPT,
    "a tag that runs": "<img src=x onerror=alert(1)>",
    "an attribute": '" onmouseover="alert(1)" x=\'',
    "an end": "</td></table></main></style></script><script>alert(1)</script>",
    "a drawing": "<svg/onload=alert(1)>",
    "a template": "{{ 7 * 7 }}{% for a in b %}",
    "an address": "javascript:alert(1)",
    "a formula": r"$\frac{1$ $$\input{/etc/passwd}",
    "a comment": "<!--><script>alert(1)</script>-->",
}
DIRECTION = "evil\u202etxt.exe \u2066hidden\u2069 \u200b\u0007\x1b[31m"


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside, self.text = False, ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)
        else:
            self.text += data


def made(folder: Path, words: str) -> str:
    result = {"metric": "contrary", "condition": "tuned", "split": "none", "value": 0.5, "n": 40, "detail": words}
    study = {"schema": 1, "question": words, "command": words, "model": {"name": words, "kind": words}}
    by_layer = [{**result, "layer": layer, "condition": "ablation", "metric": words} for layer in range(3)]
    summary = {**study, "results": [result, {**result, "condition": words}, *by_layer], "hashes": {words: words}}
    sample = {"id": words, "prompt": words, "answer": words, "condition": words, "text": words, "category": words}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "samples.json").write_text(json.dumps([sample]))
    return wb.report(folder, to=folder / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", WORDS)
def test_words_of_a_summary_stay_words(kind, tmp_path):
    seen = Tags(made(tmp_path, WORDS[kind]))
    whole = Tags(made(tmp_path, "plain words"))
    assert [tag for tag, _ in seen.tags] == [tag for tag, _ in whole.tags], "no tag more, and none less"
    for tag, attributes in seen.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcdoc", "action")], tag
        assert str(attributes.get("href") or "#").startswith("#") or tag == "use", attributes
    assert seen.scripts == whole.scripts and len(seen.scripts) == 1, "one script, and no data in it"
    assert " ".join(WORDS[kind].split()) in " ".join(seen.text.split()), "the words are there to be read"


def test_the_policy_allows_our_script_alone_and_no_network(tmp_path):
    seen = Tags(made(tmp_path, "plain"))
    first = next(attributes for tag, attributes in seen.tags if attributes.get("http-equiv"))
    policy = dict(part.strip().split(" ", 1) for part in str(first["content"]).split(";"))
    assert seen.tags.index(("meta", first)) < [tag for tag, _ in seen.tags].index("style"), "before all that it rules"
    assert policy["default-src"] == "'none'" and policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == f"'{page.hash_of(seen.scripts[0])}'" and policy["img-src"] == "data:"
    assert "connect-src" not in policy and "unsafe-eval" not in str(policy)


def test_signs_that_cannot_be_seen_are_shown(tmp_path):
    html = made(tmp_path, DIRECTION)
    for sign in "\u202e\u2066\u2069\u200b\u0007\x1b":
        assert sign not in html, ascii(sign)
    assert "evil\\u202etxt.exe" in html and "\\u001b[31m" in html


def test_a_page_without_the_escape_would_hold_the_tag(tmp_path, monkeypatch):
    """The meta-test: the comparison of tags does find a page that is not escaped."""
    import jinja2

    class Trusting(jinja2.Environment):
        def __init__(self, **options):
            super().__init__(**{**options, "autoescape": False})

    monkeypatch.setattr(jinja2, "Environment", Trusting)
    tags = Tags(made(tmp_path, SCRIPT)).tags
    assert len([tag for tag, _ in tags if tag == "script"]) > 1
