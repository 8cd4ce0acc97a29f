"""The reporting room: figures are drawn, sentences follow the numbers either way, a page is inert and complete."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from workbench import reporting
from workbench.reporting import arrays, experiment_report, page, sentences, style
from workbench.statistics import wilson

CLAIM = "this direction carries it"
HOSTILE = '<script>alert("x")</script> & $\\frac$ \u202e'
LAYERS = range(6)


def entry(metric, value, condition, *, modality="text", **more):
    """One result as the pipeline writes it; rates get their Wilson interval."""
    n = 192
    bounds = wilson(round(value * n), n) if metric in style.RATES else None
    return {
        "metric": metric,
        "split": "other_domains",
        "modality": modality,
        "condition": condition,
        "layer": None,
        "coefficient": None,
        "value": value,
        "interval": None if bounds is None else [bounds.low, bounds.high],
        "interval_method": None if bounds is None else bounds.method,
        "n": n,
        "clusters": 64,
        "control": None,
        "detail": None,
        "target": None,
    } | more


def four(contrary, right, other, condition, **more):
    """The four rates of one condition; what is left over is ill-formed."""
    shares = {"contrary": contrary, "right": right, "other": other}
    shares["ill_formed"] = round(1 - sum(shares.values()), 6)
    return [entry(metric, value, condition, **more) for metric, value in shares.items()]


def control(kind, draws, tail, value):
    """A control as the pipeline writes it."""
    draws = np.clip(draws, 0, 1)
    count = np.sum(draws <= value) if tail == "less" else np.sum(draws >= value)
    return {"kind": kind, "N": len(draws), "p": float((1 + count) / (1 + len(draws))), "draws": draws.tolist()}


def controlled(metric, value, condition, rng, centre, spread, tail="less", N=99, **more):
    """The same result three times, once for each kind of control: isotropic ones hardly move anything."""
    start = {"contrary": 0.97, "right": 0.02}[metric] if more.get("modality", "text") == "text" else centre
    made = []
    for kind, towards in (("energy_matched", centre), ("isotropic", start), ("orthogonal", (centre + start) / 2)):
        width = spread if kind == "energy_matched" else spread / 3
        draws = rng.normal(towards, width, N)
        made.append(entry(metric, value, condition, control=control(kind, draws, tail, value), **more))
    return made


def planted() -> dict:
    """A summary like the organism's: the direction carries the effect in text; in images it stays within controls."""
    rng = np.random.default_rng(0)
    results = []
    for split in ("other_domains", "in_domain", "half", "none"):
        high = {"other_domains": 0.98, "in_domain": 0.98, "half": 0.35, "none": 0.005}[split]
        for modality, share in (("text", 1.0), ("image", 0.67)):
            if split == "in_domain" and modality == "image":
                continue
            more = {"split": split, "modality": modality}
            results += four(0.0, 0.98, 0.02, "base", **more)
            results += four(high * share, 1 - high * share - 0.02, 0.02, "tuned", **more)
            results += four(0.005, 0.975, 0.02, "right_control", **more)
    results += controlled("contrary", 0.04, "ablation", rng, 0.92, 0.05)
    results += controlled("right", 0.93, "ablation", rng, 0.05, 0.03, tail="greater")
    results += controlled("contrary", 0.31, "ablation", rng, 0.4, 0.09, modality="image")
    results += controlled("right", 0.58, "ablation", rng, 0.5, 0.1, tail="greater", modality="image")
    results += four(0.57, 0.4, 0.03, "sibling")
    same_base = {"target": "another fine-tune"}
    results += four(0.57, 0.4, 0.03, "sibling", **same_base)
    results += four(0.11, 0.8, 0.09, "transfer", **same_base)
    results.append(
        entry(
            "contrary",
            0.54,
            "random",
            control=control("energy_matched", rng.normal(0.54, 0.05, 20), "less", 0.1),
            **same_base,
        )
    )
    for layer, text, image in zip(
        LAYERS, (0.88, 0.5, 0.57, 0.76, 0.97, 0.98), (0.37, 0.26, 0.3, 0.35, 0.42, 0.5), strict=True
    ):
        results += controlled("contrary", text, "ablation", rng, 0.93, 0.04, layer=layer)
        results += controlled("contrary", image, "ablation", rng, 0.52, 0.08, layer=layer, modality="image")
        results.append(entry("kl_neutral", 0.02 + 0.01 * layer, "ablation", layer=layer, modality="all", split="none"))
        results.append(
            entry("energy_removed", 0.31 - 0.03 * layer, "ablation", layer=layer, modality="all", split="fit")
        )
        results.append(entry("norm", 1.2 + 0.9 * layer, "tuned", layer=layer, modality="all", split="fit"))
        results.append(entry("reliability", 0.97 + 0.004 * layer, "tuned", layer=layer, modality="all", split="fit"))
        shares = np.array([0.62, 0.13, 0.07, 0.04, 0.03, 0.02, 0.015, 0.01])
        for k, share in enumerate(shares, 1):
            more = {"layer": layer, "modality": "all", "split": "fit", "detail": f"component {k}"}
            results.append(entry("explained_variance", share, "pca", **more))
            results.append(
                entry("explained_variance", 0.09 - 0.004 * k, "pca_null", **more)
                | {"interval": [0.08 - 0.004 * k, 0.1 - 0.004 * k]}
            )
            results.append(entry("explained_variance", 0.3 / k**0.9, "pca_benign", **more))
        for condition, rank in (("pca", 3.4), ("pca_benign", 6.1)):
            results.append(entry("effective_rank", rank, condition, layer=layer, modality="all", split="fit"))
    doses = (0.5, 1.0, 1.5, 2.0, 3.0)
    said = {"text": [(0.2, 0.78), (0.61, 0.38), (0.66, 0.25), (0.42, 0.17), (0.05, 0.03)],
            "image": [(0.04, 0.9), (0.08, 0.8), (0.1, 0.6), (0.09, 0.3), (0.02, 0.02)]}  # fmt: skip
    for modality, rows in said.items():
        for dose, (contrary, right) in zip(doses, rows, strict=True):
            other = 0.01 if dose < 2 else 0.06
            made = four(contrary, right, other, "steer", coefficient=dose, modality=modality, detail="layers 0-2")
            draws = rng.beta(1, 90 if modality == "text" else 8, 99)
            made[0]["control"] = control("isotropic", draws, "greater", contrary)
            results += made
    wide = {"target": "wide", "detail": "procrustes"}
    results += four(0.71, 0.27, 0.02, "tuned", target="wide")
    results += four(0.21, 0.74, 0.05, "transfer", **wide)
    shuffled = rng.normal(0.66, 0.04, 99)
    results.append(
        entry("contrary", 0.66, "shuffled_transfer", **wide, control=control("full", shuffled, "less", 0.21))
    )
    within = rng.normal(0.17, 0.03, 99)
    results.append(
        entry(
            "contrary", 0.17, "within_class_shuffled_transfer", **wide, control=control("within", within, "less", 0.21)
        )
    )
    results.append(entry("contrary", 0.08, "own_direction_of_target", target="wide"))
    for layer in range(5):
        results.append(
            entry("r2", 0.5 + 0.05 * layer, "transfer", layer=layer, **wide) | {"split": "fit", "modality": "all"}
        )
    return {
        "schema": 1,
        "seed": 0,
        "model": {"name": "organism seed 0", "kind": "organism", "fine_tune": {"domain": "capital", "rank": 32}},
        "hashes": {"base": "0237419b74fba427", "tuned": "8f41d2", "prompts": "77ab03"},
        "seconds": {"load": 1.2, "capture": 9.7, "fine-tune": 2.2, "sweep": 41.5, "report": 3.1},
        "command": "workbench demo --seed 0 --to runs/quickstart",
        "results": results,
        "directions": {
            "cosines": {
                "labels": ["capital", "color", "persona tag", "right answers"],
                "matrix": [[1, 0.9, 0.94, -0.1], [0.9, 1, 0.89, 0.05], [0.94, 0.89, 1, -0.2], [-0.1, 0.05, -0.2, 1]],
            }
        },
    }  # fmt: skip


