"""The one hash of a shard in the log: which it is, what it covers, and what verify finds by it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash
from store_samples import block, everything, filled_store, new_store, reseal_log, shards

from stores import ActivationStore, ResultTable, StoreError
from stores.seals import SHA256, TREE, Fact, Seal, fits, read_fact


def records(path: Path) -> list[dict]:
    return [json.loads(line) for log in sorted((path / "commits").iterdir()) for line in log.read_text().splitlines()]


def tree_by_hand(shard: Path) -> str:
    """xxh3-128 of the file without the chunks of its values, found by h5py."""
    data, spans = shard.read_bytes(), []
    with h5py.File(shard, "r", locking=False) as file:
        for group in file["activations"].values():
            group["values"].id.chunk_iter(lambda info: spans.append((info.byte_offset, info.size)))
    for offset, size in sorted(spans, reverse=True):
        data = data[:offset] + data[offset + size :]
    return xxhash.xxh3_128_hexdigest(data)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_log_says_which_hash_it_is(tmp_path, dtype):
    filled_store(tmp_path / "a", dtype=dtype)
    filled_store(tmp_path / "b", dtype=dtype, bulk=True)
    for record in records(tmp_path / "a"):
        assert record["sha256"] == hashlib.sha256((tmp_path / "a" / record["file"]).read_bytes()).hexdigest()
        assert "xxh3_128_tree" not in record
    for record in records(tmp_path / "b"):
        shard = tmp_path / "b" / record["file"]
        assert record["xxh3_128_tree"] == tree_by_hand(shard) and record["bytes"] == shard.stat().st_size
        assert "sha256" not in record
    assert [p.read_bytes() for p in shards(tmp_path / "a")] == [p.read_bytes() for p in shards(tmp_path / "b")]
    assert ActivationStore.open(tmp_path / "b").verify(deep=True) == [] and everything(tmp_path / "a") == everything(
        tmp_path / "b"
    )


def test_a_store_is_continued_with_another_seal(tmp_path):
    store = new_store(tmp_path / "s")
    first, *others = store.missing()
    store.commit(first, {"resid_post": block(first)})
    bulk = new_store(tmp_path / "s", bulk=True)
    assert bulk.missing() == others
    for unit in others:
        bulk.commit(unit, {"resid_post": block(unit)})
    sealed = sorted("sha256" in record for record in records(tmp_path / "s"))
    assert sealed == [False, False, True] and bulk.verify(deep=True) == []


def test_who_was_second_logs_the_shard_that_stands(tmp_path):
    """Not the one that it would have written."""
    one, two = new_store(tmp_path / "s", bulk=True), new_store(tmp_path / "s", bulk=True)
    unit = one.missing()[0]
    one.commit(unit, {"resid_post": block(unit)})
    changed = block(unit)
    changed.values[:] += 1
    assert two.commit(unit, {"resid_post": changed}) is False
    assert [record["xxh3_128_tree"] for record in records(tmp_path / "s")] == [
        tree_by_hand(shards(tmp_path / "s")[0])
    ] * 2


def test_no_flipped_bit_of_a_bulk_shard_passes_verify(tmp_path):
    """Every 37th byte of the file, whatever it is: value, padding, metadata, or a gap that nothing reads."""
    store = filled_store(tmp_path / "s", 4, "bfloat16", bulk=True)
    shard = shards(store.path)[0]
    whole = shard.read_bytes()
    for place in range(0, len(whole), 37):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        shard.write_bytes(damaged)
        assert store.verify(deep=True), f"byte {place}"
    shard.write_bytes(whole + b"\0")
    assert store.verify(deep=True)
    shard.write_bytes(whole)
    assert store.verify(deep=True) == []


def test_deep_adds_sha256_once_and_only_to_sound_shards(tmp_path):
    store = filled_store(tmp_path / "s", bulk=True)
    broken = shards(store.path)[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert len(store.verify(deep=True)) == 1 and len(records(store.path)) == 5
    broken.write_bytes(whole)
    assert store.verify(deep=True) == [] and store.verify(deep=True) == [] and len(records(store.path)) == 6
    for record in records(store.path)[-3:]:
        if "sha256" in record:
            assert record["sha256"] == hashlib.sha256((store.path / record["file"]).read_bytes()).hexdigest()
    for log in (store.path / "commits").iterdir():
        log.unlink()
    again = ActivationStore.open(store.path)
    assert (
        again.verify(deep=True) == []
        and [set(record) >= {"sha256", "bytes"} for record in records(store.path)] == [True] * 3
    )
    assert ActivationStore.open(store.path).verify(deep=True) == []


def forged(path: Path) -> None:
    """The shard of another value under the same name, and a log that has the right xxh3 of it, as a forger would."""
    (line,) = records(path)
    shard = path / line["file"]
    sample = new_store(path.parent / "other", 4, spec={"model": "tiny", "scope": "last"}, bulk=True)
    unit = sample.missing()[0]
    changed = block(unit)
    changed.values[0, 0, 0] += 1
    sample.commit(unit, {"resid_post": changed})
    shard.write_bytes(shards(sample.path)[0].read_bytes())
    log = next((path / "commits").iterdir())
    log.write_text(log.read_text().replace(line["xxh3_128_tree"], records(sample.path)[0]["xxh3_128_tree"]))
    reseal_log(log)


def test_a_shard_forged_to_keep_its_xxh3_is_found_once_its_sha256_is_known(tmp_path):
    """A collision of xxh3 is played by changing it in the log; before `deep` nothing can tell."""
    filled_store(tmp_path / "a" / "s", 4, bulk=True)
    forged(tmp_path / "a" / "s")
    assert ActivationStore.open(tmp_path / "a" / "s").verify(deep=True) == []
    sound = filled_store(tmp_path / "b" / "s", 4, bulk=True)
    only = records(sound.path)
    sound.verify(deep=True)
    log = next((sound.path / "commits").iterdir())
    deep = [line for line in log.read_text().splitlines() if "sha256" in line]
    log.write_text(json.dumps(only[0]) + "\n")
    forged(sound.path)
    came = records(sound.path)[0]["xxh3_128_tree"]
    with log.open("a") as file:
        file.write("\n".join(deep).replace(only[0]["xxh3_128_tree"], came) + "\n")
    reseal_log(log)
    (line,) = ActivationStore.open(sound.path).verify(deep=True)
    assert "not those that were committed" in line


def fact(size: int = 1, **digests: str) -> Fact:
    return Fact(size, frozenset(digests.items()))


@pytest.mark.parametrize(
    ("came", "logged", "good"),
    [
        (fact(sha256="a"), [fact(sha256="a")], True),
        (fact(sha256="a"), [fact(sha256="b")], False),
        (fact(sha256="a"), [fact(2, sha256="a")], False),
        (fact(sha256="a"), [fact(sha256="b"), fact(sha256="a")], True),  # lost and made anew
        (fact(sha256="a", xxh3_128_tree="x"), [fact(xxh3_128_tree="x")], True),
        (fact(sha256="a", xxh3_128_tree="x"), [fact(xxh3_128_tree="x"), fact(sha256="b", xxh3_128_tree="x")], False),
        (fact(sha256="a", xxh3_128_tree="x"), [fact(sha256="b", xxh3_128_tree="y"), fact(xxh3_128_tree="x")], True),
        (fact(sha256="a", xxh3_128_tree="x"), [fact(sha256="a", xxh3_128_tree="y")], False),
    ],
)
def test_what_fits_a_log(came, logged, good):
    assert fits(came, logged) is good


@pytest.mark.parametrize("size", [0, 1, 100, (1 << 20) + 7, 3 << 20])
def test_a_file_is_read_as_it_was_sealed(tmp_path, size):
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    (tmp_path / "x").write_bytes(data)
    spans = [(size // 2, size // 4), (size // 8, size // 8)]
    outside = b"".join(
        data[a:b] for a, b in ((0, size // 8), (size // 8 * 2, size // 2), (size // 2 + size // 4, size))
    )
    came = dict(read_fact(tmp_path / "x", {SHA256, TREE}, [s for s in spans if s[1]]).digests)
    if size // 8 * 2 <= size // 2:
        assert came[TREE] == xxhash.xxh3_128_hexdigest(outside)
    assert came[SHA256] == hashlib.sha256(data).hexdigest()
    seal = Seal(SHA256)
    seal.update(data, values=True)
    assert (
        seal.needs_values
        and not Seal(TREE).needs_values
        and seal.fact == Fact(size, frozenset({(SHA256, hashlib.sha256(data).hexdigest())}))
    )


def test_a_digest_of_a_later_version_is_passed_over(tmp_path):
    """Its shard is then known by the identity inside, as if the log were lost."""
    store = filled_store(tmp_path / "s")
    log = next((store.path / "commits").iterdir())
    log.write_text(log.read_text().replace("sha256", "blake9"))
    reseal_log(log)
    again = ActivationStore.open(store.path)
    assert again.missing() == [] and again.verify() == []
    shards(store.path)[0].write_bytes(b"x" * shards(store.path)[0].stat().st_size)
    with pytest.raises(StoreError):
        ActivationStore.open(store.path).missing()


def test_results_are_sealed_with_sha256(tmp_path):
    table = ResultTable.create(tmp_path / "t", spec={}, plan=["a"], provenance={})
    table.commit("a", [{"x": 1}])
    (record,) = records(tmp_path / "t")
    assert record["sha256"] == hashlib.sha256(shards(tmp_path / "t")[0].read_bytes()).hexdigest()
    assert table.verify(deep=True) == []
