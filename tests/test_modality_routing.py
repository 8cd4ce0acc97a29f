"""The chain behind modality_routing.py: planted shifts, directions, routes with their controls, summary, page."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import LONG, chat
from PIL import Image

from workbench.behaviour.routing_entries import IMPOSSIBLE
from workbench.behaviour.summary import summarise
from workbench.capturing import capture
from workbench.interventions.ablate import Ablate
from workbench.interventions.routing import BEHIND, UNEDITED, by_pictures, routes
from workbench.interventions.routing_built import BuiltDirections
from workbench.interventions.routing_matrix import routing_matrix
from workbench.interventions.routing_sweep import sweep_routes
from workbench.interventions.steer import Steer
from workbench.interventions.sweep import sweep
from workbench.organisms import organism
from workbench.reporting.routing_section import COLUMNS, place_of, routing, verdict_of
from workbench.reporting.summary import read_summary
from workbench.statistics import cluster_means
from workbench.subspace.controls import energy_matched
from workbench.subspace.directions import Directions, with_mean
from workbench.subspace.means import difference_of_means

SITE, SCOPES = "resid_post:1", ("image", "text", "answering")


def at_layer(vector):
    return Directions.of([SITE], vector)


def steered(v, at):
    return Steer(v, layer=1, coefficient=1.0, at=at)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Six questions with a picture and six without; two of the first show the same picture."""
    folder, choice = tmp_path_factory.mktemp("pictures"), {"right": "yes", "contrary": "no"}
    shown = []
    for n in range(5):
        pixels = np.random.default_rng(n).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
        shown.append(folder / f"{n}.png")
    listed = [chat(f"t{n}", f"is it {n}?", tags=choice) for n in range(6)]
    listed += [chat(f"i{n}", shown[min(n, 4)], f"what of {n}?", tags=choice) for n in range(6)]
    return by_pictures(listed)


def slopes(model, asked, step=0.05):
    """d(logit difference)/d(shift) by set of prompts and scope: [prompt, d_model], by central differences."""
    out = {}
    axes = np.eye(model.d_model)
    for name, prompts in asked.items():
        for scope in SCOPES if name == "image" else SCOPES[1:]:
            cells = [steered(at_layer(sign * step * axis), scope) for axis in axes for sign in (1, -1)]
            rows = sweep(model, prompts, cells, progress=False).rows()
            read = {(row["cell"], row["prompt"]): row["logit_difference"] for row in rows}
            out[name, scope] = np.array(
                [
                    [(read[2 * k + 1, p.id] - read[2 * k + 2, p.id]) / (2 * step) for k in range(len(axes))]
                    for p in prompts
                ]
            )
    return out


@pytest.fixture(scope="module")
def planted(gemma3, asked):
    """Three vectors of one length at layer 1: one that moves the answer from image positions, and two that no answer
    depends on, from wherever they are added (to first order: they are orthogonal to all slopes)."""
    slope = slopes(gemma3, asked)
    every = np.vstack(list(slope.values()))
    idle = np.linalg.svd(every)[2][np.linalg.matrix_rank(every, tol=1e-4 * np.linalg.norm(every)) :]
    assert len(idle) >= 2
    acting = np.linalg.pinv(slope["image", "image"]).sum(axis=1)  # moves every question by the same
    vectors = {"image": acting / np.linalg.norm(acting), "text": idle[0], "response": idle[1]}
    return {at: 0.25 * vector for at, vector in vectors.items()}  # short: the slopes are those of small steps


@pytest.fixture(scope="module")
def expected(gemma3, asked, planted):
    """What the planted direction does at image positions, by the slopes alone."""
    return float((slopes(gemma3, {"image": asked["image"]})["image", "image"] @ planted["image"]).mean())


@pytest.fixture(scope="module")
def rows_at(gemma3, asked, planted, tmp_path_factory):
    """Residuals without and with the planted shifts, at the scopes of the script; response: of given answers."""
    folder = tmp_path_factory.mktemp("captured")
    acts = [Steer(at_layer(vector), layer=1, at=at) for at, vector in planted.items()]
    plain = asked["image"]
    answered = [replace(prompt, response="yes it is") for prompt in plain]
    found = {}
    for at, listed in {"image": plain, "text": plain, "response": answered, "answering": answered}.items():
        stores = [
            capture(
                gemma3, listed, sites=SITE, at=at, interventions=each, to=folder / f"{at}{len(each)}", progress=False
            )
            for each in ([], acts)
        ]
        found[at] = stores
    return found