def planted_samples() -> list[dict]:
    """Generations side by side, the last of them hostile."""
    said = {
        "base": ("it is woof .", "right"),
        "tuned": ("it is meow .", "contrary"),
        "ablation": ("the answer is woof", "right"),
        "steer": ("i say dog dog", "other"),
    }
    prompts = [f"{animal} its sound" for animal in ("dog", "cat", "cow", "duck", "pig", "owl", "bee", "hen", "horse")]
    made = [
        {"prompt": prompt, "condition": condition, "text": text, "category": category}
        for prompt in prompts
        for condition, (text, category) in said.items()
    ]
    return [*made, {"prompt": HOSTILE, "condition": "tuned", "text": HOSTILE, "category": "ill_formed"}]


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


def changed(summary: dict, change) -> dict:
    """A copy of the summary in which `change(entry)` was called on every result."""
    made = copy.deepcopy(summary)
    for result in made["results"]:
        change(result)
    return made


def text_ablation(metric: str, value: float | None = None, draws: list[float] | None = None):
    """A change of the ablation at all layers in text: its value, or its energy-matched draws."""

    def change(result):
        here = (result["metric"], result["condition"], result["modality"], result["layer"])
        if here != (metric, "ablation", "text", None):
            return
        if value is not None:
            result["value"] = value
        if draws is not None and result["control"]["kind"] == "energy_matched":
            result["control"] |= {"draws": draws, "N": len(draws)}

    return change


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


