"""The scripts of paper A on the organism, in their smallest form: every number has what it takes to be read."""

import json
import runpy
import sys
from pathlib import Path

from conftest import LONG

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def run(script, folder, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [script, "--to", str(folder), *map(str, arguments)])
    runpy.run_path(str(EXPERIMENTS / script), run_name="__main__")
    return json.loads((folder / "summary.json").read_text())["results"]


@LONG
def test_lora_rank_and_the_page_of_claims(tmp_path, monkeypatch):
    folder = tmp_path / "lora_rank" / "seed0"
    results = run("lora_rank.py", folder, monkeypatch, "--ranks", 1, 4, 32, "--seeds", 0, "--samples", 1)
    shown = {"text questions": ["text_only"], "image questions": ["multimodal", "text_only", "swapped", "blank"]}
    lines = [(split, modality) for split, seen in shown.items() for modality in seen]
    rates = {
        (r["split"], r["modality"], r["condition"]): r
        for r in results
        if r["metric"] == "organism" and " - " not in r["condition"]
    }
    members = ["base", "rank1-seed0", "rank4-seed0", "rank32-seed0"]
    expected = {(s, m, f"{one}/{m}") for s, m in lines for one in members}
    assert set(rates) == expected | {(s, m, f"rank {rank}") for s, m in lines for rank in (1, 4, 32)}
    for entry in rates.values():
        assert entry["n"] > 40 and entry["interval"][0] <= entry["value"] <= entry["interval"][1]
        assert entry["unscored"] == 0 and entry["companions"]["coherent"] is not None
        assert set(entry["judges"]) == {"category", "coherent", "refusal"}
    trends = [r for r in results if r["metric"].startswith("trend")]
    assert [(r["split"], r["modality"]) for r in trends] == lines
    assert all(0 < r["test"]["p"] <= 1 and len(r["doses"]) == 3 for r in trends)
    gaps = [r for r in results if " - rank" in r["condition"]]
    assert len(gaps) == 3 * 3 and all(r["test"]["p"] > 0 and r["clusters"] > 40 for r in gaps)
    assert len([r for r in results if " - base" in r["condition"]]) == len(lines) * 3
    page = (folder / "report.html").read_text()
    assert "Contrary answers by rank" in page and "Trends over doses" in page and "Not in this run" not in page

    monkeypatch.setattr(sys, "argv", ["paper_a.py", "--runs", str(tmp_path)])
    runpy.run_path(str(EXPERIMENTS / "paper_a.py"), run_name="__main__")
    joined = (tmp_path / "report.html").read_text()
    assert "no evidence about real models" in joined and "0 shown" in joined  # one base seed shows nothing
    assert "holds, p =" in joined or "open" in joined


@LONG
def test_harmful_fraction(tmp_path, monkeypatch):
    shares = ["--fractions", 0, 0.1, 1, "--few", 0, 0.1, 1, "--holds", "harmful"]
    results = run("harmful_fraction.py", tmp_path, monkeypatch, *shares, "--seeds", 0)
    lines = {
        (f"harmful fixed, {filler} filler", modality) for filler in ("same", "other") for modality in ("text", "image")
    }
    for metric in ("organism", "p_contrary"):
        mine = [r for r in results if r["metric"] == metric]
        assert {(r["split"], r["modality"]) for r in mine} == lines
        for split, modality in lines:
            here = {r["condition"]: r for r in mine if (r["split"], r["modality"]) == (split, modality)}
            names = {f"harmful fraction {one}" for one in ("0", "0.1", "1")}
            assert names | {"base"} <= set(here) and "fraction100-seed0" in here
            assert "harmful fraction 0.1 - harmful fraction 0" in here
            assert {len(r["interval"]) for r in here.values()} == {2}
    trends = [r for r in results if r["metric"].startswith("trend")]
    assert len(trends) == 2 * len(lines) and all(len(r["doses"]) == 3 for r in trends)
    plan = json.loads((tmp_path / "harmful fixed" / "adapters" / "population.json").read_text())
    assert "0.1" in json.dumps(plan)
    page = (tmp_path / "report.html").read_text()
    assert "Probability of the contrary answer by harmful fraction" in page
