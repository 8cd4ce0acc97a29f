"""Modality routing: which combinations exist, and a direction planted at image positions shows only in its row."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import chat
from PIL import Image

from stores import ResultTable
from workbench.behaviour.answering import sample_answers
from workbench.capturing import capture
from workbench.interventions.ablate import Ablate
from workbench.interventions.routing import UNEDITED, routes
from workbench.interventions.routing_matrix import max_over_matrix, routing_matrix
from workbench.interventions.steer import Steer
from workbench.interventions.sweep import sweep
from workbench.statistics import max_sign_flip_test
from workbench.subspace.directions import Directions
from workbench.subspace.means import difference_of_means

BUILT = ("image", "text", "response")


def direction(seed=0, width=8):
    return Directions.of(["resid_post:1"], np.random.default_rng(seed).normal(size=width))


def steer(v, at):
    return Steer(v, layer=1, coefficient=1.0, at=at)


@pytest.fixture
def prompts(picture):
    return {
        "text": [chat(f"t{n}", f"question {n}") for n in range(6)],
        "image": [chat(f"i{n}", picture, f"question {n}") for n in range(6)],
    }


def planned(prompts, **directions):
    return routes({name: directions.get(name, direction(n)) for n, name in enumerate(BUILT)}, steer, prompts)


def test_every_combination_is_run_or_named(prompts):
    made = planned(prompts)
    assert len(made.routes) == 3 * 2 + 3 * 3 and len(made.skipped) == 3
    assert [(one.applied, one.evaluated) for one in made.skipped] == [("image", "text")] * 3
    assert all("nothing to edit" in str(one) for one in made.skipped)
    assert [one.at for one in made.cells("text")] == ["text", "answering"] * 3
    assert list(made.conditions("image", "tuned"))[:2] == [UNEDITED, "image->image"]
    assert made.conditions("image", "tuned")["image->image"][0] == "tuned"
    with pytest.raises(ValueError, match="there are no prompts 'video'"):
        made.on("video")


def test_directions_that_do_not_exist_are_skipped_by_name(prompts):
    made = planned(prompts, image=Directions.of(["resid_post:1"], np.zeros(8)), response=None)
    why = {one.built: one.why for one in made.skipped if one.evaluated == "image"}
    assert "norm 0" in why["image"] and "no direction" in why["response"] and len(made.on("image")) == 3
    with pytest.raises(ValueError, match="no combination can be tried"):
        routes({"image": None}, steer, prompts)
    mixed = {"all": [*prompts["text"], *prompts["image"]]}
    with pytest.raises(ValueError, match="6 of the 12 prompts 'all' have pictures"):
        planned(mixed)


def rows(made, evaluated, effect, *, n=24, noise=0.3, seed=0, **more):
    """Rows as sample_answers gives them: two prompts a family, an effect of each route, and noise that all share."""
    rng, out = np.random.default_rng([seed, len(evaluated)]), []
    prompt_level = rng.normal(size=n)
    for name in [UNEDITED, *(route.name for route in made.on(evaluated))]:
        for i in range(n):
            measured = prompt_level[i] + effect.get(name, 0.0) + noise * rng.normal()
            facts = {"prompt": f"{evaluated}{i}", "sample": 0, "tag_family": f"{i // 2}", "edited": 3, **more}
            out.append({"condition": name, **facts, "harm": measured, "edited": None if name == UNEDITED else 3})
    return out


def test_a_direction_planted_at_image_positions_shows_only_in_its_row(prompts):
    made = planned(prompts)
    effect = {f"image->{applied}": 2.0 for applied in ("image", "text", "answering")}
    measured = {name: rows(made, name, effect) for name in prompts}
    matrix = routing_matrix(made, measured, "harm", margin=0.6)
    assert len(matrix.entries) == 15 and len(matrix.skipped) == 3
    for one in matrix.entries:
        planted = one.built == "image"
        assert (one.p <= 0.01) == planted, one
        assert one.equivalence.verdict == ("different" if planted else "equivalent"), one
        assert one.interval.low <= (2.0 if planted else 0.0) <= one.interval.high or abs(one.value) < 0.3
        assert (one.pairs, one.families, one.dropped, one.touched) == (24, 12, 0, 24)
    built, applied, values = matrix.values("text")
    assert (built, applied) == (["image", "text", "response"], ["text", "answering", "image"])
    assert np.isnan(values[:, 2]).all() and (values[0, :2] > 1).all() and (np.abs(values[1:, :2]) < 0.5).all()
    with pytest.raises(KeyError, match="nothing to edit"):
        matrix.entry("image", "image", "text")
    assert matrix.entry("image", "answering", "text").value > 1
    assert "all 4096 patterns, largest |t| of 15 entries" in str(matrix) and "nothing to edit" in str(matrix)


def test_values_are_differences_of_the_same_prompts_by_family(prompts):
    """By hand: a family of three rows and one of a single row weigh the same; a row without a value is dropped."""
    made = routes({"image": direction()}, steer, {"text": prompts["text"]}, applied=["text"])
    before, after = [1.0, 2.0, 3.0, 10.0, None], [2.0, 3.0, 4.0, 15.0, 7.0]
    family = ["a", "a", "a", "b", "b"]
    table = [
        {"condition": name, "prompt": str(i), "sample": 0, "tag_family": family[i], "x": x[i]}
        for name, x in ((UNEDITED, before), ("image->text", after[::1]))
        for i in range(5)
    ]
    entry = routing_matrix(made, {"text": table[::-1]}, "x", margin=1.0).entries[0]
    assert entry.value == pytest.approx((1.0 + 5.0) / 2)
    assert (entry.pairs, entry.families, entry.dropped, entry.touched) == (4, 2, 1, None)
    by_prompt = routing_matrix(made, {"text": table}, lambda row: row["x"], margin=1.0, cluster="prompt").entries[0]
    assert by_prompt.value == pytest.approx(2.0) and by_prompt.families == 4


def test_the_p_is_that_of_the_statistics_where_all_cells_share_their_prompts():
    differences = np.random.default_rng(1).normal([0.0, 0.5, 1.5], 1.0, size=(9, 3))
    cells = [[(str(i), d, 0.0) for i, d in enumerate(column)] for column in differences.T]
    ours, _ = max_over_matrix(cells, draws=9999, seed=0)
    np.testing.assert_allclose(ours, max_sign_flip_test(differences), atol=1e-12)


def test_the_corrected_p_keeps_its_word_where_prompts_are_shared_in_part():
    """No effect anywhere: the smallest of six p is at most .05 in no more than about .05 of the matrices."""
    rng, found = np.random.default_rng(2), []
    for _ in range(300):
        shared = rng.normal(size=14)  # cells of one table move together
        cells = [
            [(str(i), shared[i] + rng.normal(), 0.0) for i in (range(9) if c < 3 else range(5, 14))] for c in range(6)
        ]
        found.append(max_over_matrix(cells, draws=199, seed=int(rng.integers(1 << 30)))[0].min() <= 0.05)
    assert np.mean(found) <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 300)


def test_tables_of_other_routes_are_refused(prompts):
    made = planned(prompts)
    good = {name: rows(made, name, {}) for name in prompts}
    with pytest.raises(ValueError, match="no table of the prompts image"):
        routing_matrix(made, {"text": good["text"]}, "harm", margin=1.0)
    with pytest.raises(ValueError, match=r"lacks \['image->image'"):
        routing_matrix(made, {"text": good["text"], "image": good["text"]}, "harm", margin=1.0)
    with pytest.raises(ValueError, match="several unedited rows"):
        routing_matrix(made, {name: listed * 2 for name, listed in good.items()}, "harm", margin=1.0)
    one_family = {name: [{**row, "tag_family": "f"} for row in listed] for name, listed in good.items()}
    with pytest.raises(ValueError, match="1 families"):
        routing_matrix(made, one_family, "harm", margin=1.0)
    swapped = {name: [{**row, "at": "answering"} for row in listed] for name, listed in good.items()}
    with pytest.raises(ValueError, match="another at than its intervention"):
        routing_matrix(made, swapped, "harm", margin=1.0)


def test_a_route_that_edited_no_row_is_skipped_and_said(prompts):
    made = planned(prompts)
    idle = {name: rows(made, name, {}) for name in prompts}
    for row in idle["image"]:
        row["edited"] = 0 if row["condition"] == "text->image" else row["edited"]
    matrix = routing_matrix(made, idle, "harm", margin=1.0)
    assert [str(one) for one in matrix.skipped if one.evaluated == "image"] == [
        "text->image on image prompts: nothing to edit: no row was touched"
    ]


@pytest.fixture(scope="module")
def seeing(gemma3, tmp_path_factory):
    """Tiny gemma3 prompts with two answers to choose from, with pictures and without."""
    folder = tmp_path_factory.mktemp("seen")
    shown = []
    for n in range(5):
        pixels = np.random.default_rng(n).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
        shown.append(folder / f"{n}.png")
    choice = {"right": "yes", "contrary": "no"}
    return {
        "text": [chat(f"t{n}", f"is it {n}?", tags=choice) for n in range(5)],
        "image": [chat(f"i{n}", shown[n], f"is it {n}?", tags=choice) for n in range(5)],
    }


def test_a_direction_planted_in_a_model_at_image_positions_is_found_there_alone(gemma3, seeing, tmp_path):
    """The planted vector is added at image positions of layer 1. Built from residuals of that layer it is the image
    direction, and text and response directions do not exist; its routes are those of the planted vector."""
    planted = Directions.of(["resid_post:1"], np.random.default_rng(5).normal(size=gemma3.d_model) * 4)
    answered = [chat(one.id, *one.messages[0].parts, response="yes it is") for one in seeing["image"]]
    found = {}
    for scope in BUILT:
        stores = [
            capture(gemma3, answered, sites="resid_post:1", at=scope, interventions=acts, to=tmp_path / f"{scope}{n}")
            for n, acts in enumerate(([], [Steer(planted, layer=1, at="image")]))
        ]
        if scope == "image":
            found[scope] = difference_of_means(stores[1], stores[0])
            continue
        with pytest.raises(ValueError, match=r"are the same .* rows"):  # at that layer no other position has moved yet
            difference_of_means(stores[1], stores[0])
        found[scope] = None
    np.testing.assert_allclose(found["image"].vectors, planted.vectors, atol=1e-4)
    made = routes(found, steer, seeing)
    assert {one.built for one in made.routes} == {"image"} and len(made.routes) == 2 + 3
    tables = {name: sweep(gemma3, seeing[name], made.cells(name), progress=False) for name in seeing}
    matrix = routing_matrix(made, tables, "logit_difference", margin=1e-3)
    for one in matrix.entries:
        edits = Steer(planted, layer=1, at=one.applied).edits(gemma3)
        asked = seeing[one.evaluated]
        own = []
        for prompt, row in zip(asked, tables[one.evaluated].rows(cell=0), strict=True):
            logits = [gemma3.run(gemma3.encode([prompt]), edits=e).logits[0].double() for e in ({}, edits)]
            ids = [gemma3.encoder.continuation_ids(prompt.tags[key])[0] for key in ("contrary", "right")]
            before, after = (float(x[ids[0]] - x[ids[1]]) for x in logits)
            assert row["logit_difference"] == pytest.approx(before, abs=1e-4)
            own.append(after - before)
        assert one.value == pytest.approx(np.mean(own), abs=1e-3) and abs(one.value) > 1e-3, one


def test_answers_under_the_conditions_of_a_plan_make_a_matrix(gemma3, seeing):
    v = Directions.of(["resid_post:1"], np.random.default_rng(5).normal(size=gemma3.d_model) * 4)
    made = routes({"image": v}, lambda u, at: Ablate(u, layer=1, to="zero", at=at), seeing)
    tables = {
        name: sample_answers(gemma3, seeing[name], conditions=made.conditions(name), max_new_tokens=3, progress=False)
        for name in seeing
    }
    assert all(isinstance(table, ResultTable) for table in tables.values())

    def letters(row):
        return float(len(row["text"]))

    matrix = routing_matrix(made, tables, letters, margin=1.0)
    assert {(one.applied, one.evaluated) for one in matrix.entries} == {
        ("text", "text"), ("answering", "text"), ("image", "image"), ("text", "image"), ("answering", "image"),
    }  # fmt: skip
    assert matrix.measure == "letters" and all(one.pairs == 5 and one.touched == 5 for one in matrix.entries)
