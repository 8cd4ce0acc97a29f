"""Units of several batches: the rows of single batches, bit for bit, and the same batches for whoever goes on."""

import numpy as np
import pytest
from conftest import stop_after
from test_capture_together import population  # noqa: F401

from stores import ActivationStore, Unit
from stores.segments import units_of
from workbench.capturing import capture

SILENT = {"progress": False}
BUDGET, UNIT = 60, 150  # tokens of a batch, and of the batches of one unit


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr("workbench.units.CPU_BUDGET", BUDGET)


@pytest.mark.parametrize(
    "asked",
    [
        {"at": "last"},
        {"at": "all", "variants": ("a1", "base", "a4")},
        {"at": "prompt", "pool": "mean", "variants": ("a1", "base", "a4"), "together": True},
    ],
    ids=["last", "variants", "together"],
)
def test_rows_are_those_of_single_batches(population, many, tmp_path, asked, small_batches):  # noqa: F811
    store = capture(population, many, to=tmp_path / "units", **asked, **SILENT)
    truth = capture(population, many, to=tmp_path / "batches", max_tokens=BUDGET, **asked, **SILENT)
    assert max(len(unit.batches) for unit in store.plan) > 2 and not any(unit.batches for unit in truth.plan)
    assert [batch for unit in store.plan for batch in unit.batched()] == [unit.prompt_ids for unit in truth.plan]
    assert_same_bits(store, truth)
    assert store.verify(deep=True) == []


def test_text_and_pictures_may_share_a_unit_but_no_batch(scene, tmp_path, small_batches):
    model, prompts = scene
    asked = {"sites": "resid_post, vision.resid_post", "at": {"language": "last", "vision": "image"}}
    if not any(prompt.images for prompt in prompts):
        asked = {}
    store = capture(model, prompts, to=tmp_path / "units", **asked, **SILENT)
    truth = capture(model, prompts, to=tmp_path / "batches", max_tokens=BUDGET, **asked, **SILENT)
    assert len(store.plan) < len(truth.plan)
    assert_same_bits(store, truth)


def test_who_goes_on_runs_the_same_batches(half, many, tmp_path, monkeypatch, small_batches):
    """bfloat16 and mixed lengths: with another batch the bits would differ."""
    monkeypatch.setattr("workbench.captures.size.tokens_of_units", lambda device, weights: UNIT)
    whole = capture(half, many, to=tmp_path / "whole", at="all", **SILENT)
    assert len(whole.plan) > 2 and len(whole.plan[-2].batches) > 1
    resumed = stop_after(monkeypatch, ActivationStore, commits=1)
    with pytest.raises(KeyboardInterrupt):
        capture(half, many, to=tmp_path / "s", at="all", **SILENT)
    resumed()
    ran = []
    monkeypatch.setattr(
        half, "run", lambda batch, *a, **k: ran.append(batch.ids) or type(half).run(half, batch, *a, **k)
    )
    monkeypatch.setattr(half, "variant", lambda name: half)
    again = capture(half, many, to=tmp_path / "s", at="all", max_tokens=4096, **SILENT)
    assert ran == [batch for unit in whole.plan[1:] for batch in unit.batched()]
    assert_same_bits(again, whole)


def test_new_prompts_keep_the_batches_that_they_were_planned_in(llama, many, tmp_path, small_batches):
    capture(llama, many[::3], to=tmp_path / "s", **SILENT)
    store = capture(llama, many, to=tmp_path / "s", **SILENT)
    planned = capture(llama, many, to=tmp_path / "all", **SILENT).plan[0].batched()
    old = {prompt.id for prompt in many[::3]}
    expected = [left for batch in planned if (left := tuple(one for one in batch if one not in old))]
    assert store.plan[1].batched() == expected and len(expected) > 2


def test_a_plan_says_its_batches_and_wrong_sizes_are_refused():
    unit = Unit.of(["a", "b"], ["c"])
    assert unit.batches == (2, 1) and unit.batched() == [("a", "b"), ("c",)]
    assert unit == Unit.of(["a", "b", "c"]) and unit.without({"a", "b", "c"}) is None
    assert unit.without({"b", "c"}).batches == (), "one batch needs no sizes"
    assert units_of([unit.described()])[0].batches == (2, 1)
    assert units_of([Unit.of(["a"]).described()])[0].batches == () and "batches" not in Unit.of(["a"]).described()
    for wrong in ([2], [2, 2], [3, 0], [4, -1], [1.5, 1.5], "21", None, {"2": 1}):
        with pytest.raises((ValueError, TypeError)):
            units_of([{**unit.described(), "batches": wrong}])


def assert_same_bits(store: ActivationStore, truth: ActivationStore) -> None:
    assert store.sites == truth.sites and len(truth.sites) > 1
    for site in truth.sites:
        stream = site.rpartition(":")[0]
        assert bits(store.at(stream), site) == bits(truth.at(stream), site) != {}


def bits(rows, site: str) -> dict:
    """Those of every row, by what it is of."""
    index = zip(rows.prompt_ids, rows.variants, rows.positions.tolist(), rows.token_ids.tolist(), strict=True)
    found = dict(zip(index, map(np.ndarray.tobytes, rows.values(site)), strict=True))
    assert len(found) == len(rows.prompt_ids)
    return found
