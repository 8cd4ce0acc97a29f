"""Flipped bits are found, and hostile files are refused by name before a value of them is read."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from store_samples import D_MODEL, filled_store, new_store, shards

from stores import ActivationStore, StoreCorrupted, StoreError, StoreMismatch, StoreMissing, UnsafeFile, safe_h5

# Damage


def everything(path: Path) -> dict[str, object]:
    store = ActivationStore.open(path)
    lists = {"ids": store.prompt_ids, "variants": store.variants, "positions": store.positions.tolist()}
    values = {site: store.values(site).tobytes() for site in store.sites}
    return {**lists, "tokens": store.token_ids.tolist(), **values}


@pytest.mark.parametrize("with_log", [True, False])
def test_no_bit_flip_is_silent(tmp_path, with_log):
    """400 flips over all bytes of a shard, metadata included: an error, or exactly the numbers that were stored."""
    path = filled_store(tmp_path / "s", 4, "bfloat16").path
    if not with_log:
        for log in (path / "commits").iterdir():
            log.unlink()
    truth, shard = everything(path), shards(path)[0]
    whole = shard.read_bytes()
    chance = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        place, bit = int(chance.integers(len(whole))), int(chance.integers(8))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        shard.write_bytes(damaged)
        try:
            assert everything(path) == truth, f"bit {bit} of byte {place}: other numbers, and no error"
        except StoreError:
            found += 1
    assert found > 100  # the rest hit unused bytes; with none found the test would prove nothing
    shard.write_bytes(whole)
    assert everything(path) == truth


def test_every_byte_of_the_values_is_guarded(tmp_path):
    """Larger values, flips in them only: every single one is an error that names file and chunk."""
    store = filled_store(tmp_path / "s", 4)
    shard = shards(store.path)[0]
    whole = shard.read_bytes()
    index = next(iter(store._indexes_of(*store._folder.committed()[0]).values()))
    size = index.chunk_rows * D_MODEL * 4
    chance = np.random.default_rng(1)
    for _ in range(300):
        layer = int(chance.integers(3))
        damaged = bytearray(whole)
        damaged[int(index.offsets[layer, 0]) + int(chance.integers(size))] ^= 1 << int(chance.integers(8))
        shard.write_bytes(damaged)
        with pytest.raises(StoreCorrupted, match=rf"(?s){shard.name}: chunk 0 .* of resid_post:.*delete this shard"):
            store.values(f"resid_post:{(0, 1, 5)[layer]}")
    shard.write_bytes(whole)
    assert store.verify() == []


def test_damage_behind_an_open_store_is_found_on_the_next_read(tmp_path):
    """Same size, same time stamp, after a first read: the index is cached, the values are not."""
    store = filled_store(tmp_path / "s", 4)
    store.values("resid_post:0")
    shard = shards(store.path)[0]
    status, whole = shard.stat(), bytearray(shard.read_bytes())
    place = whole.find(store.values("resid_post:0").tobytes()[:64])
    whole[place] ^= 1
    shard.write_bytes(whole)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(StoreCorrupted, match="chunk 0"):
        store.values("resid_post:0")
    (line,) = store.verify()
    assert "not those that were committed" in line and shard.name in line


@pytest.mark.parametrize("share", [0.999, 0.5, 0.01, 0.0])
@pytest.mark.parametrize("with_log", [True, False])
def test_truncated_shards_are_refused(tmp_path, share, with_log):
    path = filled_store(tmp_path / "s", 4).path
    shard = shards(path)[0]
    shard.write_bytes(shard.read_bytes()[: int(share * shard.stat().st_size)])
    if not with_log:
        for log in (path / "commits").iterdir():
            log.unlink()
    with pytest.raises(StoreCorrupted, match=shard.name):
        everything(path)


def test_the_mend_in_the_message_mends(tmp_path):
    from store_samples import block

    truth = everything(filled_store(tmp_path / "s").path)
    shard = shards(tmp_path / "s")[0]
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(StoreCorrupted, match="delete this shard"):
        everything(tmp_path / "s")
    shard.unlink()
    store = new_store(tmp_path / "s")
    for unit in store.missing():
        store.commit(unit, {"resid_post": block(unit)})
    assert everything(tmp_path / "s") == truth and store.verify() == []


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('"last"', '"all"', StoreCorrupted),
        ('"format_version": 1', '"format_version": 99', StoreMismatch),
        ('"format": "', '"format": "x', StoreMismatch),
        ('"kind": "activations"', '"kind": "results"', StoreMismatch),
        ('"plan"', '"plans"', StoreCorrupted),
        ("{", "[", StoreCorrupted),
    ],
)
def test_a_changed_manifest_is_refused(tmp_path, old, new, error):
    manifest = filled_store(tmp_path / "s", 4).path / "store.json"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new, 1))
    with pytest.raises(error, match=r"store\.json"):
        ActivationStore.open(tmp_path / "s")


# Hostile files


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
    file.create_group("a/b")["a"] = file["a"]


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
    """h5py.File appears in the one door, and where shards are built in memory, with mode "w"."""
    room = Path(safe_h5.__file__).parent
    opens = {file.name: file.read_text().count("h5py.File(") for file in room.glob("*.py")}
    assert {name for name, count in opens.items() if count} == {"safe_h5.py", "shard.py", "columns.py"}
    for name in ("shard.py", "columns.py"):
        assert (room / name).read_text().count('h5py.File(buffer, "w"') == opens[name] == 1
