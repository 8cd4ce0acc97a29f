"""The reporting room: the claim is made where it was planted, a page is inert and complete, and says what it lacks."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from planted_run import CLAIM, HOSTILE, changed, entry, four, planted, planted_samples, text_ablation

from workbench import reporting
from workbench.reporting import arrays, experiment_report, page, sentences, style


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with its summary, its samples and its page."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "summary.json").write_text(json.dumps(planted()))
    (folder / "samples.json").write_text(json.dumps(planted_samples()))
    reporting.report(folder, figures=folder / "figures")
    return folder


@pytest.fixture(scope="module")
def html(run):
    return (run / "report.html").read_text(encoding="utf-8")


class Seen(HTMLParser):
    """What a browser would see: elements with attributes, and the text outside of style and script."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self.words, self._inside = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


class TestImports:
    def test_nothing_heavy_is_imported_until_something_is_drawn(self):
        code = (
            "import sys, workbench.reporting; print([m for m in ('matplotlib', 'jinja2', 'torch') if m in sys.modules])"
        )
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"

    def test_drawing_leaves_the_users_matplotlib_alone(self):
        """Neither pyplot nor a back end appears, and every rcParam is what it was. Meta: the style does change them."""
        code = (
            "import sys, matplotlib; from workbench import reporting as r; from workbench.reporting import style\n"
            "now = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
            "before = now()\n"
            "with style.applied(): assert now() != before\n"
            "r.as_svg(r.condition_bars({'Text': {'base': {'right': r.Bar(0.5)}}}))\n"
            "assert now() == before\n"
            "print('matplotlib.pyplot' in sys.modules)"
        )
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


class TestVerdict:
    def test_the_claim_is_made_where_it_was_planted_and_only_there(self, html):
        text = Seen(html).text
        assert text.count(CLAIM) == 1
        assert f"In text, {CLAIM}" in text
        assert "In images, it is not shown" in text

    @pytest.mark.parametrize(
        ("change", "instead"),
        [
            (text_ablation("contrary", draws=[0.9] * 98 + [0.03]), "1 of 99"),
            (text_ablation("contrary", draws=[0.9] * 98 + [0.04]), "1 of 99"),  # a tie is not below
            (text_ablation("right", draws=[0.1] * 98 + [0.95]), "right answers do not return"),
            (text_ablation("right", value=0.03), "may as well have damaged"),
            (text_ablation("contrary", draws=[0.9] * 98), "With 98 control directions no claim"),
            (text_ablation("right", draws=[0.1] * 20), "With 20 control directions no claim"),
            (text_ablation("contrary", value=0.99), "does not lower"),
            (lambda r: r.update(control=None), "No energy-matched control values"),
            (lambda r: r.update(value=None) if r["condition"] == "tuned" else None, "nothing can be said"),
            (lambda r: r.update(value=None) if r["condition"] == "ablation" else None, "nothing can be said"),
        ],
        ids=["one-below", "tie", "one-above", "broken", "98", "20-right", "risen", "bare", "no-tuned", "none"],
    )  # fmt: skip
    def test_otherwise_the_page_says_what_was_found_instead(self, change, instead):
        judged = reporting.ablation_verdict(reporting.read_summary(changed(planted(), change)), "text")
        said = sentences.carried(judged)
        assert not judged.carried
        assert CLAIM not in said and instead in said

    def test_below_every_control_is_not_enough_when_the_rate_did_not_fall(self):
        """Controls that raise the rate are easily undercut: the rate itself must have fallen too."""
        above = changed(planted(), text_ablation("contrary", value=0.985, draws=[0.99] * 99))
        judged = reporting.ablation_verdict(reporting.read_summary(above), "text")
        assert judged.recovered and not judged.carried

    def test_other_controls_do_not_count(self):
        """An isotropic direction removes 1/d of the energy: 99 of those show nothing."""
        only = changed(
            planted(),
            lambda r: r["control"] and r["control"].update(kind=r["control"]["kind"].replace("energy_", "x_")),
        )
        assert not reporting.ablation_verdict(reporting.read_summary(only), "text").carried

    def test_p_at_its_floor_is_a_bound(self):
        summary = reporting.read_summary(planted())
        assert "p ≤ 1/100" in sentences.carried(reporting.ablation_verdict(summary, "text"))

    def test_controls_written_as_random_results_are_found(self):
        """One `random` result a draw is the same control as one list of draws."""
        rows = [entry("contrary", v, "random", detail="energy_matched") for v in (0.8, 0.9)]
        summary = reporting.read_summary({"results": [entry("contrary", 0.1, "ablation"), *rows]})
        assert summary.controls(summary.results[0])["energy_matched"].tolist() == [0.8, 0.9]


