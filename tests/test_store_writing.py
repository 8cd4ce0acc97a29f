"""How shards are laid out and written: the bytes that h5py and other tools find, none of them through a copy."""

from __future__ import annotations

import hashlib
import io
import shutil
import tracemalloc
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import LAYERS, block, encoded, expected, filled_store, new_store, prompt_records, shards

from stores import ActivationStore, Block, NotFinite, Stream, Unit, schema
from stores.block import Codes
from stores.sealing import ActivationShard, _first_byte
from stores.seals import Seal
from stores.skeleton import Skeleton

GOLDEN = Path(__file__).parent / "golden" / "store_1"
DTYPES = ("float32", "float16", "bfloat16")


def one_unit(path: Path, values: np.ndarray, dtype: str, **changes) -> ActivationStore:
    """A store of one unit with these values, one row a prompt."""
    layers, rows, d_model = values.shape
    unit = Unit("u", tuple(f"p{i}" for i in range(rows)))
    streams = [Stream("resid_post", tuple(range(layers)), d_model, dtype)]
    store = new_store(path, rows, streams=streams, plan=[unit], **changes)
    store.commit(unit, {"resid_post": Block(values, unit.prompt_ids, ["base"] * rows, [0] * rows, [0] * rows)})
    return store


def random_values(layers: int, rows: int, d_model: int, dtype: str) -> np.ndarray:
    return encoded(np.random.default_rng(rows).normal(size=(layers, rows, d_model)).astype(np.float32), dtype)


# The layout


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 128, 129, 300])
def test_values_lie_in_unfiltered_chunks_one_behind_the_other(tmp_path, rows, dtype):
    """Row-major, aligned where they are large, so that any reader may map them; edge chunks are padded with zeros."""
    values = random_values(3, rows, 200, dtype)
    shard = shards(one_unit(tmp_path / "s", values, dtype).path)[0]
    data = shard.read_bytes()
    with h5py.File(shard, "r", locking=False) as file:
        dataset = file["activations/resid_post/values"]
        height = dataset.chunks[1]
        assert dataset.chunks[::2] == (1, 200) and dataset.id.get_create_plist().get_nfilters() == 0
        for name in ("layer", "prompt_id", "variant", "position", "token_id"):
            assert file[f"activations/resid_post/{name}"].fletcher32, "outside readers do not know our own hash of it"
        first = dataset.id.get_chunk_info_by_coord((0, 0, 0)).byte_offset
        np.testing.assert_array_equal(dataset.astype("f8")[()], ActivationStore.open(tmp_path / "s").at_all())
    count = -(-rows // height)
    padded = np.zeros((3, count * height, 200), values.dtype)
    padded[:, :rows] = values
    assert data[first : first + padded.nbytes] == padded.tobytes()
    assert padded.nbytes < 1 << 16 or first % 64 == 0


@pytest.fixture(autouse=True)
def at_all(monkeypatch):
    """All layers at once, for comparison with h5py."""
    whole = lambda store: np.stack([store.values(site, "f8") for site in store.sites])  # noqa: E731
    monkeypatch.setattr(ActivationStore, "at_all", whole, raising=False)


def test_a_file_ends_where_libhdf5_says(tmp_path):
    """Space behind the last byte that is written is part of the file, and of its seal."""
    stream = Stream("resid_post", (0,), 4, "float32")
    shard = ActivationShard(
        {}, [stream], {"resid_post": Block(np.ones((1, 2, 4), np.float32), "ab", "cc", [0, 0], [0, 0])}
    )
    shard.size += 5
    seal = Seal("sha256")
    with open(tmp_path / "x", "w+b") as file:
        shard.write(file.fileno(), seal)
    data = (tmp_path / "x").read_bytes()
    assert data[-5:] == bytes(5) and len(data) == shard.size == seal.size
    assert dict(seal.fact.digests) == {"sha256": hashlib.sha256(data).hexdigest()}


def test_another_order_of_chunks_is_refused():
    """What the writer believes of libhdf5 is asked of it: chunks that were allocated as they came lie otherwise."""
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset("x", (1, 4, 2), "f4", chunks=(1, 2, 2))
        for row in (2, 0):
            dataset[0, row : row + 2] = 1
        with pytest.raises(RuntimeError, match=r"libhdf5 .* does not lay chunks out one behind the other"):
            _first_byte(dataset.id, (1, 4, 2), (1, 2, 2))


def test_the_metadata_is_what_libhdf5_writes_into_a_plain_buffer():
    """A file without reserved space: byte for byte the same through the skeleton and through BytesIO."""
    buffer, skeleton = io.BytesIO(), Skeleton()
    for target in (buffer, skeleton):
        with h5py.File(target, "w", libver="latest") as file:
            file.create_dataset("a/b", data=np.arange(5000.0), chunks=(100,), fletcher32=True, track_times=False)
            file.attrs["text"] = np.bytes_(b"x" * 3000)
    whole = bytearray(skeleton.size)
    for offset, data in skeleton.pieces():
        whole[offset : offset + len(data)] = data
    assert bytes(whole) == buffer.getvalue()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=15)), max_size=12), st.integers(0, 70))
