"""A map blind to one direction shows it along that direction, although its total R² is high; maps judged elsewhere."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from planted_maps import SITE, N, Two, along, frame, normal, rows_of

from hooks.site import Site
from workbench.interventions.maps_tested import Explained, Pair, explained_by
from workbench.interventions.transfer import fit_transfer, fit_transfers
from workbench.statistics.skill import skill_interval
from workbench.subspace.directions import Directions

ROOT = Path(__file__).resolve().parent.parent
METHODS = ["procrustes", "ridge", "low_rank"]


@pytest.mark.parametrize("method", METHODS)
def test_a_map_blind_to_one_direction_shows_it_although_its_total_r2_is_high(method):
    """The target does not have the source's last axis (noise of its own stands there): every kind of map has total R²
    near 1, R² near 1 along an axis that is shared, and next to none along the one that is not."""
    rng = np.random.default_rng(0)
    shared, mine, theirs = (rng.standard_normal((N, k)) for k in (9, 1, 1))
    turn = frame(10, 10, 1)
    x = np.hstack([20 * shared, mine])
    y = np.hstack([20 * shared, theirs]) @ turn
    found = fit_transfer(rows_of(x), rows_of(y), method=method)
    blind, seen, own = along(np.eye(10)[9]), along(np.eye(10)[0]), along(turn[9])
    assert found.r2[SITE] > 0.98 and found.r2_along(seen)[SITE] > 0.98
    assert found.r2_along(blind)[SITE] < 0.2
    assert found.r2_along(own, "target")[SITE] < 0.2
    if method == "procrustes":  # misplaces it, and keeps its length
        assert found.gain(blind)[SITE] == pytest.approx(1, abs=1e-6)
    else:  # shrinks it, to where the large axes lie: R² along the image alone would be no merit of v's
        assert found.gain(blind)[SITE] < 0.15 and found.gain(seen)[SITE] > 0.9


def test_what_ridge_leaves_of_a_lost_direction_may_point_where_all_is_predicted():
    """The reason for the partial R²: along the image of what was lost, the whole map explains nearly all."""
    rng = np.random.default_rng(3)
    shared, mine, theirs = (rng.standard_normal((N, k)) for k in (9, 1, 1))
    found = fit_transfer(
        rows_of(np.hstack([20 * shared, mine])), rows_of(np.hstack([20 * shared, theirs])), method="ridge"
    )
    blind = along(np.eye(10)[9])
    image = found.map(blind)
    assert found.r2_along(image.replace(norm=np.ones(1)), "target")[SITE] > 0.9
    assert found.r2_along(blind)[SITE] < 0.2


@pytest.mark.parametrize("method", METHODS)
def test_a_map_of_neutral_prompts_is_blind_to_what_they_never_show(method):
    """Both fits predict their own kind of prompts; only rows that vary along v tell them apart. Judged on one set of
    new rows, the neutral map's total R² stays high and its R² along the behaviour's direction is near 0 or below."""
    two = Two()
    neutral = fit_transfer(*two.rows(N, 1, shown=0.0), method=method)
    spanning = fit_transfer(*two.rows(N, 2, shown=1.0), method=method)
    new = two.rows(N, 3, shown=1.0, name="new")
    assert neutral.r2[SITE] > 0.95 and spanning.r2[SITE] > 0.95
    blind, seeing = neutral.tested_on(*new), spanning.tested_on(*new)
    assert blind.r2[SITE] > 0.9 and seeing.r2[SITE] > 0.98
    assert blind.r2_along(two.own, "target")[SITE] < 0.1 and seeing.r2_along(two.own, "target")[SITE] > 0.95
    assert blind.r2_along(two.v)[SITE] < 0.1 and seeing.r2_along(two.v)[SITE] > 0.95
    assert blind.n_held_out == N and neutral.n_held_out == N // 4, "the map itself stays as it was"


def test_along_a_rotation_the_partial_r2_is_the_plain_one():
    """Orthogonal images: taking v out leaves the mean, and nothing of the published number changes."""
    x, turn = normal(N, 8, 0), frame(8, 12, 1)
    y = x @ turn + np.random.default_rng(2).standard_normal((N, 12))
    found = fit_transfer(rows_of(x), rows_of(y))
    for axis in range(8):
        v = along(np.eye(8)[axis])
        image = found.map(v)
        plain = found.r2_along(image, "target")[SITE]
        assert found.r2_along(v)[SITE] == pytest.approx(plain, abs=1e-9) and plain < 0.99


def test_the_partial_r2_is_that_of_a_regression():
    """Against the textbook, on rows that the map is exact for up to noise: 1 - SSE / SSE without v."""
    rng = np.random.default_rng(5)
    x, mix = rng.standard_normal((N, 6)), rng.standard_normal((6, 6))
    y = x @ mix + 0.3 * rng.standard_normal((N, 6))
    found = fit_transfer(rows_of(x), rows_of(y), method="ridge", ridge=1e-9)
    v = np.eye(6)[2]
    image = v @ found.maps[SITE].matrix
    image = image / np.linalg.norm(image)
    pair = found.pairs[SITE]
    residual = (pair.held_target - found.maps[SITE].point(pair.held_source)) @ image
    lost = np.outer(pair.held_source[:, 2] - pair.source.mean[2], v) @ found.maps[SITE].matrix @ image
    expected = 1 - (residual**2).sum() / ((residual + lost) ** 2).sum()
    assert found.r2_along(along(v))[SITE] == pytest.approx(expected, abs=1e-9) and 0.5 < expected < 1
    assert found.r2_along(along(2 * v))[SITE] == pytest.approx(expected, abs=1e-9), "its length plays no part"


def test_the_partial_r2_is_never_above_the_plain_one():
    """v and another axis nearly cancel: without v the map is far worse than the mean, and that is no merit either."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 2))
    x[:, 1] = 0.3 * x[:, 1] - 0.95 * x[:, 0]
    y = np.c_[x.sum(axis=1) + 0.3 * rng.standard_normal(N), 1e-3 * rng.standard_normal(N)]
    found = fit_transfer(rows_of(x), rows_of(y), method="ridge", ridge=1e-6)
    v = along(np.eye(2)[0])
    plain = found.r2_along(found.map(v), "target")[SITE]
    assert found.r2_along(v)[SITE] == pytest.approx(plain, abs=1e-9) and plain < 0.8