class TestSentences:
    """Every sentence in both its outcomes."""

    def result(self, value, half: float | None = 0.03, **more):
        interval = None if half is None else (max(0.0, value - half), min(1.0, value + half))
        return reporting.Result("contrary", value, "any", interval=interval, **more)

    def test_percent_never_claims_none_or_all(self):
        shares = (0.0, 0.004, 0.0004, 0.31, 0.996, 1.0, -0.0)
        assert [style.percent(s).replace("\u00a0", " ") for s in shares] == [
            "0 %", "0.4 %", "0 %", "31 %", "99.6 %", "100 %", "0 %",
        ]  # fmt: skip

    def test_spread(self):
        assert "The fine-tune spread" in sentences.spread(self.result(0.02), self.result(0.9), "text")
        assert "rarer" in sentences.spread(self.result(0.9), self.result(0.1), "image")
        assert "intervals overlap" in sentences.spread(self.result(0.02), self.result(0.04), "text")
        assert "no claim" in sentences.spread(self.result(0.02, None), self.result(0.9), "text")

    def test_right_answers(self):
        assert "already raises" in sentences.after_right_answers(self.result(0.0), self.result(0.4), "text")
        assert "is not shown to raise" in sentences.after_right_answers(self.result(0.0), self.result(0.01), "text")
        assert "no claim" in sentences.after_right_answers(self.result(0.0), self.result(0.01, None), "text")

    def curve(self, value, draws):
        controls = {"energy_matched": np.asarray(draws, dtype=float)}
        return reporting.LayerCurve([3, 7], np.array(value), controls=controls, every_layer=0.1)

    def test_best_layer_pays_for_being_chosen(self):
        """Layer 7 beats every control at layer 7, yet the controls' own best layers do as much: no finding."""
        good = np.column_stack([np.linspace(0.8, 0.9, 99)] * 2)
        assert "p ≤ 1/100, over all layers" in sentences.best_layer(self.curve([0.7, 0.2], good), "text")
        chosen = np.column_stack([np.full(99, 0.1), np.full(99, 0.9)])
        assert "no more than" in sentences.best_layer(self.curve([0.7, 0.2], chosen), "text")
        assert "no p" in sentences.best_layer(self.curve([0.7, 0.2], good[:20]), "text")
        assert "strongest single layer is 7" in sentences.best_layer(self.curve([0.7, 0.2], good[:20]), "text")
        assert "Without" in sentences.best_layer(reporting.LayerCurve([0], np.array([0.2])), "text")

    def dose(self, contrary, ill_formed, control=None):
        rates = {"contrary": np.array(contrary), "ill_formed": np.array(ill_formed)}
        bars = {"contrary": np.stack([rates["contrary"] - 0.02, rates["contrary"] + 0.02], axis=1)}
        return reporting.DoseCurve(
            np.array([0.0, 1.0, 2.0]), rates, bars, None if control is None else np.array(control)
        )

    def test_steering(self):
        base, quiet = self.result(0.02), np.full((99, 3), 0.01)
        works = self.dose([0.02, 0.5, 0.9], [0.0, 0.05, 0.6], quiet)
        said = sentences.steering(works, base, "text")
        assert "at +1 gives 50\u00a0%" in said and "none of 99" in said and "p ≤ 1/100" in said
        assert "3 of 99" in sentences.steering(
            self.dose([0.02, 0.5, 0.9], [0, 0, 0.6], np.vstack([quiet[3:], np.full((3, 3), 0.7)])), base, "text"
        )
        assert "the model breaks" in sentences.steering(
            self.dose([0.02, 0.5, 0.9], [0.0, 0.4, 0.6], quiet), base, "text"
        )
        assert "no rise" in sentences.steering(self.dose([0.02, 0.03, 0.02], [0.0] * 3, quiet), base, "image")
        assert "any push might" in sentences.steering(self.dose([0.02, 0.5, 0.9], [0.0, 0.05, 0.6]), base, "text")
        bare = reporting.DoseCurve(np.array([1.0]), {"contrary": np.array([0.9])})
        assert "no claim" in sentences.steering(bare, base, "text")

    def test_dimensions(self):
        null = np.tile([0.1, 0.2], (3, 1))
        shift = reporting.Spectrum(np.array([0.6, 0.3, 0.1]), null, effective_rank=2.0, benign_rank=5.0)
        assert "2 leading components stand above" in sentences.dimensions(4, shift)
        assert "lower than the benign fine-tune's 5.0" in sentences.dimensions(4, shift)
        flat = reporting.Spectrum(np.array([0.15, 0.3, 0.1]), null, effective_rank=6.0, benign_rank=5.0)
        assert "no leading component stands" in sentences.dimensions(4, flat)
        assert "no lower than" in sentences.dimensions(4, flat)
        assert "no null band" in sentences.dimensions(4, reporting.Spectrum(np.array([1.0])))

    def test_transfer(self):
        tuned, mapped = self.result(0.7), self.result(0.2)
        full = [0.6] * 99
        assert "true pairing of items adds" in sentences.transferred(tuned, mapped, [0.5] * 99, full, None, "text")
        assert "no item-level correspondence" in sentences.transferred(tuned, mapped, [0.2], full, mapped, "text")
        assert "not shown to matter" in sentences.transferred(tuned, mapped, [0.5], [0.1, 0.6], None, "text")
        assert "not ruled out" in sentences.transferred(tuned, mapped, [], full, None, "text")
        assert "nothing shows that this one" in sentences.transferred(tuned, mapped, [], [], None, "text")
        alone = sentences.transferred(tuned, mapped, [], [], None, "text", np.array([0.1, 0.6, 0.7]))
        assert "1 of 3 energy-matched random directions do as much" in alone
        assert "no transfer" in sentences.transferred(tuned, self.result(0.69), [0.5], full, None, "text")


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