def test_a_skeleton_is_a_file(writes, at):
    """Against a real file object: overlapping writes, reads that end early, gaps that read as zeros."""
    twin, skeleton = io.BytesIO(), Skeleton()
    for offset, data in writes:
        for file in (twin, skeleton):
            file.seek(offset)
            if data:
                file.write(data)
    whole = twin.getvalue()
    pieces = skeleton.pieces()
    assert skeleton.size == len(whole) == skeleton.seek(0, 2)
    assert all(a + len(x) < b for (a, x), (b, _) in pairwise(pieces))
    written = {place for offset, data in writes for place in range(offset, offset + len(data))}
    assert {offset + i: byte for offset, data in pieces for i, byte in enumerate(data)} == {
        i: whole[i] for i in written
    }
    for file in (twin, skeleton):
        file.seek(at)
    assert skeleton.read(20) == twin.read(20) and skeleton.tell() == twin.tell()
    for file in (twin, skeleton):
        file.truncate(at // 2)
    assert b"".join(data for _, data in skeleton.pieces()) == bytes(whole[i] for i in sorted(written) if i < at // 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_into_larger_buffers_give_the_same_file(tmp_path, dtype):
    """A slab with room for more rows, columns that are not side by side, the other byte order."""
    values = random_values(3, 150, 40, dtype)
    slab = np.zeros((3, 400, 40), values.dtype)
    slab[:, 7:157] = values
    wide = np.zeros((3, 150, 80), values.dtype)
    wide[..., ::2] = values
    wanted = shards(one_unit(tmp_path / "a", values, dtype).path)[0].read_bytes()
    for name, view in (("b", slab[:, 7:157]), ("c", wide[..., ::2]), ("d", values.astype(values.dtype.newbyteorder()))):
        assert shards(one_unit(tmp_path / name, view, dtype).path)[0].read_bytes() == wanted


def test_no_value_is_copied(tmp_path):
    """16 MiB of values, in a slab; a commit allocates less than 1 MiB on the way."""
    slab = np.ones((8, 1200, 512), np.float32)
    store = new_store(tmp_path / "s", streams=[Stream("resid_post", tuple(range(8)), 512, "float32")], bulk=True)
    for unit in store.missing()[:2]:  # what is made once a process does not count
        good = Block(slab[:, 100:1124], [unit.prompt_ids[0]] * 1024, ["base"] * 1024, range(1024), range(1024))
        tracemalloc.start()
        try:
            store.commit(unit, {"resid_post": good})
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 1 << 20


# NaN


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_each_of_the_65536_codes_is_judged(dtype):
    """All that are finite together, and each of the others alone among zeros, minus zeros or subnormals."""
    stored = schema.DTYPES[dtype]
    codes = np.arange(1 << 16, dtype="<u2")
    floats = (codes.astype("<u4") << 16).view("<f4") if dtype == "bfloat16" else codes.view("<f2")
    finite = np.isfinite(floats)
    assert Codes(codes[finite].view(stored.raw), stored).finite(0, 1 << 16)
    for beside in (0, 0x8000, 0x0001):
        triples = np.full(((~finite).sum(), 3), beside, dtype="<u2")
        triples[:, 1] = codes[~finite]
        whole = Codes(triples.reshape(-1).view(stored.raw), stored)
        assert not any(whole.finite(start, start + 3) for start in range(0, triples.size, 3))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=6), st.integers(0, 5), st.integers(1, 6))
def test_float32_is_judged_as_numpy_does(values, start, count):
    values = np.array(values, "<f4")
    part = values[start : start + count]
    if len(part):
        codes = Codes(values, schema.DTYPES["float32"])
        assert codes.finite(start, start + count) == bool(np.isfinite(part).all())


@pytest.mark.parametrize("row", [0, 127, 128, 299])
def test_nan_in_any_chunk_publishes_nothing(tmp_path, row):
    values = random_values(2, 300, 8, "float32")
    values[1, row, 7] = np.nan
    with pytest.raises(NotFinite, match="Unit 'u', stream 'resid_post', layer 1: 1 of 2400 values"):
        one_unit(tmp_path / "s", values, "float32")
    assert shards(tmp_path / "s") == [] and list((tmp_path / "s" / "tmp").iterdir()) == []


def test_a_caller_who_has_looked_is_believed(tmp_path):
    store = new_store(tmp_path / "s", 4)
    (unit,) = store.missing()
    good = block(unit)
    values = good.values.copy()
    values[0, 0, 0] = np.nan
    with pytest.raises(NotFinite):
        store.commit(unit, {"resid_post": Block(**{**good.__dict__, "values": values})})
    assert store.commit(unit, {"resid_post": Block(**{**good.__dict__, "values": values, "finite": True})})
    assert np.isnan(store.values("resid_post:0")[0, 0])


# Old stores, and how large new ones will be


def test_a_store_of_the_first_version_is_read_and_continued(tmp_path):
    """Written by the code before this one: shards built by libhdf5 alone, a checksummed table, sha256 in the log."""
    shutil.copytree(GOLDEN, tmp_path / "s")
    store = ActivationStore.open(tmp_path / "s")
    assert store.verify(deep=True) == [] and store.missing() == [] and len(store) == 12
    for layer in LAYERS:
        for i, (prompt, variant) in enumerate(zip(store.prompt_ids, store.variants, strict=True)):
            np.testing.assert_array_equal(store.values(f"resid_post:{layer}")[i], expected(prompt, variant, layer))
    more = filled_store(tmp_path / "s", 9, "bfloat16", bulk=True, prompts=prompt_records(9))
    assert (
        len(more) == 18
        and more.verify(deep=True) == []
        and ActivationStore.open(tmp_path / "s").verify(deep=True) == []
    )
    damaged = bytearray(shards(GOLDEN)[0].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "s" / shards(GOLDEN)[0].relative_to(GOLDEN)).write_bytes(damaged)
    assert len(more.verify(deep=True)) == 1
