"""ActivationStore and Rows: what goes in comes out, selected and paired by name; what does not fit is refused
by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from store_samples import (
    D_MODEL,
    LAYERS,
    block,
    expected,
    filled_store,
    new_store,
    planned,
    prompt_records,
    shards,
    stream,
)

from stores import (
    ActivationStore,
    Block,
    NoRows,
    NotFinite,
    StoreError,
    StoreMismatch,
    StoreMissing,
    Stream,
    Unit,
    UnknownName,
    content_key,
)

ROOT = Path(__file__).resolve().parent.parent
DTYPES = ("float32", "float16", "bfloat16")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ActivationStore:
    return filled_store(tmp_path_factory.mktemp("store") / "s", reverse="tuned")


# Round trips


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_row_comes_back_under_its_own_name(tmp_path, dtype):
    filled_store(tmp_path / "s", 11, dtype)
    rows = ActivationStore.open(tmp_path / "s").rows()
    assert len(rows) == 22
    for layer in LAYERS:
        values = rows.values(f"resid_post:{layer}")
        assert values.dtype == np.float32
        for i, (prompt, variant) in enumerate(zip(rows.prompt_ids, rows.variants, strict=True)):
            np.testing.assert_array_equal(values[i], expected(prompt, variant, layer))


def test_units_come_in_plan_order_whatever_the_order_of_commits(tmp_path):
    store = new_store(tmp_path / "s", 12)
    for unit in reversed(store.missing()):
        store.commit(unit, {"resid_post": block(unit)})
    assert list(dict.fromkeys(store.prompt_ids)) == [f"p{i}" for i in range(12)]


@pytest.mark.parametrize("rows", [1, 63, 128, 129, 257])
def test_chunk_edges_lose_nothing(tmp_path, rows):
    """129 rows make chunks of 65, the last one padded: the padding must never be read."""
    values = np.random.default_rng(rows).normal(size=(2, rows, 5)).astype(np.float32)
    unit = Unit("u", tuple(f"p{i}" for i in range(rows)))
    store = new_store(tmp_path / "s", rows, streams=[Stream("resid_post", (0, 1), 5, "float32")], plan=[unit])
    store.commit(
        unit, {"resid_post": Block(values, unit.prompt_ids, ["base"] * rows, np.arange(rows), np.arange(rows))}
    )
    np.testing.assert_array_equal(store.values("resid_post:1"), values[1])
    np.testing.assert_array_equal(store.where(position=rows - 1).values("resid_post:0"), values[0][-1:])
    assert [len(batch) for batch in store.batches("resid_post:0", 50)] == [
        min(50, rows - s) for s in range(0, rows, 50)
    ]
    np.testing.assert_array_equal(np.concatenate(list(store.batches("resid_post:0", 50))), values[0])


@pytest.fixture(scope="module")
def every_code(tmp_path_factory) -> tuple[ActivationStore, np.ndarray]:
    """All 65 536 bfloat16 codes, NaN payloads and infinities included."""
    codes = np.arange(1 << 16, dtype=np.uint16).reshape(1, 256, 256)
    unit = Unit.of(f"p{i}" for i in range(256))
    path = tmp_path_factory.mktemp("codes") / "s"
    store = new_store(
        path,
        256,
        streams=[Stream("resid_post", (0,), 256, "bfloat16")],
        plan=[unit],
        spec={"allow_nonfinite": True},
    )
    store.commit(unit, {"resid_post": Block(codes, unit.prompt_ids, ["base"] * 256, [0] * 256, [0] * 256)})
    return store, codes[0]


def test_all_bfloat16_codes_are_kept_bit_for_bit(every_code):
    store, codes = every_code
    bits = store.values("resid_post:0").view(np.uint32)
    np.testing.assert_array_equal(bits >> 16, codes)
    assert not (bits & 0xFFFF).any()


def test_plain_h5py_reads_bfloat16_as_the_right_float32(every_code):
    """Through HDF5's own conversion: the type on disk is a real bfloat16, not a code with a note beside it."""
    store, codes = every_code
    truth = (codes.astype(np.uint32) << 16).view(np.float32)
    with h5py.File(shards(store.path)[0], "r", locking=False) as file:
        read = file["activations/resid_post/values"][0].astype(np.float32)
    np.testing.assert_array_equal(np.isnan(read), np.isnan(truth))
    real = ~np.isnan(truth)
    np.testing.assert_array_equal(read[real].view(np.uint32), truth[real].view(np.uint32))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", DTYPES)
