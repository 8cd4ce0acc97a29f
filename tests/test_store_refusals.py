"""What does not fit a store is refused by name: another spec, foreign units, wrong shapes, NaN."""

from __future__ import annotations

import numpy as np
import pytest
from store_samples import (
    D_MODEL,
    block,
    filled_store,
    new_store,
    planned,
    prompt_records,
)

from stores import (
    ActivationStore,
    Block,
    NoRows,
    NotFinite,
    StoreMismatch,
    StoreMissing,
    Unit,
    content_key,
)
from stores.block import whole_numbers

DTYPES = ("float32", "float16", "bfloat16")


def test_opening_nothing_says_so(tmp_path):
    with pytest.raises(StoreMissing, match=r"holds no store: expected store\.json"):
        ActivationStore.open(tmp_path)
    with pytest.raises(NoRows, match="0 of 3 units"):
        len(new_store(tmp_path / "s"))
    (tmp_path / "s" / "store.json").unlink()
    with pytest.raises(StoreMissing, match=r"store\.json is gone, while plan is there: .* restore it"):
        ActivationStore.open(tmp_path / "s")


def test_a_store_of_another_model_names_the_keys_that_differ(tmp_path):
    filled_store(tmp_path / "s")
    with pytest.raises(StoreMismatch, match=r"spec\.model: expected 'tiny', came 'other'(.|\n)*Mend"):
        new_store(tmp_path / "s", spec={"model": "other", "scope": "last"})
    with pytest.raises(StoreMismatch, match=r"streams\.resid_post\.dtype: expected 'float32', came 'float16'"):
        new_store(tmp_path / "s", dtype="float16")
    with pytest.raises(StoreMismatch, match=r"spec\.at: expected \(absent\), came 3"):
        new_store(tmp_path / "s", spec={"model": "tiny", "scope": "last", "at": 3})
    changed = prompt_records(10)
    changed[3]["sha256"] = "0" * 64
    with pytest.raises(StoreMismatch, match=r"(?s)Prompt 'p3' differs.*sha256"):
        new_store(tmp_path / "s", prompts=changed)
    assert len(new_store(tmp_path / "s").missing()) == 0  # none of the refusals changed the store


def test_equal_specs_are_equal_whatever_the_order_of_keys(tmp_path):
    filled_store(tmp_path / "s", spec={"model": "tiny", "layers": (1, 2)})
    assert new_store(tmp_path / "s", spec={"layers": [1, 2], "model": "tiny"}).missing() == []


def test_appended_prompts_add_a_segment_and_leave_the_plan_as_it_is(tmp_path):
    first = filled_store(tmp_path / "s", 10)
    again = new_store(tmp_path / "s", 15)
    assert again.plan[:3] == first.plan
    assert [unit.prompt_ids for unit in again.missing()] == [("p10", "p11"), ("p12", "p13", "p14")]
    for unit in again.missing():
        again.commit(unit, {"resid_post": block(unit)})
    assert list(dict.fromkeys(again.prompt_ids)) == [f"p{i}" for i in range(15)]
    other_batches = new_store(tmp_path / "s", 15, plan=planned(15, size=7))
    assert other_batches.missing() == [] and other_batches.plan == again.plan
    by_function = new_store(tmp_path / "s", 17, plan=lambda fresh: [Unit.of(fresh)])
    assert [unit.prompt_ids for unit in by_function.missing()] == [("p15", "p16")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(values=np.zeros((2, 8, D_MODEL), np.float32)), r"expected \[layer=3, row, d_model=24\]"),
        (dict(values=np.zeros((3, 8, 7), np.float32)), r"shape \(3, 8, 7\)"),
        (dict(values=np.zeros((3, 8, D_MODEL), np.float64)), "float64, expected float32"),
        (dict(prompt_id=["p0"] * 7), "prompt_id has 7 entries, expected one a row, 8"),
        (dict(prompt_id=["p9"] * 8), "rows of prompt 'p9'"),
        (dict(variant=[""] * 8), "as prompt id or variant"),
        (dict(position=[0] * 9), "position has 9 entries"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(tmp_path, change, message):
    store = new_store(tmp_path / "s")
    unit = store.missing()[0]
    good = block(unit)
    with pytest.raises(ValueError, match=message):
        store.commit(unit, {"resid_post": Block(**{**good.__dict__, **change})})
    assert store.missing()[0] == unit and store.commit(unit, {"resid_post": good})


def test_positions_are_whole_numbers():
    with pytest.raises(ValueError, match="position has dtype float64"):
        whole_numbers(np.zeros(8) + 0.5, "position")


def test_units_outside_the_plan_and_missing_streams_are_refused(tmp_path):
    store = new_store(tmp_path / "s")
    unit = store.missing()[0]
    with pytest.raises(ValueError, match=r"'elsewhere' is not in the plan(.|\n)*missing"):
        store.commit(Unit("elsewhere", unit.prompt_ids), {"resid_post": block(unit)})
    with pytest.raises(ValueError, match="with other prompts"):
        store.commit(Unit(unit.key, ("p0",)), {"resid_post": block(unit)})
    with pytest.raises(ValueError, match=r"blocks for \['resid_pre'\], expected \['resid_post'\]"):
        store.commit(unit, {"resid_pre": block(unit)})
    with pytest.raises(ValueError, match="no record in `prompts`"):
        new_store(tmp_path / "t", prompts=prompt_records(3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted_and_refused(tmp_path, dtype, bad):
    store = new_store(tmp_path / "s", dtype=dtype)
    unit = store.missing()[0]
    good = block(unit, dtype)
    values = good.values.copy()
    code = np.float32(bad).view(np.uint32) >> 16 if dtype == "bfloat16" else bad
    values[1, 2, 3] = values[1, 4, 5] = code
    with pytest.raises(NotFinite, match="layer 1: 2 of 192 values"):
        store.commit(unit, {"resid_post": Block(**{**good.__dict__, "values": values})})
    allowing = new_store(tmp_path / "t", dtype=dtype, spec={"allow_nonfinite": True})
    assert allowing.commit(unit, {"resid_post": Block(**{**good.__dict__, "values": values})})


def test_specs_that_json_would_bend_are_refused(tmp_path):
    for bad in ({"x": float("nan")}, {"x": {1: 2}}, {"x": {1, 2}}, {"x": np.zeros(2)}):
        with pytest.raises((ValueError, TypeError), match="x"):
            new_store(tmp_path / "s", spec=bad)
    assert content_key({"a": 1, "b": (2,)}) == content_key({"b": [2], "a": np.int64(1)})
    assert content_key({"a": 1}) != content_key({"a": True}) != content_key({"a": "1"})