def test_a_direction_without_an_image_explains_nothing_and_has_no_interval():
    x = normal(12, 30, 0)
    found = fit_transfer(rows_of(x), rows_of(x @ frame(30, 30, 1)), held_out=0.17)
    train = found.pairs[SITE].source.right
    outside = np.linalg.svd(train)[2][-1]
    v = along(outside - train.T @ (train @ outside))
    assert found.map(v).norm[0] < 1e-8
    nothing = along(np.zeros(30))
    assert found.r2_along(nothing) == {SITE: 0.0} and found.r2_interval(nothing) == {SITE: None}
    assert found.gain(v)[SITE] < 1e-8


def test_intervals_are_over_held_out_prompts():
    """The jackknife of the whole ratio, prompt by prompt, done by hand; rows of one prompt leave together."""
    x = np.random.default_rng(0).standard_normal((2 * N, 5))
    y = x @ frame(5, 5, 1) + 0.5 * np.random.default_rng(1).standard_normal((2 * N, 5))
    ids, variants = [f"p{i}" for i in range(N)] * 2, ["base"] * N + ["tuned"] * N
    found = fit_transfer(rows_of(x, ids, variants=variants), rows_of(y, ids, variants=variants), method="ridge")
    pair, fit = found.pairs[SITE], found.maps[SITE]
    error = ((pair.held_target - fit.point(pair.held_source)) ** 2).sum(axis=1)
    total = ((pair.held_target - pair.target.mean) ** 2).sum(axis=1)
    prompts = np.unique(pair.held_prompts)
    assert len(prompts) == N // 4 and len(error) == N // 2
    without = [
        1 - error[pair.held_prompts != one].sum() / total[pair.held_prompts != one].sum() for one in prompts.tolist()
    ]
    expected = skill_interval(found.r2[SITE], without)
    actual = found.r2_interval()[SITE]
    assert (actual.low, actual.high) == pytest.approx((expected.low, expected.high)) and found.r2[SITE] in actual
    narrow = found.r2_interval(level=0.5)[SITE]
    assert narrow.high - narrow.low < actual.high - actual.low
    few = fit_transfer(rows_of(x[:16]), rows_of(y[:16]))
    assert few.r2_interval() == {SITE: None}, "four prompts show no spread"