def test_xarray_opens_a_shard_with_named_dimensions_and_coordinates(tmp_path, dtype):
    store = filled_store(tmp_path / "s", 4, dtype)
    with xarray.open_dataset(shards(store.path)[0], engine="h5netcdf", group="activations/resid_post") as data:
        assert dict(data.sizes) == {"layer": len(LAYERS), "row": 8, "d_model": D_MODEL}
        assert data["values"].dims == ("layer", "row", "d_model")
        assert data["prompt_id"].dims == data["position"].dims == ("row",)
        np.testing.assert_array_equal(data["values"].sel(layer=5).values, store.values("resid_post:5"))
        assert [name.decode() for name in data["prompt_id"].values] == store.prompt_ids
        assert data.attrs["encoding-type"] == "residual-stream"


def test_a_shard_tells_where_it_came_from(store):
    with h5py.File(shards(store.path)[0], "r", locking=False) as file:
        assert b'"scope": "last"' in file.attrs["spec"]
        assert {"content_key", "unit", "provenance", "encoding-type", "encoding-version"} <= set(file.attrs)
        assert file["activations/resid_post/values"].attrs["torch_dtype"] == b"float32"


def test_strange_ids_survive(tmp_path):
    ids = ("ü/../x", "日本", "a b\n", "\ud800", "x" * 300)
    records = [{"id": name, "label": None, "tags": {}, "sha256": None} for name in ids]
    unit = Unit("unit/../é", ids)
    store = new_store(tmp_path / "s", prompts=records, plan=[unit])
    values = np.zeros((3, 5, D_MODEL), dtype=np.float32)
    store.commit(unit, {"resid_post": Block(values, ids, ["base"] * 5, [0] * 5, [0] * 5)})
    assert ActivationStore.open(tmp_path / "s").prompt_ids == list(ids)
    assert store.labels == [None] * 5
    assert all(path.is_relative_to(tmp_path) for path in shards(tmp_path / "s"))


# Views


def test_where_selects_by_variant_label_tag_and_column(store):
    assert set(store.where(variant="base").variants) == {"base"}
    assert set(store.where(label="loud").labels) == {"loud"}
    assert set(store.where(topic={0, 2}).tag("topic")) == {0, 2}
    assert store.where(prompt_id=lambda name: name > "p7").where(variant="tuned").prompt_ids == ["p9", "p8"]
    assert store.where(position=7, kind="ü").positions.tolist() == [7] * 20
    rows = store.where(label="calm", variant="tuned")
    for i, prompt in enumerate(rows.prompt_ids):
        np.testing.assert_array_equal(rows.values("resid_post:5")[i], expected(prompt, "tuned", 5))


def test_nothing_matched_lists_what_exists(store):
    with pytest.raises(NoRows, match=r"label='quiet'.*\n.*'calm' \(10 rows\), 'loud' \(10 rows\)"):
        store.where(label="quiet")
    with pytest.raises(NoRows, match="'base' \\(10 rows\\), 'tuned'"):
        store.where(variant="other")
    with pytest.raises(UnknownName, match="tags \\['kind', 'topic'\\]"):
        store.where(colour="red")
    with pytest.raises(UnknownName, match="resid_post:0, resid_post:1, resid_post:5"):
        store.values("resid_post:2")


def test_true_is_not_one_and_none_is_absent(tmp_path):
    records = prompt_records(4)
    for record, flag in zip(records, (True, 1, None, "1"), strict=True):
        record["tags"]["flag"] = flag
    store = filled_store(tmp_path / "s", 4, prompts=records)
    assert {name for name in store.where(flag=True).prompt_ids} == {"p0"}
    assert {name for name in store.where(flag=1).prompt_ids} == {"p1"}
    assert {name for name in store.where(flag=None).prompt_ids} == {"p2"}


