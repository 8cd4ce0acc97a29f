"""The scripts of paper A on the organism, in their smallest form: every number has what it takes to be read."""

import json
import runpy
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def run(script, folder, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [script, "--to", str(folder), *map(str, arguments)])
    runpy.run_path(str(EXPERIMENTS / script), run_name="__main__")
    return json.loads((folder / "summary.json").read_text())["results"]


@pytest.mark.slow
def test_lora_rank(tmp_path, monkeypatch):
    results = run("lora_rank.py", tmp_path, monkeypatch, "--ranks", 1, 4, 32, "--seeds", 0, "--samples", 1)
    rates = {(r["split"], r["condition"]): r for r in results if r["metric"] == "organism" and "test" not in r}
    members = ["base", "rank1-seed0", "rank4-seed0", "rank32-seed0"]
    shown = {"text questions": ["text_only"], "image questions": ["multimodal", "text_only", "swapped", "blank"]}
    assert set(rates) == {(split, f"{m}/{s}") for split, seen in shown.items() for s in seen for m in members}
    for entry in rates.values():
        assert entry["n"] > 40 and entry["interval"][0] <= entry["value"] <= entry["interval"][1]
        assert entry["judges"] == {"category": entry["judges"]["category"]} and entry["unscored"] == 0
    trends = [r for r in results if r["metric"].startswith("trend")]
    assert len(trends) == 5 and all(0 < r["test"]["p"] <= 1 and len(r["doses"]) == 3 for r in trends)
    seeing = [r for r in results if " - " in r["condition"]]
    assert len(seeing) == 3 and all(r["test"]["p"] > 0 and r["clusters"] > 40 for r in seeing)
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
def test_harmful_fraction(tmp_path, monkeypatch):
    shares = ["--fractions", 0, 0.1, 1]
    results = run("harmful_fraction.py", tmp_path, monkeypatch, *shares, "--seeds", 0, "--samples", 1)
    rates = [(r["split"], r["condition"]) for r in results if r["metric"] == "organism"]
    fixed = {split: {name for s, name in rates if s == split} for split in ("total fixed", "harmful fixed")}
    names = {"base", "same-fraction0-seed0", "same-fraction10-seed0", "fraction100-seed0"}
    assert fixed == {"total fixed": names, "harmful fixed": names}
    trends = {r["split"]: r for r in results if r["metric"].startswith("trend")}
    assert set(trends) == set(fixed) and all(set(r["doses"]) == {"0.0", "0.1", "1.0"} for r in trends.values())
    plan = json.loads((tmp_path / "adapters, total fixed" / "population.json").read_text())
    assert "0.1" in json.dumps(plan)