def test_the_interval_holds_the_true_r2_about_as_often_as_it_says():
    """300 sets of 20 held-out prompts of one fixed map, whose R² over all prompts is known: 0.8."""
    rng = np.random.default_rng(0)
    error = rng.standard_normal((300, 20, 8)) * np.sqrt(0.2)
    total = rng.standard_normal((300, 20, 8)) * np.sqrt(0.8) + error
    held = 0
    for off, actual in zip((error**2).sum(axis=2), (total**2).sum(axis=2), strict=True):
        held += 0.8 in Explained(off, actual).interval()
    assert 0.91 <= held / 300 <= 0.98


def test_rows_that_a_map_was_fitted_on_do_not_test_it():
    two = Two()
    rows = two.rows(N, 1, shown=1.0)
    found = fit_transfer(*rows)
    again = found.tested_on(*rows)
    assert again.n_held_out == found.n_held_out, "its own held-out prompts are all that is new to it"
    known = {rows[0].prompt_ids[i] for i in found.train_rows[1]}
    only_known = [one.where(prompt_id=known) for one in rows]
    with pytest.raises(ValueError, match="not fitted on"):
        found.tested_on(*only_known)


def test_other_rows_are_compared_with_their_own_mean():
    """Two sets far apart: an offset that the map gets right is no merit on rows that do not vary between the sets."""
    x, turn = normal(N, 6, 0), frame(6, 6, 1)
    found = fit_transfer(rows_of(x), rows_of(x @ turn))
    rng = np.random.default_rng(4)
    far = rng.standard_normal((40, 6)) + 100
    unrelated = (rng.standard_normal((40, 6)) + 100) @ turn
    ids = [f"far{i}" for i in range(40)]
    assert found.tested_on(rows_of(far, ids), rows_of(unrelated, ids)).r2[SITE] < 0


def test_directions_of_the_wrong_side_are_refused():
    two = Two()
    source, target = two.rows(N, 1, shown=1.0)
    source.info["model"], target.info["model"] = "small", "large"
    found = fit_transfer(source, target)
    with pytest.raises(ValueError, match="space='target' takes a direction of 'large'"):
        found.r2_along(two.own.replace(model="small"), "target")
    with pytest.raises(ValueError, match="starts from 'small'"):
        found.r2_along(two.v.replace(model="large"))


def test_several_methods_share_one_split_and_are_what_each_is_alone():
    source, target = Two().rows(N, 1, shown=1.0)
    all_of = fit_transfers(source, target, methods=METHODS, seed=3)
    assert list(all_of) == METHODS
    for method, one in all_of.items():
        alone = fit_transfer(source, target, method=method, seed=3)
        np.testing.assert_array_equal(one.maps[SITE].matrix, alone.maps[SITE].matrix)
        assert one.r2 == alone.r2
    assert list(fit_transfers(source, target)) == METHODS, "widths differ, so identity is left out"
    assert "identity" in fit_transfers(source, source)
    with pytest.raises(ValueError, match="equal widths"):
        fit_transfers(source, target, methods=["identity"])


