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
    prompt_records,
    shards,
    stream,
)

from stores import (
    ActivationStore,
    Block,
    NoRows,
    StoreError,
    Stream,
    Unit,
    UnknownName,
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
    assert set(store.where(flag=True).prompt_ids) == {"p0"}
    assert set(store.where(flag=1).prompt_ids) == {"p1"}
    assert set(store.where(flag=None).prompt_ids) == {"p2"}


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
    assert store.verify(deep=True) == []
    assert store.values("vision.resid_post:0").shape == (2, 3)
    with pytest.raises(StoreError, match=r"\.at\('resid_post'\) or \.at\('vision\.resid_post'\)"):
        _ = store.prompt_ids
    assert store.at("vision.resid_post").prompt_ids == ["p4", "p4"]
    assert len(store.at("resid_post:1")) == 16
    assert store.where(prompt_id="p1").streams == ("resid_post",)
    with pytest.raises(UnknownName, match="No stream 'audio'"):
        store.at("audio")


def test_values_in_other_precisions(store):
    assert store.values("resid_post:0", np.float64).dtype == np.float64
    assert store.difference("tuned", "base").values("resid_post:0", "float16").dtype == np.float16
    with pytest.raises(ValueError, match="floating-point"):
        store.values("resid_post:0", int)


# Without torch


def imported_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_stores_need_no_torch():
    assert not imported_by("import stores, stores.store, stores.results") & {"torch", "transformers", "pandas", "hooks"}


def test_the_torch_check_can_fail():
    assert "torch" in imported_by("import stores.store, types; sys.modules['torch'] = types.ModuleType('torch')")