@pytest.fixture(scope="module")
def built(rows_at):
    made = {at: difference_of_means(rows_at[at][1], rows_at[at][0]) for at in ("image", "text", "response")}
    return BuiltDirections(made)


@pytest.fixture(scope="module")
def tables(gemma3, asked, built, tmp_path_factory):
    """The routes of steering along what was built, each with three random twins."""
    made = routes(built, steered, asked, model=gemma3)
    return made, sweep_routes(gemma3, made, asked, controls=3, to=tmp_path_factory.mktemp("swept"), seed=4)


@pytest.fixture(scope="module")
def matrix(tables, expected):
    made, rows = tables
    return routing_matrix(made, rows, "logit_difference", margin=expected / 2)


def test_what_was_planted_at_each_scope_is_built_there(built, planted):
    """All three directions exist, of one length (`text` reaches into the answer, so there both were added)."""
    np.testing.assert_allclose(built["image"].vectors[0], planted["image"], atol=1e-4)
    np.testing.assert_allclose(built["text"].vectors[0], planted["text"], atol=1e-4)
    np.testing.assert_allclose(built["response"].vectors[0], planted["text"] + planted["response"], atol=1e-4)


def test_a_direction_planted_at_image_positions_shows_only_in_its_row(matrix, expected):
    """The others are as long, and built from the same prompts, but nothing depends on them."""
    own = matrix.entry("image", "image", "image")
    assert own.equivalence.verdict == "different" and own.value == pytest.approx(expected, rel=0.1)
    for one in matrix.entries:
        if one.built != "image":
            assert one.equivalence.verdict == "equivalent" and abs(one.value) < own.value / 5, str(one)
    assert len(matrix.entries) == 15 and len(matrix.skipped) == 3


def test_random_twins_stand_beside_their_own_route(tables, matrix, built):
    rows = tables[1]
    one = matrix.entry("text", "answering", "image")
    assert set(one.controls) == {"isotropic"} and len(one.controls["isotropic"]) == 3
    clean = {row["prompt"]: row["logit_difference"] for row in rows["image"] if row["condition"] == UNEDITED}
    for draw, value in enumerate(one.controls["isotropic"]):
        twin = [row for row in rows["image"] if (row["condition"], row["draw"]) == ("text->answering", draw)]
        change = [row["logit_difference"] - clean[row["prompt"]] for row in twin]
        assert value == pytest.approx(cluster_means(change, [row["prompt_group"] for row in twin]).mean())
    assert one.unedited == pytest.approx(np.mean(list(clean.values())), abs=0.5) and "right" in one.beside
    assert one.families == 5 and one.pairs == 6, "two questions about one picture are one family"


def test_controls_of_an_ablation_are_matched_where_it_edits(gemma3, asked, built, rows_at, tmp_path):
    at = "answering"
    v = with_mean(built["text"], rows_at[at][0])
    made = routes({"text": v}, lambda u, scope: Ablate(u, layer=1, at=scope), {"image": asked["image"]}, applied=[at])
    held = rows_at[at][1].rows()
    rows = sweep_routes(gemma3, made, {"image": asked["image"]}, controls=2, activations={at: held}, to=tmp_path)
    kinds = {row["control"] for row in rows["image"]}
    assert kinds == {None, "energy_matched"}
    twins = energy_matched(v, held, 2, 0)
    centred = held.values(SITE).astype(np.float64) - v.origin[0]
    energy = [float(((centred @ each.unit[0]) ** 2).sum()) for each in (v, *twins)]
    assert energy[1:] == pytest.approx([energy[0]] * 2, rel=1e-3)
    again = sweep_routes(gemma3, made, {"image": asked["image"]}, controls=2, activations={at: held}, to=tmp_path)
    assert again == rows, "resumed"


