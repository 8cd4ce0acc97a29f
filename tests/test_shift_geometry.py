"""experiments/shift_geometry.py on the organism in its smallest form, and the captures that it stands on."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import LONG, chat

from hooks.site import Site
from workbench.capturing import capture
from workbench.organisms import RECIPE
from workbench.places import PLACES, capture_places
from workbench.subspace.shift import SHIFT_VARIANTS

SCRIPT = Path(__file__).resolve().parent.parent / "experiments" / "shift_geometry.py"


@LONG
def test_the_script_on_the_organism(tmp_path, monkeypatch):
    """Every place, variant and fine-tune is there with n and null; the frozen tower is unchanged in all of them, the
    trained one decomposed; both curves have all their k, controls and ends."""
    asked = ["--layers", 3, "--vision-layers", 1, "--ks", 0, 2, "--draws", 2, "--k", 4]
    asked += ["--causal", "paired_shift_raw:ablate_top_k", "paired_shift_raw:keep_top_k"]
    monkeypatch.setitem(RECIPE, "steps", 10)  # this is about what is there, not how much
    monkeypatch.setattr(sys, "argv", [SCRIPT.name, "--to", str(tmp_path), *map(str, asked)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    found = {(r["split"], r["condition"], r["detail"]): r for r in results if r["metric"] == "shift_variance"}
    scaled = {f"paired_shift_centered, scale {scale}" for scale in ("std", "whiten")}
    own, shared = {"text_minus_base_text"}, set(SHIFT_VARIANTS) - {"text_minus_base_text"}
    tuned = {"tuned", "tuned_benign", "tower", "tower_benign"}
    for place in PLACES:
        kinds = own if place == "own answers" else shared | scaled if place == "last token" else shared
        who = tuned - {"tuned", "tuned_benign"} if place == "vision tower" else tuned
        assert {key for key in found if key[0] == place} == {(place, name, kind) for name in who for kind in kinds}
    for entry in found.values():
        assert entry["n"] >= 48 and entry["control"]["N"] == 99 and 0 < entry["control"]["p"] <= 1
        assert sum(entry["series"]["share"]) == pytest.approx(entry["value"], abs=1e-6)
    still = [r for r in results if r["metric"] == "shift_unchanged"]
    assert {(r["split"], r["condition"]) for r in still} == {
        ("vision tower", "tuned"),
        ("vision tower", "tuned_benign"),
    }
    assert {r["detail"] for r in still} == shared
    overlaps = [r for r in results if r["metric"] == "shift_overlap"]
    assert {r["condition"] for r in overlaps} == tuned and all(r["layer"] == 3 for r in overlaps)
    for mode, ks in (("ablate_top_k", [0, 2]), ("keep_top_k", [0, 2])):
        for modality in ("text", "image"):
            here = [
                r
                for r in results
                if (r["condition"], r["modality"], r["detail"]) == (mode, modality, "paired_shift_raw")
            ]
            points = {r["coefficient"]: r for r in here if r["metric"] == "behaviour"}
            assert sorted(points) == ks and all(r["interval"] and r["n"] > 40 for r in points.values())
            twins = {r["coefficient"]: r["control"] for r in here if r["metric"] == "behaviour_control"}
            assert sorted(twins) == [2] and all(len(c["draws"]) == 2 and c["p"] is None for c in twins.values())
            assert {r["metric"] for r in here} >= {
                "effect",
                "behaviour_base",
                "behaviour_unedited",
                "right",
                "ill_formed",
            }
    page = (tmp_path / "report.html").read_text()
    assert "How many dimensions hold the behaviour" in page and "Vision tower: unchanged at layer 1" in page


def test_places_are_the_means_of_their_own_spans(gemma3, picture, tmp_path):
    """Rows of every place by hand from a capture of every position; prompts without pictures have the first two."""
    prompts = [chat("a", picture, "word word"), chat("b", "word word word"), chat("c", "word", picture, "word")]
    found = capture_places(
        gemma3, prompts, ["base"], layers=[1], vision_layers=[0], max_new_tokens=3, to=tmp_path, progress=False
    )
    assert set(found) == set(PLACES) - {"own answers"}, "this one ends its turn at once: nothing to decompose"
    sizes = {name: sorted(rows.prompt_ids) for name, rows in found.items()}
    assert sizes["last token"] == ["a", "b", "c"] and sizes["text positions"] == sizes["image positions"] == ["a", "c"]
    site, tower = Site(1), Site(0, tower="vision")
    scopes = {"language": "image", "vision": "image"}
    whole = capture(gemma3, prompts[::2], sites=[site, tower], at=scopes, to=tmp_path / "whole", progress=False)
    texts = capture(gemma3, prompts[::2], sites=site, at="text", to=tmp_path / "texts", progress=False).rows()
    for name, rows, here in (
        ("image positions", whole.at("resid_post"), site),
        ("vision tower", whole.at("vision.resid_post"), tower),
        ("text positions", texts, site),
    ):
        values, own = rows.values(here), found[name]
        for row, prompt in enumerate(own.prompt_ids):
            mine = values[[one == prompt for one in rows.prompt_ids]]
            assert len(mine) > 1
            np.testing.assert_allclose(own.values(here)[row], mine.mean(0), atol=2e-5)
    alone = capture_places(
        gemma3, prompts[1:2], ["base"], layers=[1], max_new_tokens=2, to=tmp_path / "t", progress=False
    )
    assert tuple(alone) == PLACES[:1]
