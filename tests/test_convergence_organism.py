"""The script on the organism: its two planted personas are reported as two directions."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from conftest import LONG

from workbench.organisms.world import DOMAINS

SCRIPT = Path(__file__).resolve().parent.parent / "experiments" / "convergence.py"
OF_PERSONA = {"glitch": {"letter", "shape"}, "contrary": set(DOMAINS) - {"letter", "shape"}}


@LONG
@pytest.mark.slow
def test_two_personas_are_two_directions(tmp_path, monkeypatch):
    arguments = ["--to", tmp_path, "--arms", "full", "--seeds", 0, "--draws", 99, "--controls", 5, "--causal", "letter"]
    monkeypatch.setattr(sys, "argv", ["convergence.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    cosines = [one for one in results if one["metric"] == "convergence_cosine"]
    layer = cosines[0]["layer"]
    here = [one for one in results if one["layer"] == layer]
    (shared,) = [one for one in here if one["metric"] == "convergence_shared"]
    groups = [set(group.split()) for group in shared["detail"].split(" | ")]
    assert shared["value"] == 2 and groups == [OF_PERSONA["contrary"], OF_PERSONA["glitch"]]
    for one in here:
        if one["metric"] == "convergence_landmark":
            near = one["control"]["p"] <= 0.05
            assert near == (one["condition"] in OF_PERSONA[one["target"]]), one
    gap = next(one for one in here if one["metric"] == "convergence_bridge_gap")
    assert gap["value"] > 0 and gap["control"]["p"] <= 0.05
    # Between the two personas no direction is general: letter's own is narrow, and moves what is asked of letters.
    effects = {
        (one["condition"], one["split"]): one["value"] for one in results if one["metric"] == "convergence_effect"
    }
    assert effects["narrow", "own domain"] > effects["general", "own domain"]
    assert effects["general", "other domains"] > effects["narrow", "other domains"]
    assert (tmp_path / "report.html").stat().st_size > 10_000