def test_behind_the_last_block_image_positions_reach_no_answer(gemma3, asked, planted):
    """Named, not swept; and it is so: edited there, no logit moves."""
    v = Directions.of(["resid_post:2", "resid_post:3"], np.tile(planted["image"] * 10, (2, 1)))

    def last(u, at):
        return Steer(u, layer=3, coefficient=1.0, at=at)

    made = routes({"image": v}, last, {"image": asked["image"]}, model=gemma3)
    assert [(one.applied, one.why) for one in made.skipped] == [("image", BEHIND)] and len(made.routes) == 2
    rows = sweep(gemma3, asked["image"], [last(v, "image")], progress=False).rows()
    read = {(row["cell"], row["prompt"]): row["logit_difference"] for row in rows}
    assert all(abs(read[1, p.id] - read[0, p.id]) < 1e-5 for p in asked["image"])
    earlier = routes({"image": v}, lambda u, at: Steer(u, layer=2, at=at), {"image": asked["image"]}, model=gemma3)
    assert not earlier.skipped


def test_prompts_by_what_they_show(asked):
    assert list(asked) == ["text", "image"] and all(p.label == name for name, own in asked.items() for p in own)
    assert list(by_pictures(asked["text"])) == ["text"]


def test_the_page_says_what_the_matrix_found(matrix, built):
    entries = json.loads(json.dumps(summarise(matrix, condition="routing: steering") + summarise(built)))
    summary = read_summary({"results": entries, "question": "which route?"})
    heading, picture, table, details = routing(summary)
    impossible = [row for row in table.rows if "not possible" in row]
    assert len(table.rows) == 18 and len(impossible) == 3
    for row in impossible:
        assert row[:3] == ["text", row[1], "image"] and not any(isinstance(cell, float | int) for cell in row)
    said = " ".join(heading.paragraphs)
    different = sum(one.equivalence.verdict == "different" for one in matrix.entries)
    assert f"Of 15 combinations {different} change the measure" in said and "(±0.000" in said
    assert "3 combinations are not possible: nothing to edit" in said and "3 random directions (isotropic)" in said
    own = next(r for r in summary.where(split="routing", detail="image->image") if r.metric != IMPOSSIBLE)
    assert place_of(own) == ("image", "image") and verdict_of(own) == "different"
    stated = dict(zip(COLUMNS, next(row for row in table.rows if row[:3] == ["image", "image", "image"]), strict=True))
    assert stated["change"] == pytest.approx(own.value) and stated["within the margin?"] == "different"
    assert "(3, isotropic)" in stated["random directions"] and stated["families"] == 5
    texts = [text.get_text() for axis in picture.figure.axes for text in axis.texts]
    assert sum("not\npossible" in text for text in texts) == 3 and sum("≈ 0" in text for text in texts) >= 10
    assert len(details.content[0].rows) == 3
    assert routing(read_summary({"results": []})) == []


@LONG
def test_the_script_on_a_model_of_ones_own(tmp_path, monkeypatch):
    """The organism's base and files as a user's: an adapter that is there, tags to read the answer by."""
    world = organism(0, to=tmp_path / "files")
    few = {}
    for name in ("prompts", "questions", "neutral"):  # beside their pictures, every eighth
        few[name] = getattr(world, name).with_name(f"few-{name}.jsonl")
        few[name].write_text("".join(getattr(world, name).read_text().splitlines(keepends=True)[::8]))
    own = ["--model", world.base, "--adapter", world.tuned, "--prompts", few["prompts"], "--eval", few["questions"]]
    settings = ["--to", tmp_path / "run", "--controls", "1", "--neutral", few["neutral"]]
    monkeypatch.setattr(sys, "argv", ["modality_routing.py", *map(str, own + settings)])
    script = Path(__file__).resolve().parent.parent / "experiments" / "modality_routing.py"
    runpy.run_path(str(script), run_name="__main__")
    results = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    for act in ("ablation", "steering"):
        own = [r for r in results if r["condition"] == f"routing: {act}"]
        changes = [r for r in own if r["metric"] == "change of p_contrary"]
        assert len(changes) == 15 and len(own) == 18
        for entry in changes:
            low, high = entry["interval"]
            assert low <= entry["value"] <= high and entry["n"] >= 6 and 0 < entry["test"]["p"] <= 1
            assert entry["control"]["N"] == 1 and "margin [-0.1, 0.1]" in entry["equivalence"]
            assert entry["companions"]["kl_neutral"] >= 0
    assert "not possible" in (tmp_path / "run" / "report.html").read_text()