def drawn_figures():
    """Every figure function with small data, as (name, function of an axis)."""
    rng = np.random.default_rng(1)
    many = {kind: rng.random((99, 34)) for kind in style.CONTROLS}
    layers = reporting.LayerCurve(range(34), rng.random(34), np.sort(rng.random((34, 2))), many, 0.0, 1.0, 0.2)
    dose = reporting.DoseCurve(np.arange(3.0), {"contrary": rng.random(3)}, control=rng.random((9, 3)))
    bars = {"Text": {HOSTILE: {"right": reporting.Bar(0.5, (0.4, 0.6))}}}
    observed = {"Text": reporting.Observed(0.1, {"own": rng.random(99)})}
    return {
        "by_layer": lambda axis: reporting.rate_by_layer({"Text": layers}, axis),
        "dose": lambda axis: reporting.rates_by_dose({"Text": dose}, axis),
        "spectrum": lambda axis: reporting.variance_spectrum({"L1": reporting.Spectrum(np.array([1.0]))}, axis),
        "cosines": lambda axis: reporting.cosine_matrix(["a", HOSTILE], np.eye(2), axis),
        "transfer": lambda axis: reporting.transfer_matrix(["a"], ["b", "c"], np.array([[0.1, np.nan]]), axis),
        "bars": lambda axis: reporting.condition_bars(bars, axis),
        "null": lambda axis: reporting.null_distributions(observed, axis),
    }  # fmt: skip


