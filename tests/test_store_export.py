"""Exports: one sealed file, NumPy files, an index of virtual datasets, xarray. Equal bits come out."""

from __future__ import annotations

import csv
import errno
import json
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from store_samples import D_MODEL, LAYERS, block, expected, filled_store, new_store, shards, stream

from stores import ActivationStore, Block, NotFinite, ResultTable, StoreCorrupted, Unit, one_file, safe_h5
from stores.exporting import export_store, index_store
from stores.shard import check_chunks, read_index

DTYPES = ("float32", "float16", "bfloat16")


def two_streams(path: Path, dtype: str) -> ActivationStore:
    """The samples' rows, and image patches with rows of their own: none in the first unit, 301 in the second."""
    store = new_store(path, 8, dtype, streams=[stream(dtype), stream(dtype, "vision.resid_post")])
    for i, unit in enumerate(store.missing()):
        good = block(unit, dtype)
        rows = 301 * i
        patches = np.tile(good.values[:, :1], (1, rows, 1))
        more = Block(patches, [unit.prompt_ids[0]] * rows, ["base"] * rows, range(rows), [9] * rows)
        store.commit(unit, {"resid_post": good, "vision.resid_post": more})
    return store


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_file_holds_every_bit_and_is_sealed(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(one_file, "_PIECE_ROWS", 128)
    store = two_streams(tmp_path / "s", dtype)
    file = export_store(store, tmp_path / "all.h5")
    with safe_h5.opened(file) as opened:
        for layout in store._folder.manifest.streams:
            index = read_index(opened, layout)
            assert index.prompt_id == store.at(layout.name).prompt_ids
            assert index.variant == store.at(layout.name).variants
            check_chunks(index, layout)
    with h5py.File(file, locking=False) as outside:
        for name in store.streams:
            for i, layer in enumerate(LAYERS):
                read = outside[f"activations/{name}/values"].astype("f4")[i]
                np.testing.assert_array_equal(read, store.values(f"{name}:{layer}"))
        assert outside["activations/resid_post/values"].attrs["torch_dtype"] == dtype.encode()
        assert b'"scope": "last"' in outside.attrs["spec"] and outside.attrs["unit"] == b"export"
        records = bytes(outside["prompts"][()]).decode().splitlines()
    assert [json.loads(record) for record in records] == list(store.prompts.values())
    assert list(tmp_path.iterdir()) == [tmp_path / "s", file] or sorted(p.name for p in tmp_path.iterdir()) == [
        "all.h5",
        "s",
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", DTYPES)
def test_xarray_names_what_is_in_an_export(tmp_path, dtype):
    store = filled_store(tmp_path / "s", dtype=dtype)
    export_store(tmp_path / "s", tmp_path / "all.h5")
    with xarray.open_dataset(tmp_path / "all.h5", engine="h5netcdf", group="activations/resid_post") as data:
        assert dict(data.sizes) == {"layer": len(LAYERS), "row": 20, "d_model": D_MODEL}
        np.testing.assert_array_equal(data["values"].sel(layer=5).values, store.values("resid_post:5"))
        assert [text.decode() for text in data["label"].values] == store.labels
        assert data["tag_topic"].values.tolist() == store.tag("topic")
        assert [text.decode() for text in data["tag_kind"].values] == ["ü"] * 20


def test_to_xarray_has_the_same_names_in_memory(tmp_path, monkeypatch):
    store = two_streams(tmp_path / "s", "bfloat16")
    data = store.to_xarray("resid_post")
    assert data["values"].dims == ("layer", "row", "d_model") and data["layer"].values.tolist() == list(LAYERS)
    one = data.sel(layer=5).isel(row=3)
    truth = expected(str(one["prompt_id"].item()), str(one["variant"].item()), 5)
    np.testing.assert_array_equal(one["values"], truth)
    assert data["label"].values.tolist() == store.at("resid_post").labels and data.attrs["scope"] == "last"
    loud = data.isel(row=data["label"].values == "loud")
    assert loud.sizes["row"] == 8 and set(loud["tag_topic"].values) == {0, 1, 2}
    assert store.to_xarray("vision.resid_post", np.float64)["values"].dtype == np.float64
    with pytest.raises(ValueError, match="name one of resid_post, vision"):
        store.to_xarray()
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match="pip install xarray"):
        store.to_xarray("resid_post")


@pytest.mark.parametrize("to", ["float32", "float16"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_other_dtypes_are_exact_where_they_can_be(tmp_path, dtype, to):
    """The samples are halves below 32: exact in all of them."""
    store = filled_store(tmp_path / "s", dtype=dtype)
    with h5py.File(export_store(store, tmp_path / "x.h5", dtype=to), locking=False) as file:
        assert file["activations/resid_post/values"].dtype == np.dtype(to)
        np.testing.assert_array_equal(file["activations/resid_post/values"][1], store.values("resid_post:1"))


def test_what_float16_cannot_hold_is_refused(tmp_path):
    store = new_store(tmp_path / "s", 4)
    (unit,) = store.missing()
    good = block(unit)
    good.values[1, 0, 0] = 70000.0
    store.commit(unit, {"resid_post": good})
    for form in ("hdf5", "numpy"):
        with pytest.raises(NotFinite, match=r"resid_post:1: 1 values are too large for float16.*float32"):
            export_store(store, tmp_path / "x", form=form, dtype="float16")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]


def test_arrays_for_numpy_and_a_line_a_row(tmp_path):
    store = two_streams(tmp_path / "s", "bfloat16")
    folder = export_store(store, tmp_path / "x", form="numpy")
    for name in store.streams:
        lines = [json.loads(line) for line in (folder / f"{name}.rows.jsonl").read_text().splitlines()]
        chosen = store.at(name)
        assert [line["prompt_id"] for line in lines] == chosen.prompt_ids
        assert [line["row"] for line in lines] == list(range(len(chosen)))
        assert [line["position"] for line in lines] == chosen.positions.tolist()
        assert [(line["label"], line["tags"]) for line in lines] == [
            (store.prompts[p]["label"], store.prompts[p]["tags"]) for p in chosen.prompt_ids
        ]
        for layer in LAYERS:
            array = np.load(folder / f"{name}.{layer}.npy", mmap_mode="r")
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, chosen.values(f"{name}:{layer}"))
    half = filled_store(tmp_path / "h", dtype="float16")
    assert np.load(export_store(half, tmp_path / "y", form="numpy") / "resid_post.0.npy").dtype == np.float16


ROWS = [{"text": 'ü,\n"x"', "n": 1, "x": 0.5, "b": True}, {"text": None, "n": None, "x": float("inf"), "b": False}]


@pytest.fixture
def table(tmp_path) -> ResultTable:
    table = ResultTable.create(tmp_path / "t", spec={"a": 1}, plan=["u", "v"], provenance={})
    for key, row in zip(table.plan, ROWS, strict=True):
        table.commit(key, [row])
    return table


def test_tables_go_into_one_file_and_into_plain_ones(tmp_path, table):
    from stores.columns import read_table

    with safe_h5.opened(export_store(table, tmp_path / "t.h5")) as file:
        columns = read_table(file)
        assert [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] == ROWS
    folder = export_store(tmp_path / "t", tmp_path / "plain", form="numpy")
    assert [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()] == ROWS
    with (folder / "rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [ROWS[0]["text"], ""] and [row["n"] for row in rows] == ["1", ""]


def test_an_export_replaces_nothing(tmp_path, table):
    (tmp_path / "there").write_text("mine")
    for form in ("hdf5", "numpy"):
        with pytest.raises(FileExistsError, match="expected a new name"):
            export_store(table, tmp_path / "there", form=form)
    assert (tmp_path / "there").read_text() == "mine"
    with pytest.raises((ValueError, TypeError)):  # what checks types while tests run sees it first
        export_store(table, tmp_path / "x", form="parquet")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("form", ["hdf5", "numpy"])
def test_a_damaged_store_gives_no_export(tmp_path, form):
    store = filled_store(tmp_path / "s")
    data = bytearray(shards(store.path)[0].read_bytes())
    data[2000] ^= 1
    shards(store.path)[0].write_bytes(data)
    with pytest.raises(StoreCorrupted):
        export_store(store, tmp_path / "x", form=form)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]


@pytest.mark.parametrize("form", ["hdf5", "numpy"])
def test_a_full_disk_leaves_nothing(tmp_path, form, monkeypatch):
    store = filled_store(tmp_path / "s")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stores.publish.write_at", full)
    with pytest.raises(OSError, match="No space left"):
        export_store(store, tmp_path / "x", form=form)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_index_shows_the_store_as_one_file_and_moves_with_it(tmp_path, dtype):
    store = two_streams(tmp_path / "s", dtype)
    assert index_store(store) == tmp_path / "s" / "index.h5" and store.verify(deep=True) == []
    index_store(tmp_path / "s")  # made anew
    moved = tmp_path / "elsewhere" / "s"
    shutil.copytree(tmp_path / "s", moved)
    shutil.rmtree(tmp_path / "s")
    store = ActivationStore.open(moved)
    with h5py.File(moved / "index.h5", locking=False) as file:
        for name in store.streams:
            group = file[f"activations/{name}"]
            assert group["values"].is_virtual
            assert all(not source.file_name.startswith("/") for source in group["values"].virtual_sources())
            for i, layer in enumerate(LAYERS):
                np.testing.assert_array_equal(group["values"].astype("f4")[i], store.values(f"{name}:{layer}"))
            assert [text.decode() for text in group["prompt_id"]] == store.at(name).prompt_ids
    with xarray.open_dataset(moved / "index.h5", engine="h5netcdf", group="activations/resid_post") as data:
        assert data["values"].dims == ("layer", "row", "d_model")


def test_a_row_of_a_lost_shard_is_no_number_in_the_index(tmp_path):
    store = filled_store(tmp_path / "s")
    index_store(store)
    shards(store.path)[0].unlink()
    with h5py.File(store.path / "index.h5", locking=False) as file:
        lost = np.isnan(file["activations/resid_post/values"][0]).all(axis=1)
    assert 0 < lost.sum() < 20


def test_tags_too_long_for_a_column_stand_in_the_records(tmp_path):
    records = [{"id": "a", "label": None, "tags": {"text": "x" * 1000, "n/m": 1, "flag": True}, "sha256": None}]
    store = new_store(tmp_path / "s", prompts=records, plan=[Unit("u", ("a",))])
    values = np.zeros((len(LAYERS), 1, D_MODEL), np.float32)
    store.commit(store.plan[0], {"resid_post": Block(values, ["a"], ["base"], [0], [0])})
    with h5py.File(export_store(store, tmp_path / "x.h5"), locking=False) as file:
        assert set(file["activations/resid_post"]) >= {"label", "tag_flag"}
        assert not {"tag_text", "tag_n"} & set(file["activations/resid_post"])
        assert json.loads(bytes(file["prompts"][()])) == records[0]
