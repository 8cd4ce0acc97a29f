"""The causal curve: cells, twins, and how many dimensions hold a planted behaviour."""

from __future__ import annotations

import numpy as np
import pytest
from planted_shift import LinearModel
from workbench_samples import ask, random_subspace

from hooks.site import Site
from workbench.behaviour.summary import summarise
from workbench.interventions.dimensions import dimension_curve
from workbench.interventions.sweep import sweep
from workbench.interventions.top_k import AblateDimensions, KeepDimensions, top_k
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.controls import energy_share
from workbench.subspace.shift import shift_pca


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_behaviour_of_known_rank_is_held_by_so_many_dimensions(rank):
    """A planted shift of rank r in a stream whose contents are louder: the variance of the shift and both causal curves
    say r, not more and not fewer, beyond controls that hold the same energy."""
    model = LinearModel(rank)
    found = shift_pca(model.rows(model.base), model.rows(model.tuned), "paired_shift_raw", 9, null=None)
    # The mean shift is one direction: the raw variant finds it first, and the variance around it is small beside it.
    assert found.k_for[0.95][0] == 1
    centred = shift_pca(model.rows(model.base), model.rows(model.tuned), "paired_shift_centered", 7)
    assert centred.k_for[0.95][0] == rank == centred.rows()[0]["above_null"]
    modes = ("ablate_top_k", "keep_top_k", "ablate_rest")
    plan = top_k(centred.subspace, layer=1, modes=modes, controls=5, rows=model.rows(model.tuned))
    table = model.table(plan.cells, plan.twins)
    for mode in modes:
        curve = dimension_curve(table, "score", mode=mode, bounds=(0, 1))
        needed = curve.needed(0.9)
        assert (needed.k, needed.low, needed.high) == (rank, rank, rank), (mode, str(needed))
        # What ablate_rest takes out holds nothing here, and nor do frames of its energy: they leave the behaviour too.
        assert (needed.specific or mode == "ablate_rest") and f"k = {rank} " in str(needed)
        assert curve.unedited == 1.0 and curve.needed(0.5).k == -(-rank // 2)
    assert dimension_curve(table, "score").points[0].change is None


def test_a_subspace_that_holds_nothing_of_it_gives_no_number():
    """The meta-test: the loud contents hold more variance and none of the behaviour."""
    model = LinearModel(3)
    loud = shift_pca(model.rows(model.base), model.rows(model.tuned), "harmful_only", 6, null=None).subspace
    table = model.table(top_k(loud, layer=1, modes=["ablate_top_k"], controls=0).cells)
    assert dimension_curve(table, "score").needed(0.5).k is None


def test_one_k_that_passes_between_two_that_fail_is_no_answer():
    rows = [{"intervention": "none", "control": None, "draw": None, "prompt": i, "score": 1.0} for i in range(9)]
    for k, value in {1: 0.0, 2: 0.8, 3: 0.05, 4: 0.0}.items():
        rows += [
            {"intervention": "ablate_top_k", "coefficient": float(k), "control": None, "draw": None, "prompt": i,
             "score": value} for i in range(9)
        ]  # fmt: skip
    curve = dimension_curve(rows, "score", bounds=(0, 1))
    assert curve.needed(0.9).k == 3 and [point.k for point in curve.points] == [0, 1, 2, 3, 4]
    assert curve.points[2].effect == pytest.approx(0.2) and curve.points[2].change == pytest.approx(-0.2)
    half = dimension_curve(rows, "score", base=0.5)
    assert half.points[2].effect == pytest.approx((1 - 0.8) / 0.5)


def test_twins_hold_the_energy_of_their_own_cell_and_share_their_numbers():
    model = LinearModel(3)
    found = shift_pca(model.rows(model.base), model.rows(model.tuned), k=4, null=None).subspace
    held = model.rows(model.tuned)
    plan = top_k(found, [1, 3], layer=1, controls=3, kinds=("energy_matched", "isotropic"), rows=held, seed=2)
    assert [(cell.describe()["intervention"], cell.k) for cell in plan.cells] == [
        ("ablate_top_k", 1), ("ablate_top_k", 3), ("keep_top_k", 1), ("keep_top_k", 3)
    ]  # fmt: skip
    for kind, twins in plan.twins.items():
        assert [twin.k for twin in twins] == [1, 1, 1, 3, 3, 3] * 2
        for place, twin in enumerate(twins):
            own = plan.cells[place // 3]
            a, b = ((one.subspace if isinstance(one, KeepDimensions) else one.direction) for one in (own, twin))
            assert a.k == b.k == own.k and type(own) is type(twin) and twin.describe() == own.describe()
            if kind == "energy_matched":
                np.testing.assert_allclose(energy_share(b, held), energy_share(a, held), rtol=1e-6)
    one, three = plan.twins["isotropic"][0].direction, plan.twins["isotropic"][3].direction
    assert np.linalg.norm(one.basis[0] @ three.basis[0].T) == pytest.approx(1.0), "the same draw at every k"


def test_p_values_alone_and_for_the_best_of_all_k():
    """99 twins: the p of each k by counting, and the maximum statistic by hand."""
    model = LinearModel(2)
    found = shift_pca(model.rows(model.base), model.rows(model.tuned), k=3, null=None).subspace
    plan = top_k(found, [1, 2], layer=1, modes=["ablate_top_k"], controls=99, rows=model.rows(model.tuned))
    table = model.table(plan.cells, plan.twins)
    curve = dimension_curve(table, "score")
    draws = np.array(
        [[np.mean([r["score"] for r in table if r["draw"] == i + 99 * j]) for i in range(99)] for j in (0, 1)]
    )
    for j, point in enumerate(curve.points[1:]):
        band = point.controls["energy_matched"]
        np.testing.assert_allclose(band.draws, draws[j])
        assert band.p == pytest.approx((1 + (draws[j] <= point.value + 1e-12).sum()) / 100)
        assert band.p_max == pytest.approx((1 + (draws.min(0) <= point.value + 1e-12).sum()) / 100)
        assert band.low == pytest.approx(np.quantile(draws[j], 0.025)) and band.mean == pytest.approx(draws[j].mean())
    assert curve.points[2].controls["energy_matched"].p == 0.01
    assert {"energy_matched_p", "effect", "interval_method"} <= curve.rows()[1].keys()


def test_a_sweep_of_a_real_model_reads_as_a_curve(llama):
    """Through wb.sweep: the cells edit what they say, k = 0 keeps the mean alone, the twins stand beside their k."""
    rng = np.random.default_rng(0)
    subspace = random_subspace(llama, k=3, origin=rng.standard_normal((3, llama.d_model)))
    rows = ArrayRows({Site(layer): 2 * rng.standard_normal((60, llama.d_model)) for layer in range(3)})
    prompts = [ask(f"q{i}", "word " * (i + 1), domain="ab"[i % 2]) for i in range(6)]
    plan = top_k(subspace, [0, 1, 3], layer=2, controls=2, rows=rows)
    assert [(c.describe()["intervention"], c.k) for c in plan.cells] == [
        ("ablate_top_k", 1), ("ablate_top_k", 3), ("keep_top_k", 0), ("keep_top_k", 1), ("keep_top_k", 3)
    ]  # fmt: skip
    table = sweep(llama, prompts, plan.cells, twins=plan.twins, progress=False)
    curve = dimension_curve(table, "logit_difference", base=-100.0)
    assert [point.k for point in curve.points] == [0, 1, 3] and curve.points[1].n == 6
    by_hand = [row["logit_difference"] for row in table.rows(cell=1)]
    assert curve.points[1].value == pytest.approx(np.mean(by_hand))
    assert [len(point.controls["energy_matched"].draws) for point in curve.points[1:]] == [2, 2]
    assert curve.points[1].specific is not None and curve.points[1].controls["energy_matched"].p is None
    kept = dimension_curve(table, "logit_difference", base=-100.0, mode="keep_top_k")
    assert [point.k for point in kept.points] == [0, 1, 3] and kept.points[0].controls == {}
    alone = {round(row["logit_difference"], 4) for row in table.rows(intervention="keep_top_k", k=0)}
    assert len(alone) == 1, "with nothing kept every prompt gives the same answer"
    rate = dimension_curve(table, "right", base=-1.0, cluster="domain", mode="ablate_top_k", layers="2")
    assert rate.points[1].clusters == 2 and "Wilson" in rate.points[1].interval.method
    one = sweep(
        llama, prompts, plan.cells[:2], twins={"energy_matched": plan.twins["energy_matched"][:4]}, progress=False
    )
    entries = summarise(one, condition="top_k")
    assert {entry["coefficient"] for entry in entries if entry["condition"] == "top_k"} == {1.0, 3.0}
    assert {entry["control"]["N"] for entry in entries if entry["control"]} == {2}


def test_what_cannot_be_is_refused(llama):
    subspace = random_subspace(llama, k=3)
    origin = subspace.replace(origin=subspace.mean)
    with pytest.raises(ValueError, match="has no origin, the point"):
        top_k(subspace, layer=1, controls=0)
    assert len(top_k(subspace, layer=1, modes=["ablate_top_k"], to="zero", controls=0).cells) == 3
    with pytest.raises(ValueError, match="expected different numbers from 0 to 3"):
        top_k(origin, [1, 4], layer=1, controls=0)
    with pytest.raises(ValueError, match="as it is in every cell"):
        top_k(origin, [0], layer=1, modes=["ablate_top_k"], controls=0)
    with pytest.raises(ValueError, match="combinations of captured activations"):
        top_k(origin, layer=1)
    held = ArrayRows({Site(1): np.ones((4, llama.d_model))}, info={"scope": "last"})
    with pytest.raises(ValueError, match="were captured at 'last'"):
        top_k(origin, layer=1, rows=held)
    rows = [{"intervention": "none", "control": None, "draw": None, "prompt": "a", "score": 1.0}]
    with pytest.raises(ValueError, match="1 rows of the unedited model and 0 of 'ablate_top_k'"):
        dimension_curve(rows, "score")
    cell = {
        "intervention": "ablate_top_k",
        "coefficient": 1.0,
        "control": None,
        "draw": None,
        "prompt": "a",
        "score": 0.0,
    }
    with pytest.raises(ValueError, match="there is no behaviour"):
        dimension_curve([*rows, cell], "score", base=1)
    with pytest.raises(ValueError, match="act at 2 places"):
        dimension_curve([*rows, {**cell, "layers": "1"}, {**cell, "layers": "2"}], "score")
    with pytest.raises(ValueError, match="between 0 and 1"):
        dimension_curve([*rows, cell], "score").needed(0)
    assert isinstance(top_k(origin, layer=1, controls=0).cells[0], AblateDimensions)
