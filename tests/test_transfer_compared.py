"""Maps side by side: what neutral prompts cannot show, what shuffled pairs give as well, and how it is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from planted_maps import SITE, N, Two, along, frame, normal, rows_of

from hooks.site import Site
from workbench.behaviour.summary import summarise
from workbench.interventions.maps_compared import compare_maps
from workbench.interventions.maps_comparison import CLASSES, ITEMS, NOTHING, OWN_ROWS
from workbench.interventions.transfer import fit_transfer, fit_transfers
from workbench.reporting import map_section
from workbench.reporting.summary import read_summary
from workbench.subspace.directions import Directions
from workbench.subspace.means import difference_of_means


@pytest.fixture(scope="module")
def compared():
    """Every kind of map on neutral and on behaviour-spanning prompts, all judged on new behaviour prompts too."""
    two = Two()
    kinds = {"neutral": two.rows(N, 1, shown=5e-4, name="n"), "behaviour": two.rows(N, 2, shown=1.0, name="b")}
    maps = {
        f"{method} on {kind}": one
        for kind, rows in kinds.items()
        for method, one in fit_transfers(*rows, methods=["procrustes", "ridge", "low_rank"]).items()
    }
    new = two.rows(N, 3, shown=1.0, name="new")
    return maps, compare_maps(maps, two.v, two.own, tested_on={"new behaviour": new}, shuffles=99)


@pytest.mark.parametrize("method", ["procrustes", "ridge", "low_rank"])
def test_side_by_side_the_neutral_map_is_seen_to_be_blind(compared, method):
    _, found = compared
    for tested in (OWN_ROWS, "new behaviour"):
        (neutral,), (spanning,) = (found.of(f"{method} on {kind}", tested) for kind in ("neutral", "behaviour"))
        assert neutral.r2.value > 0.9 and spanning.r2.value > 0.95
        assert neutral.along.value < 0.1 < 0.9 < spanning.along.value
        assert neutral.toward.value < 0.1 < 0.9 < spanning.toward.value
        assert neutral.cosine < 0.7 and spanning.cosine > 0.95
    assert neutral.r2.interval.low < neutral.r2.value < neutral.r2.interval.high and neutral.r2.prompts == N
    assert spanning.gain > 0.9 and (method == "procrustes" or neutral.gain < 0.1)


def test_what_a_map_carries_is_said_by_its_shuffles(compared):
    """Neutral prompts have classes too, of the same means: nothing of v comes through. Behaviour prompts: the class
    contrast and within each class the items, since v varies there as well."""
    _, found = compared
    assert found.carries("ridge on neutral") == NOTHING
    for name in ("procrustes on behaviour", "ridge on behaviour"):
        assert found.carries(name) in (ITEMS, CLASSES) and found.p(name, "full").tolist() == [0.01]


def test_an_estimated_direction_is_told_from_the_planted_one_by_rows_that_vary_along_it():
    """A difference of means holds some of every large axis, and on neutral rows R² along it is R² of those axes: only
    rows that show the behaviour say whether the map knows the direction."""
    two = Two()
    rows = two.rows(N, 2, shown=3.0, name="b")
    own = difference_of_means(rows[1], positive="on", negative="off")
    carry = fit_transfer(*two.rows(N, 1, shown=5e-4, name="n"), method="ridge")
    found = compare_maps({"neutral": carry}, two.v, own, tested_on={"behaviour": rows}, shuffles=0)
    assert found.of("neutral")[0].toward.value > 0.9 and found.of("neutral", "behaviour")[0].toward.value < 0.2


def contrast_only(seed: int = 0):
    """Class means correspond and nothing else does: a shuffle within classes does as well as the true pairs."""
    rng = np.random.default_rng(seed)
    labels = ["on" if i % 2 else "off" for i in range(N)]
    step = np.array([2.0 if label == "on" else -2.0 for label in labels])
    x, y = rng.standard_normal((N, 8)), rng.standard_normal((N, 8))
    x[:, 0] += step
    y[:, 5] += step
    return rows_of(x, labels=labels), rows_of(y, labels=labels), along(np.eye(8)[0]), along(np.eye(8)[5])


def test_pitfall_43_a_map_that_carries_class_means_alone_says_so():
    source, target, v, own = contrast_only()
    maps = fit_transfers(source, target, methods=["procrustes", "ridge", "low_rank"])
    found = compare_maps(maps, v, own)
    for name in maps:
        assert found.of(name)[0].cosine > 0.8 and found.carries(name) == CLASSES, name
        assert found.p(name, "full")[0] <= 0.05 < found.p(name, "within_class")[0]


def test_a_direction_of_items_is_told_from_one_of_classes():
    """v turns into own item by item, and the classes have nothing to do with it."""
    rng = np.random.default_rng(0)
    x, turn = rng.standard_normal((N, 8)), frame(8, 10, 1)
    labels = ["on" if i % 2 else "off" for i in range(N)]
    source, target = rows_of(x, labels=labels), rows_of(x @ turn, labels=labels)
    found = compare_maps({"turn": fit_transfer(source, target)}, along(np.eye(8)[2]), along(turn[2]))
    assert found.carries("turn") == ITEMS and found.of("turn")[0].cosine == pytest.approx(1)


def test_identity_and_missing_controls_are_said_in_words():
    x = normal(60, 6, 0)
    maps = fit_transfers(rows_of(x), rows_of(x + 0.1), methods=["identity", "procrustes"])
    found = compare_maps(maps, along(np.eye(6)[0]), along(np.eye(6)[0]))
    assert found.carries("identity") == "not stated: nothing is fitted, so there are no pairs to shuffle"
    assert "needs 2 or more classes" in found.carries("procrustes")
    alone = compare_maps(maps, along(np.eye(6)[0]), shuffles=3)
    assert alone.of("procrustes")[0].cosine is None and "no direction of its own" in alone.carries("procrustes")
    few = compare_maps(maps, along(np.eye(6)[0]), along(np.eye(6)[0]), shuffles=3)
    assert few.p("procrustes", "full") is None and "needs 99" in few.carries("procrustes")
    none = compare_maps(maps, along(np.eye(6)[0]), along(np.eye(6)[0]), shuffles=0)
    assert none.shuffles == ()


def test_a_map_that_sends_v_nowhere_explains_nothing_and_a_missing_v_has_no_number():
    two = Two()
    rows = two.rows(N, 1, shown=0.0)
    found = compare_maps({"neutral": fit_transfer(*rows, method="ridge")}, two.v, two.own, shuffles=0)
    assert (found.of("neutral")[0].along.value, found.of("neutral")[0].along.interval) == (0.0, None)
    assert [entry["value"] for entry in found.entries() if entry["metric"] == "r2_along"] == [0.0]
    none = compare_maps({"neutral": fit_transfer(*rows, method="ridge")}, two.v * 0.0, two.own, shuffles=0)
    assert none.of("neutral")[0].along is None
    assert {entry["metric"] for entry in none.entries()} == {"r2", "r2_toward_own"}


def test_rows_that_a_map_was_fitted_on_are_noted_and_not_used():
    source, target, v, own = contrast_only()
    found = compare_maps({"ridge": fit_transfer(source, target, method="ridge")}, v, own, shuffles=0,
                         tested_on={"again": (source, target)})  # fmt: skip
    assert found.of("ridge", "again")[0].n == found.of("ridge")[0].n, "its held-out prompts are all that is new"
    carry = fit_transfer(source, target)
    known = {source.prompt_ids[i] for i in carry.train_rows[1]}
    fitted_on = tuple(rows.where(prompt_id=known) for rows in (source, target))
    found = compare_maps({"ridge": carry}, v, own, shuffles=0, tested_on={"fitted on": fitted_on})
    assert "not fitted on" in found.notes["ridge, tested on fitted on"]
    with pytest.raises(ValueError, match="no map 'ridge' tested on 'fitted on'"):
        found.of("ridge", "fitted on")
    with pytest.raises(ValueError, match="choose another"):
        compare_maps({"ridge": carry}, v, tested_on={OWN_ROWS: (source, target)})
    with pytest.raises(ValueError, match="needs maps"):
        compare_maps({}, v)


def test_the_verdict_pays_for_its_choice_of_a_site():
    """Six sites of unrelated rows: single p values fall below .05 here and there, the corrected ones keep their
    level."""
    alarms, singles = 0, 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x, y = ({Site(i): rng.standard_normal((30, 4)) for i in range(6)} for _ in range(2))
        v, own = (Directions.of(list(x), rng.standard_normal((6, 4))) for _ in range(2))
        found = compare_maps({"m": fit_transfer(rows_of(x), rows_of(y))}, v, own)
        alarms += found.carries("m") != NOTHING
        drawn = found.shuffles[0].cosine
        actual = np.array([row.cosine for row in found.of("m")])
        singles += bool(((drawn >= actual).mean(axis=0) < 0.05).any())
    assert alarms <= 1 < singles


def test_sites_without_a_direction_take_no_part_in_the_verdict():
    x = {Site(i): normal(60, 6, i) for i in range(3)}
    turn = frame(6, 6, 9)
    carry = fit_transfer(rows_of(x), rows_of({site: rows @ turn for site, rows in x.items()}))
    v = Directions.of(list(x), np.array([np.eye(6)[0], np.zeros(6), np.eye(6)[0]]))
    own = Directions.of([Site(0), Site(1)], np.array([turn[0], turn[0]]))
    found = compare_maps({"turn": carry}, v, own)
    assert [row.cosine is None for row in found.of("turn")] == [False, True, True]
    assert found.p("turn", "full").tolist() == [0.01] and found.of("turn")[1].gain is None
    assert found.carries("turn").startswith("more than chance"), "these rows have no classes"
    lost = {Site(i): rows @ turn if i else normal(60, 6, 50) for i, rows in enumerate(x.values())}
    one_of = compare_maps({"turn": fit_transfer(rows_of(x), rows_of(lost))}, v, Directions.of(list(x), [turn[0]] * 3))
    assert one_of.p("turn", "full").max() > 0.05 and one_of.carries("turn") != NOTHING, "the best site decides"
    placed = [(entry["metric"], entry["layer"]) for entry in found.entries() if entry["condition"] != "transfer"]
    assert placed == [("r2", 0), ("r2", 1), ("r2", 2), ("cosine_with_own", 0)]


def test_shuffles_of_a_comparison_are_those_of_the_map():
    source, target, v, own = contrast_only()
    carry = fit_transfer(source, target, method="low_rank")
    found = compare_maps({"low": carry}, v, own, shuffles=5, seed=7)
    for kind, drawn in zip(("full", "within_class"), found.shuffles, strict=True):
        maps = carry.shuffled(kind, n=5, seed=7)
        np.testing.assert_allclose(drawn.r2[:, 0], [one.r2[SITE] for one in maps])
        np.testing.assert_allclose(drawn.cosine[:, 0], [one.map(v).unit[0] @ own.unit[0] for one in maps])
        assert drawn.title == maps[0].shuffle
    read, carry = v.replace(role="read"), fit_transfer(source, target, method="ridge")
    drawn = compare_maps({"low": carry}, read, own.replace(role="read"), shuffles=2).shuffles[0]
    maps = carry.shuffled("full", n=2)
    np.testing.assert_allclose(drawn.cosine[:, 0], [one.map(read).unit[0] @ own.unit[0] for one in maps])


def test_entries_hold_every_number_with_n_interval_and_control(compared):
    maps, found = compared
    entries = summarise(found.entries(seed_of="0"))
    json.dumps(entries, allow_nan=False)
    assert all(entry["seed_of"] == "0" for entry in entries)
    mine = [entry for entry in entries if entry["target"] == "ridge on neutral"]
    by = {(entry["metric"], entry["condition"], entry["split"]): entry for entry in mine}
    assert len(by) == len(mine), "no two entries are told apart by nothing"
    assert {key[0] for key in by} == {
        "r2", "r2_along", "r2_toward_own", "map_gain", "cosine_with_own", "map_carries"
    }  # fmt: skip
    along_v = by["r2_along", "transfer", "new behaviour"]
    assert along_v["n"] == N and along_v["clusters"] == N and along_v["interval"][0] < along_v["value"]
    assert along_v["layer"] == 0 and along_v["companions"]["source_layer"] == 0
    twin = by["cosine_with_own", "within_class_shuffled_transfer", "fit"]
    assert twin["control"]["N"] == len(twin["control"]["draws"]) == 99 and twin["control"]["p"] > 0.05
    assert (
        twin["value"] == pytest.approx(np.mean(twin["control"]["draws"])) and "within label" in twin["interval_method"]
    )
    said = by["map_carries", "transfer", "fit"]
    assert said["detail"] == NOTHING and said["companions"]["least_p_full"] > 0.05
    assert {entry["target"] for entry in entries} == set(maps)


def test_exact_maps_leave_no_infinite_end_in_the_entries():
    x = normal(60, 6, 0)
    carry = fit_transfer(rows_of(x), rows_of(x), method="identity")
    entries = compare_maps({"identity": carry}, along(np.eye(6)[0]), along(np.eye(6)[0])).entries()
    json.dumps(entries, allow_nan=False)
    assert all(entry["interval"] is None for entry in entries), "no error at all shows no spread"


def test_the_page_shows_the_maps_side_by_side(compared):
    """Verdict, shuffles, and R² of every map on every set of prompts, from the entries alone; else nothing."""
    _, found = compared
    text, table, folded = map_section.maps(read_summary({"results": found.entries(), "question": "?", "model": {}}))
    assert f"ridge on neutral: {NOTHING}." in text.paragraphs
    lines = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert set(lines) == set(found.names)
    line = lines["ridge on behaviour"]
    assert line["p, fully shuffled"] == "0.01" and line["carries"] == found.carries("ridge on behaviour")
    assert float(line["best cosine with the recipient's own"]) > 0.95
    (scores,) = folded.content
    rows = {tuple(row[:3]): dict(zip(scores.columns, row, strict=True)) for row in scores.rows}
    assert len(rows) == 2 * len(found.names) == len(scores.rows)
    blind = rows["ridge on neutral", "new behaviour", SITE.layer]
    stated = {name: float(blind[name].replace("−", "-").partition(" ")[0]) for name in ("R²", "along the direction")}
    assert stated["R²"] > 0.9 and stated["along the direction"] < 0.1
    assert "(" in blind["R²"] and blind["n"] == found.of("ridge on neutral", "new behaviour")[0].n
    assert not map_section.maps(read_summary({"results": [], "question": "?", "model": {}}))
