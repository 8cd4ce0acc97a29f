"""Flipped bits, truncated shards and changed manifests are found before a number of them is used."""

from __future__ import annotations

import os

import numpy as np
import pytest
from store_samples import D_MODEL, block, everything, filled_store, new_store, reseal, shards

from stores import ActivationStore, StoreCorrupted, StoreError, StoreMismatch


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
        except StoreError as error:
            assert "ype-check" not in str(error), "our own mistake, taken for damage"
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
    assert store.verify(deep=True) == []


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
    (line,) = store.verify(deep=True)
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
    truth = everything(filled_store(tmp_path / "s").path)
    shard = shards(tmp_path / "s")[0]
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(StoreCorrupted, match="delete this shard"):
        everything(tmp_path / "s")
    shard.unlink()
    store = new_store(tmp_path / "s")
    for unit in store.missing():
        store.commit(unit, {"resid_post": block(unit)})
    assert everything(tmp_path / "s") == truth and store.verify(deep=True) == []


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('"last"', '"all"', StoreCorrupted),
        ('"format_version": 2', '"format_version": 99', StoreMismatch),
        ('"format_version": 2', '"format_version": true', StoreMismatch),
        ('"format_version": 2', '"format_version": 0', StoreMismatch),
        ('"format": "', '"format": "x', StoreMismatch),
        ('"kind": "activations"', '"kind": "results"', StoreMismatch),
        ('"streams"', '"streets"', StoreCorrupted),
        ('"digest"', '"digits"', StoreCorrupted),
        ("{", "[", StoreCorrupted),
    ],
)
def test_a_changed_manifest_is_refused(tmp_path, old, new, error):
    """As it was changed, by its digest; and with a digest that fits, by what it says."""
    manifest = filled_store(tmp_path / "s", 4).path / "store.json"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new, 1))
    with pytest.raises(StoreError, match=r"store\.json"):
        ActivationStore.open(tmp_path / "s")
    reseal(manifest)
    with pytest.raises(error, match=r"store\.json"):
        ActivationStore.open(tmp_path / "s")