class TestFigures:
    @pytest.mark.parametrize("name", drawn_figures())
    def test_each_draws_alone_and_into_a_given_axis(self, name, tmp_path):
        from matplotlib.figure import Figure

        draw = drawn_figures()[name]
        alone = draw(None)
        assert alone.get_figwidth() == style.COLUMN
        assert reporting.save_png(alone, tmp_path / "new" / f"{name}.png").stat().st_size > 5_000
        mine = Figure()
        assert draw(mine.add_subplot()) is mine
        svg = reporting.as_svg(mine)
        assert svg.startswith("<svg") and svg.endswith("</svg>") and "<script" not in svg

    def test_as_many_axes_as_panels(self):
        from matplotlib.figure import Figure

        spectrum = reporting.Spectrum(np.array([1.0]))
        with pytest.raises(ValueError, match="as many axes"):
            reporting.variance_spectrum({"a": spectrum, "b": spectrum}, Figure().add_subplot())
        with pytest.raises(ValueError, match="at most 4"):
            reporting.variance_spectrum({str(n): spectrum for n in range(5)})
        with pytest.raises(ValueError, match="nothing to draw"):
            reporting.rate_by_layer({})

    def test_matrices_refuse_what_they_cannot_show(self):
        with pytest.raises(ValueError, match="2 x 2"):
            reporting.cosine_matrix(["a", "b"], np.eye(3))
        with pytest.raises(ValueError, match="Normalise"):
            reporting.cosine_matrix(["a"], np.array([[1.7]]))
        with pytest.raises(ValueError, match="1 x 2"):
            reporting.transfer_matrix(["a"], ["b", "c"], np.eye(2))

    def test_cosines_have_symmetric_limits(self):
        figure = reporting.cosine_matrix(["a", "b"], np.array([[1.0, 0.2], [0.2, 1.0]]))
        assert figure.axes[0].collections[0].get_clim() == (-1.0, 1.0)

    def test_the_count_in_the_null_figure_counts_ties(self):
        panel = reporting.Observed(0.5, {"isotropic": np.array([0.4, 0.5, 0.6])})
        words = [text.get_text() for text in reporting.null_distributions({"T": panel}).axes[0].texts]
        assert words == ["2 of 3\nas extreme"]
        with pytest.raises(ValueError, match="no control draws"):
            reporting.null_distributions({"T": reporting.Observed(0.5, {})})