class TestPage:
    def test_organism_is_called_one_and_a_real_model_is_not(self, html):
        assert "by construction" in Seen(html).text and "no evidence about real models" in Seen(html).text
        real = planted() | {"model": {"name": "gemma-3-4b-it", "kind": "hf"}}
        assert "by construction" not in str(experiment_report.experiment_blocks(reporting.read_summary(real)))

    def test_it_opens_with_what_was_found(self, html):
        headings = re.findall(r'<h2 id="([^"]+)"', html)
        assert headings[0] == "what-was-found" and headings[-2:] == ["limits", "where-the-numbers-come-from"]

    def test_nothing_is_fetched_and_nothing_can_run(self, html):
        seen = Seen(html)
        policy = [a["content"] for tag, a in seen.elements if a.get("http-equiv") == "Content-Security-Policy"]
        assert "default-src 'none'" in policy[0]
        assert not {tag for tag, _ in seen.elements} & {"iframe", "link", "object", "embed", "base", "form"}
        for tag, attributes in seen.elements:
            for name, value in attributes.items():
                assert not name.startswith("on"), (tag, name)
                if name in ("src", "href", "xlink:href", "action"):
                    assert value.startswith(("#", "data:")), (tag, name, value)
        assert "url(http" not in html and "@import" not in html

    def test_the_one_script_is_a_file_of_ours_and_the_policy_knows_it_by_its_hash(self, html):
        script = (Path(page.__file__).parent / "page.js").read_text()
        assert re.findall(r"<script[^>]*>(.*?)</script>", html, flags=re.DOTALL) == [script]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in html and "unsafe-eval" not in html
        assert script.isascii() and "</" not in script
        for way_in in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "fetch("):
            assert way_in not in script, way_in

    def test_ids_are_unique_and_every_reference_finds_its_own(self, html):
        ids = re.findall(r'\sid="([^"]+)"', html)
        assert len(ids) == len(set(ids)) > 100
        wanted = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html))
        assert {first or second for first, second in wanted} <= set(ids)

    def test_every_figure_is_inside_and_repaints_in_the_dark(self, html, run):
        pictures = sorted(path.name for path in (run / "figures").glob("*.png"))
        assert html.count("<svg") == len(pictures) == 8
        assert {"comparison.png", "cosines.png", "ablation.png", "steering.png", "spectrum.png"} <= set(pictures)
        svgs = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
        assert "var(--figure-contrary)" in svgs and style.THEME["contrary"][0] not in svgs
        assert all(f"--figure-{name.replace('_', '-')}: {dark}" in html for name, (_, dark) in style.THEME.items())

    def test_hostile_text_stays_text_wherever_it_comes_from(self, tmp_path):
        few = planted()
        few["results"] = [r for r in few["results"] if r["modality"] == "text"]
        bad = changed(
            few, lambda r: r.update(detail=HOSTILE) if r["condition"] == "ablation" and r["layer"] == 0 else None
        )
        bad = changed(bad, lambda r: r.update(target=HOSTILE) if r["target"] else None)
        bad["model"] |= {"name": HOSTILE, HOSTILE: HOSTILE}
        bad |= {"command": HOSTILE, "hashes": {"x": HOSTILE}}
        bad["directions"]["cosines"]["labels"][0] = HOSTILE
        said = [{"prompt": HOSTILE, "condition": HOSTILE, "text": HOSTILE, "category": '"><script>'}]
        html = reporting.report(bad, tmp_path / "bad.html", samples=said).read_text(encoding="utf-8")
        seen = Seen(html)
        assert html.lower().count("<script") == [tag for tag, _ in seen.elements].count("script") == 1
        assert seen.text.count('<script>alert("x")</script>') > 8
        assert "\u202e" not in html and "\\u202e" in seen.text

    def test_something_like_a_token_is_never_written(self, tmp_path):
        leaked = {"results": [], "command": "HF_TOKEN=hf_" + "a" * 34 + " workbench demo"}
        with pytest.raises(ValueError, match="access token"):
            reporting.report(leaked, tmp_path / "leaked.html")
        assert not list(tmp_path.iterdir())

    def test_the_same_numbers_give_the_same_file(self, tmp_path):
        """Also when the figures were asked for as PNG: a second drawing may not move the first."""
        few = {"results": [*four(0.1, 0.8, 0.1, "base"), *four(0.9, 0.05, 0.05, "tuned")]}
        once = reporting.report(few, tmp_path / "once.html")
        again = reporting.report(few, tmp_path / "deep" / "again.html", figures=tmp_path / "figures")
        assert "<svg" in once.read_text() and again.read_bytes() == once.read_bytes()

    def test_command_hashes_seconds_and_every_result_are_there(self, html):
        text = Seen(html).text
        summary = planted()
        for words in (summary["command"], "0237419b74fba427", "41.5 s", "72\u00a0%".replace("\u00a0", " "), "seed"):
            assert words in text
        assert f"All {len(summary['results'])} results" in text

    def test_samples_stand_side_by_side_with_their_category(self, html):
        asked = re.findall(r"<article.*?</article>", html, flags=re.DOTALL)
        row = next(one for one in asked if "dog its sound" in one)
        assert re.findall(r'class="mark ([\w-]+)"', row) == ["right", "contrary", "right", "other"]


