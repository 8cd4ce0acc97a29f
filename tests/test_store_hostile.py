"""Hostile files are refused by name before a value of them is read."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from store_samples import everything, filled_store, shards

from stores import StoreCorrupted, StoreError, StoreMissing, UnsafeFile, safe_h5


def external_link(file: h5py.File, secret: Path) -> None:
    file["activations"] = h5py.ExternalLink(str(secret), "/")


def external_link_inside(file: h5py.File, secret: Path) -> None:
    file.create_group("activations/deep")["x"] = h5py.ExternalLink(str(secret), "/")


def soft_link(file: h5py.File, secret: Path) -> None:
    file["real"] = np.arange(3)
    file["alias"] = h5py.SoftLink("/real")


def hard_alias(file: h5py.File, secret: Path) -> None:
    file["real"] = np.arange(3)
    file["alias"] = file["real"]


def hard_cycle(file: h5py.File, secret: Path) -> None:
    inner = file.create_group("a/b")
    inner["a"] = file["a"]


def external_storage(file: h5py.File, secret: Path) -> None:
    file.create_dataset("x", shape=(8,), dtype="u1", external=[(str(secret), 0, 8)])


def virtual_dataset(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout(shape=(3,), dtype="i8")
    layout[:] = h5py.VirtualSource(str(secret), "real", shape=(3,))
    file.create_virtual_dataset("x", layout)


def giant_shape(file: h5py.File, secret: Path) -> None:
    file.create_dataset("x", shape=(1 << 40,), dtype="f8", chunks=(1 << 10,))


def bomb(file: h5py.File, secret: Path) -> None:
    file.create_dataset("x", shape=(1 << 31,), dtype="u1", chunks=(1 << 20,), compression="gzip")


def giant_chunk(file: h5py.File, secret: Path) -> None:
    file.create_dataset("x", shape=(1 << 29,), dtype="u1", chunks=(1 << 29,), compression="gzip")


def unknown_filter(file: h5py.File, secret: Path) -> None:
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk((8,))
    plist.set_filter(32013, h5py.h5z.FLAG_OPTIONAL, (1,))
    h5d.create(file.id, b"x", h5t.NATIVE_INT8, h5s.create_simple((8,)), plist)


def variable_text(file: h5py.File, secret: Path) -> None:
    file.create_dataset("x", data=["a", "b"], dtype=h5py.string_dtype())


def compound(file: h5py.File, secret: Path) -> None:
    file.create_dataset("x", data=np.zeros(2, dtype=[("a", "i4"), ("b", "f4")]))


def reference(file: h5py.File, secret: Path) -> None:
    file.create_dataset("x", data=np.array([file.ref], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)


def opaque(file: h5py.File, secret: Path) -> None:
    file.create_dataset("x", data=np.zeros(2, dtype="V8"))


def named_type(file: h5py.File, secret: Path) -> None:
    file["x"] = np.dtype("i4")


def giant_attribute(file: h5py.File, secret: Path) -> None:
    file.attrs["x"] = np.zeros(1 << 18, dtype="f8")


def ragged_attribute(file: h5py.File, secret: Path) -> None:
    file.attrs["x"] = "text of variable length"


def deep_groups(file: h5py.File, secret: Path) -> None:
    file.create_group("/".join("g" * 40))


HOSTILE = {
    external_link: "external link",
    external_link_inside: "external link",
    soft_link: "soft link",
    hard_alias: "second name",
    hard_cycle: "second name",
    external_storage: "external raw storage",
    virtual_dataset: "virtual dataset",
    giant_shape: "declares 8796093022208 bytes",
    bomb: "stores 0",
    giant_chunk: "chunks of 536870912 bytes",
    unknown_filter: "filter 32013",
    variable_text: "type that shards never hold",
    compound: "type that shards never hold",
    reference: "type that shards never hold",
    opaque: "type that shards never hold",
    named_type: "neither group nor dataset",
    giant_attribute: "2097152 bytes",
    ragged_attribute: "attribute b'x'",
    deep_groups: "groups deep",
}


@pytest.fixture
def secret(tmp_path) -> Path:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["real"] = np.arange(3)
    return tmp_path / "secret.h5"


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_hostile_files_are_refused_by_name(tmp_path, secret, make, libver):
    if make is giant_attribute and libver == "earliest":
        pytest.skip("that file format holds no attribute above 64 KiB; the other format is tried")
    with h5py.File(tmp_path / "hostile.h5", "w", libver=libver) as file:
        make(file, secret)
    with pytest.raises(UnsafeFile, match=HOSTILE[make]), safe_h5.opened(tmp_path / "hostile.h5"):
        pass


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_the_store_reads_through_the_same_door(tmp_path, secret, make):
    """The hostile thing is added to a shard that is whole otherwise, where a log has no say."""
    path = filled_store(tmp_path / "s", 4).path
    for log in (path / "commits").iterdir():
        log.unlink()
    with h5py.File(shards(path)[0], "r+", libver="latest") as file:
        make(file.require_group("more") if make is not external_link else file.create_group("more"), secret)
    with pytest.raises(UnsafeFile, match=HOSTILE[make]):
        everything(path)


def test_a_harmless_file_passes(tmp_path):
    """The meta-test of the two above: the door does open."""
    with h5py.File(tmp_path / "plain.h5", "w", libver="latest") as file:
        file.create_dataset("a/b", data=np.arange(6).reshape(2, 3), compression="gzip", shuffle=True, fletcher32=True)
        file["flag"] = np.array([True, False])
    with safe_h5.opened(tmp_path / "plain.h5") as file:
        assert file.children("/") == ["a", "flag"]
        np.testing.assert_array_equal(file.array("/a/b", (2, -1)), [[0, 1, 2], [3, 4, 5]])
        assert file.array("/flag").tolist() == [True, False]
        with pytest.raises(StoreCorrupted, match=r"shape \(2, 3\), expected \(3, 2\)"):
            file.array("/a/b", (3, 2))
        with pytest.raises(StoreCorrupted, match="/c is missing"):
            file.array("/c")


def test_only_regular_files_are_opened(tmp_path, secret):
    (tmp_path / "link.h5").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "folder.h5").mkdir()
    for name in ("link.h5", "pipe.h5", "folder.h5"):
        with pytest.raises(UnsafeFile, match="regular file"), safe_h5.opened(tmp_path / name):
            pass
    with pytest.raises(StoreMissing), safe_h5.opened(tmp_path / "nothing.h5"):
        pass
    with pytest.raises(StoreCorrupted, match="not a readable HDF5 file"), safe_h5.opened(__file__):
        pass


def test_a_shard_replaced_by_a_link_is_refused(tmp_path):
    path = filled_store(tmp_path / "s", 4).path
    shard = shards(path)[0]
    shard.rename(tmp_path / "elsewhere.h5")
    shard.symlink_to(tmp_path / "elsewhere.h5")
    with pytest.raises(StoreError):
        everything(path)


def test_no_other_file_of_the_room_opens_hdf5_for_reading():
    """h5py.File is called in the one door, and where shards are laid out in memory, with mode "w"."""
    room = Path(safe_h5.__file__).parent
    opened = {}
    for file in room.glob("*.py"):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        found = [call for call in calls if ast.unparse(call.func) == "h5py.File"]
        if found:
            opened[file.name] = [[ast.unparse(argument) for argument in call.args] for call in found]
    assert set(opened) == {"safe_h5.py", "sealing.py", "columns.py"}
    assert opened["sealing.py"] == [["skeleton", "'w'"]] and opened["columns.py"] == [["buffer", "'w'"]]