def test_v_taken_out_is_v_at_the_training_mean():
    """The mean of the held-out rows may lie elsewhere; the map then still moves v's share to where it was fitted."""
    two = Two()
    found = fit_transfer(*two.rows(N, 2, shown=1.0), method="ridge")
    pair: Pair = found.pairs[SITE]
    moved = dataclasses.replace(pair, held_source=pair.held_source + 50.0 * two.v.unit[0])
    image = found.map(two.v).unit[0]
    lost = explained_by(found.maps[SITE], moved, two.v.unit[0], image)
    assert lost.r2 < -10, "an offset of v that the target does not share is an error of v's"


def test_prompts_of_one_family_are_held_out_together():
    """Each question under three personas, the question's own noise on both sides: held out by prompt, a near copy of
    every held-out row is among those fitted on."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 100)), rng.standard_normal((40, 8))
    ids = [f"{persona}:{i}" for persona in "abc" for i in range(40)]
    tags = {"item": [f"q{i}" for _ in "abc" for i in range(40)]}
    source, target = (rows_of(np.vstack([each, each + 1e-3, each - 1e-3]), ids, tags=tags) for each in (x, y))
    loose = fit_transfer(source, target, method="ridge")
    strict = fit_transfer(source, target, method="ridge", family="item")
    assert loose.r2[SITE] > 0.6 and strict.r2[SITE] < 0.1
    trained = {tags["item"][i] for i in strict.train_rows[1]}
    assert len(trained) == 30 and strict.n_train == 90 and strict.prompts == 120 and strict.family == "item"
    assert "over 10 units" in strict.r2_interval()[SITE].method
    again = strict.tested_on(source, target)
    assert again.n_held_out == 30, "the other prompts of a family are not new either"
    with pytest.raises(ValueError, match="tag 'question' is not here"):
        fit_transfer(source, target, family="question")


def test_a_prompt_without_a_family_is_one_of_its_own():
    x, turn = normal(40, 6, 0), frame(6, 6, 1)
    tags = {"item": [None if i % 2 else "same" for i in range(40)]}
    found = fit_transfer(rows_of(x, tags=tags), rows_of(x @ turn, tags=tags), family="item")
    together = sum(tags["item"][i] is not None for i in found.train_rows[1])
    assert together in (0, 20) and found.n_held_out == 5 + (0 if together else 19), "5 of 21 families"


def test_maps_between_stored_rows_need_no_torch():
    code = (
        "import sys, workbench as wb; wb.fit_transfer, wb.compare_maps, wb.token_pairs; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_directions_at_several_sites_meet_the_right_layer():
    x = {Site(layer): normal(40, 5, layer) for layer in range(3)}
    y = {Site(layer): x[Site(layer)] @ frame(5, 7, layer) for layer in range(3)}
    y[Site(2)] = normal(40, 7, 9)
    found = fit_transfer(rows_of(x), rows_of(y))
    v = Directions.of([Site(2), Site(0)], np.ones((2, 5)))
    r2, gains = found.r2_along(v), found.gain(v)
    assert set(r2) == {Site(0), Site(2)} and r2[Site(0)] > 0.99 and r2[Site(2)] < 0.5
    assert gains[Site(0)] == pytest.approx(1)
    crossed = fit_transfer(rows_of(x), rows_of(y), layers={0: 2, 2: 0}, method="ridge")
    one = Directions.of([Site(0), Site(2)], np.array([np.eye(5)[0], np.ones(5)]))
    assert crossed.gain(one)[Site(2)] == crossed.gain(one[0])[Site(2)] != crossed.gain(one[2])[Site(0)]
    assert crossed.r2_along(one)[Site(2)] == crossed.r2_along(one[0])[Site(2)]


def test_rows_that_do_not_vary_have_no_gain():
    found = fit_transfer(rows_of(np.ones((20, 4))), rows_of(normal(20, 4, 0)), method="identity")
    assert found.gain(along(np.eye(4)[0])) == {SITE: 0.0}