class TestMissingParts:
    def test_an_empty_summary_is_a_page_of_what_is_missing(self, tmp_path):
        text = Seen(reporting.report({"results": []}, tmp_path / "empty.html").read_text()).text
        assert text.count("Not in this run:") >= 8 and CLAIM not in text

    @pytest.mark.parametrize("condition", ["base", "tuned", "ablation", "pca", "transfer"])
    def test_any_condition_may_be_missing(self, condition):
        """Without any one of the conditions that others lean on, every section still stands."""
        kept = planted() | {"results": [r for r in planted()["results"] if r["condition"] != condition]}
        blocks = experiment_report.experiment_blocks(reporting.read_summary(kept))
        assert len([b for b in blocks if isinstance(b, reporting.Text) and b.heading]) == 10

    def test_a_value_that_is_missing_or_nan_is_counted_not_drawn(self):
        holes = {"results": [entry("contrary", 0.5, "base"), entry("contrary", 0.5, "tuned") | {"value": None}]}
        holes["results"].append(entry("right", 0.5, "base") | {"value": float("nan")})
        summary = reporting.read_summary(holes)
        assert (len(summary.results), summary.unmeasured) == (1, 2)

    def test_unknown_fields_are_ignored(self):
        assert (
            reporting.read_summary({"results": [entry("right", 0.5, "base") | {"new": 1}], "new": 2}).results[0].n
            == 192
        )

    def test_what_is_no_summary_is_refused_with_the_reason(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"summary\.json"):
            reporting.read_summary(tmp_path)
        (tmp_path / "summary.json").write_text('{"results": [')
        with pytest.raises(ValueError, match="no JSON"):
            reporting.read_summary(tmp_path)
        with pytest.raises(ValueError, match="a list `results`"):
            reporting.read_summary({"rows": []})
        with pytest.raises(ValueError, match=r"results\[0\]"):
            reporting.read_summary({"results": [{"value": 1.0}]})


class TestArrays:
    """Results reach the figures unchanged."""

    def test_layer_curve(self):
        curve = arrays.layer_curve(reporting.read_summary(planted()), "text")
        assert curve is not None
        assert curve.value.tolist() == [0.88, 0.5, 0.57, 0.76, 0.97, 0.98]
        assert (curve.base, curve.tuned, curve.every_layer) == (0.0, 0.98, 0.04)
        assert {kind: draws.shape for kind, draws in curve.controls.items()} == dict.fromkeys(style.CONTROLS, (99, 6))

    def test_dose_curve_starts_at_the_unsteered_model(self):
        curve = arrays.dose_curve(reporting.read_summary(planted()), "text")
        assert curve is not None and curve.control is not None
        assert curve.coefficients.tolist() == [0, 0.5, 1, 1.5, 2, 3]
        assert curve.rates["contrary"].tolist() == [0, 0.2, 0.61, 0.66, 0.42, 0.05]
        assert np.isnan(curve.control[:, 0]).all() and not np.isnan(curve.control[:, 1:]).any()

    def test_spectrum_is_in_component_order_whatever_the_order_of_results(self):
        shuffled = planted()
        shuffled["results"] = shuffled["results"][::-1]
        made = arrays.spectra(reporting.read_summary(shuffled))[2]
        assert made.explained.tolist() == [0.62, 0.13, 0.07, 0.04, 0.03, 0.02, 0.015, 0.01]
        assert made.null is not None and made.null.shape == (8, 2)
        assert (made.effective_rank, made.benign_rank) == (3.4, 6.1)

    def test_chosen_layers_span_the_model(self):
        assert arrays.chosen(list(range(34))) == [0, 16, 33] and arrays.chosen([2, 5]) == [2, 5]
