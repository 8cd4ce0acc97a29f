"""Hostile files are refused by name before a value of them is read."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hostile_files import HOSTILE, LOADERS, SOUND
from store_samples import everything, filled_store, shards

from stores import ActivationStore, Limits, ResultTable, StoreCorrupted, StoreError, StoreMissing, UnsafeFile, safe_h5

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("file", HOSTILE, ids=lambda file: file.name)
def test_hostile_files_are_refused_by_name(tmp_path, file):
    """Each by the door that reads its values; `tests/soak/hostile.py` tries them at every door, and measures."""
    loader = next(loader for loader in LOADERS if file.kind in loader.meets)
    path = file.make(tmp_path)
    with pytest.raises(StoreError) as refused:
        loader.load(path)
    assert re.search(file.says, str(refused.value)), refused.value


@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.name)
def test_what_is_sound_is_read(tmp_path, loader):
    """The meta-test of the one above: no loader refuses everything."""
    for kind in loader.meets:
        (tmp_path / kind).mkdir()
        loader.load(SOUND[kind](tmp_path / kind))


def test_the_corpus_is_large_and_each_file_has_a_name_of_its_own():
    assert len({file.name for file in HOSTILE}) == len(HOSTILE) >= 60
    assert {file.kind for file in HOSTILE} <= {kind for loader in LOADERS for kind in loader.meets}


def test_a_harmless_file_passes(tmp_path):
    with h5py.File(tmp_path / "plain.h5", "w", libver="latest") as file:
        file.create_dataset("a/b", data=np.arange(6).reshape(2, 3), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("a/c", data=np.arange(600), chunks=(7,), fletcher32=True)
        file["flag"] = np.array([True, False])
        file["nothing"] = np.zeros((0, 3))
    with safe_h5.opened(tmp_path / "plain.h5") as file:
        assert file.children("/") == ["a", "flag", "nothing"]
        np.testing.assert_array_equal(file.array("/a/b", (2, -1)), [[0, 1, 2], [3, 4, 5]])
        np.testing.assert_array_equal(file.array("/a/c", kinds="i"), np.arange(600))
        assert file.array("/flag").tolist() == [True, False] and file.array("/nothing").shape == (0, 3)
        with pytest.raises(StoreCorrupted, match=r"shape \(2, 3\), expected \(3, 2\)"):
            file.array("/a/b", (3, 2))
        with pytest.raises(StoreCorrupted, match="holds int64, expected one of the kinds 'S'"):
            file.array("/a/c", kinds="S")
        with pytest.raises(StoreCorrupted, match="/c is missing"):
            file.array("/c")
        with pytest.raises(StoreCorrupted, match="attribute 'x' of /a is missing"):
            file.text("x", "/a")


def test_a_boolean_is_true_or_false_whatever_its_byte(tmp_path):
    with h5py.File(tmp_path / "file.h5", "w", libver="latest") as file:
        file["flag"] = np.array([0, 7, 1], np.uint8).view(bool)
    with safe_h5.opened(tmp_path / "file.h5") as file:
        assert (file.array("/flag") == np.array([False, True, True])).all()


def test_attributes_are_one_text_or_refused(tmp_path):
    with h5py.File(tmp_path / "file.h5", "w", libver="latest") as file:
        file.attrs["good"], file.attrs["json"], file.attrs["deep"] = map(np.bytes_, (b"w\xc3\xb6rd", b"[1]", b"[" * 99))
        file.attrs["numbers"], file.attrs["texts"] = np.arange(3), np.array([b"a", b"b"])
        file.attrs["broken"] = np.bytes_(b"\xff")
    with safe_h5.opened(tmp_path / "file.h5") as file:
        assert file.text("good") == "wörd" and file.json("json") == [1]
        for name in ("numbers", "texts", "broken"):
            with pytest.raises(StoreCorrupted, match=r"not one text|cannot be read"):
                file.text(name)
        with pytest.raises(UnsafeFile, match="attribute 'deep' of / nests its JSON"):
            file.json("deep")


def test_only_regular_files_are_opened(tmp_path):
    filled_store(tmp_path / "s", 4)
    (tmp_path / "link.h5").symlink_to(shards(tmp_path / "s")[0])
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "folder.h5").mkdir()
    for name in ("link.h5", "pipe.h5", "folder.h5", "nul\0.h5"):
        with pytest.raises(UnsafeFile, match="regular file"), safe_h5.opened(tmp_path / name):
            pass
    with pytest.raises(StoreMissing), safe_h5.opened(tmp_path / "nothing.h5"):
        pass
    with pytest.raises(StoreCorrupted, match="not a readable HDF5 file"), safe_h5.opened(__file__):
        pass


def test_the_digest_is_looked_at_before_the_library_sees_a_byte(tmp_path, monkeypatch):
    shard = shards(filled_store(tmp_path / "s", 4).path)[0]
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    with safe_h5.opened(shard, sha256=digest) as file:
        assert file.groups
    monkeypatch.setattr(h5py, "File", None)
    with pytest.raises(StoreCorrupted, match=f"expected {'0' * 64}"), safe_h5.opened(shard, sha256="0" * 64):
        pass


def test_an_index_of_virtual_datasets_names_the_shards_it_may_read(tmp_path):
    filled_store(tmp_path / "s", 4)
    name = str(shards(tmp_path / "s")[0].relative_to(tmp_path / "s"))
    layout = h5py.VirtualLayout(shape=(3, 8, 24), dtype="f4")
    layout[:] = h5py.VirtualSource(name, "activations/resid_post/values", shape=(3, 8, 24))
    with h5py.File(index := tmp_path / "s" / "index.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("values", layout)
    with safe_h5.opened(index, sources=[name]) as file:
        assert file.declared["/values"].shape == (3, 8, 24)
        with pytest.raises(UnsafeFile, match="stores none"):
            file.array("/values")
    for sources in ((), ["shards/00/other.h5"]):
        with pytest.raises(UnsafeFile, match="virtual dataset"), safe_h5.opened(index, sources=sources):
            pass


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("dataset_bytes", 1000),
        ("chunk_bytes", 500),
        ("array_bytes", 60),
        ("attribute_bytes", 30),
        ("objects", 9),
        ("depth", 1),
    ],
)
def test_limits_are_options_of_open(tmp_path, name, most):
    path = filled_store(tmp_path / "s", 4).path
    assert len(ActivationStore.open(path, limits=Limits()).rows()) == 8
    with pytest.raises(UnsafeFile, match=r"expected at most|groups deep|more than 9 objects"):
        len(ActivationStore.open(path, limits=Limits(**{name: most})).rows())


def test_a_table_has_the_same_limits(tmp_path):
    table = ResultTable.create(tmp_path / "t", spec={}, plan=["a"], provenance={})
    table.commit("a", [{"x": i} for i in range(100)])
    with pytest.raises(UnsafeFile, match="declares 800 bytes, expected at most 799"):
        ResultTable.open(tmp_path / "t", limits=Limits(array_bytes=799)).rows()
    with pytest.raises(UnsafeFile, match=r"Limits\(text_bytes=...\)"):
        ResultTable.open(tmp_path / "t", limits=Limits(text_bytes=100))


def test_no_folder_is_searched_for_filters(tmp_path):
    """A file that names an unknown filter makes libhdf5 load what lies in these folders, and run it."""
    code = "import stores.safe_h5; from h5py import h5pl; print(h5pl.size())"
    environment = {**os.environ, "HDF5_PLUGIN_PATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "0"


def test_a_shard_replaced_by_a_link_is_refused(tmp_path):
    path = filled_store(tmp_path / "s", 4).path
    shard = shards(path)[0]
    shard.rename(tmp_path / "elsewhere.h5")
    shard.symlink_to(tmp_path / "elsewhere.h5")
    with pytest.raises(StoreError):
        everything(path)


def test_hdf5_is_opened_for_reading_by_the_one_door():
    """h5py.File is called there, and where files are laid out in memory, with mode "w"; nowhere else in the package."""
    readers = []
    for file in [*ROOT.glob("stores/*.py"), *ROOT.glob("workbench/**/*.py"), *ROOT.glob("hooks/**/*.py")]:
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        found = [call for call in calls if ast.unparse(call.func) in ("h5py.File", "File", "h5f.open")]
        if any([ast.unparse(argument) for argument in call.args[1:]] != ["'w'"] for call in found):
            readers.append(file.name)
    assert readers == ["safe_h5.py"]