def test_difference_joins_by_id_even_when_the_order_differs(store):
    """The tuned rows of each unit stand in reverse: pairing by place would subtract other prompts."""
    shift = store.difference("tuned", "base")
    assert shift.matched == len(shift) == 10
    assert set(shift.variants) == {"tuned-base"}
    for layer in LAYERS:
        values = shift.values(f"resid_post:{layer}")
        for i, prompt in enumerate(shift.prompt_ids):
            np.testing.assert_array_equal(values[i], expected(prompt, "tuned", layer) - expected(prompt, "base", layer))
    calm = shift.where(label="calm")
    assert calm.matched == 5 and set(calm.labels) == {"calm"}
    np.testing.assert_array_equal(np.concatenate(list(shift.batches("resid_post:0", 3))), shift.values("resid_post:0"))


def test_difference_counts_what_found_no_partner_and_refuses_none(tmp_path):
    store = new_store(tmp_path / "s", 4)
    unit = store.missing()[0]
    whole = block(unit)
    keep = [0, 1, 2, 3, 5, 6]  # base of all four, tuned of p1 and p2
    part = Block(
        whole.values[:, keep],
        [whole.prompt_id[i] for i in keep],
        [whole.variant[i] for i in keep],
        np.asarray(whole.position)[keep],
        np.asarray(whole.token_id)[keep],
    )
    store.commit(unit, {"resid_post": part})
    shift = store.difference("tuned", "base")
    assert shift.prompt_ids == ["p1", "p2"]
    assert shift.info["pairs"]["resid_post"] == {"matched": 2, "tuned": 2, "base": 4, "other_token": 0}
    with pytest.raises(NoRows, match="Variants here: 'base', 'tuned'"):
        store.difference("tuned", "elsewhere")
    with pytest.raises(ValueError, match="a difference already"):
        shift.difference("tuned", "base")


def test_streams_with_rows_of_their_own_are_never_mixed(tmp_path):
    """Text prompts have no image rows: the vision stream has fewer rows, and its lists of ids are its own."""
    vision = Stream("vision.resid_post", (0,), 3, "float16")
    store = new_store(tmp_path / "s", 8, streams=[stream(), vision])
    for number, unit in enumerate(store.missing()):
        n = 2 * number  # the first unit has none at all
        patches = Block(
            np.full((1, n, 3), number, np.float16), ["p4"] * n, ["base"] * n, np.arange(n), np.zeros(n, int)
        )
        store.commit(unit, {"resid_post": block(unit), "vision.resid_post": patches})
    assert store.verify() == []
    assert store.values("vision.resid_post:0").shape == (2, 3)
    with pytest.raises(StoreError, match=r"\.at\('resid_post'\) or \.at\('vision\.resid_post'\)"):
        _ = store.prompt_ids
    assert store.at("vision.resid_post").prompt_ids == ["p4", "p4"]
    assert len(store.at("resid_post:1")) == 16
    assert store.where(prompt_id="p1").streams == ("resid_post",)
    with pytest.raises(UnknownName, match="no stream|No stream"):
        store.at("audio")


def test_values_in_other_precisions(store):
    assert store.values("resid_post:0", np.float64).dtype == np.float64
    assert store.difference("tuned", "base").values("resid_post:0", "float16").dtype == np.float16
    with pytest.raises(ValueError, match="floating-point"):
        store.values("resid_post:0", int)


# Refusals


def test_opening_nothing_says_so(tmp_path):
    with pytest.raises(StoreMissing, match=r"holds no store: expected store\.json"):
        ActivationStore.open(tmp_path)
    with pytest.raises(NoRows, match="0 of 3 units"):
        len(new_store(tmp_path / "s"))


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
    with pytest.raises(StoreMismatch, match="Prompt 'p3' differs(.|\n)*sha256"):
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
        (dict(position=np.zeros(8)), "position has dtype float64"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(tmp_path, change, message):
    store = new_store(tmp_path / "s")
    unit = store.missing()[0]
    good = block(unit)
    with pytest.raises(ValueError, match=message):
        store.commit(unit, {"resid_post": Block(**{**good.__dict__, **change})})
    assert store.missing()[0] == unit and store.commit(unit, {"resid_post": good})


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


# Without torch


def imported_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_stores_need_no_torch():
    assert not imported_by("import stores, stores.store, stores.results") & {"torch", "transformers", "pandas", "hooks"}


def test_the_torch_check_can_fail():
    assert "torch" in imported_by("import stores.store, types; sys.modules['torch'] = types.ModuleType('torch')")
