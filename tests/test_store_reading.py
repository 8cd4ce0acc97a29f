"""Rows in any order, from any shards, in any precision: against a plain gather; and each chunk checked once."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import encoded, new_store, shards

from stores import ActivationStore, Block, StoreCorrupted, Stream, Unit
from stores.shard import read_rows

DTYPES = ("float32", "float16", "bfloat16")
SIZES, D_MODEL = (300, 5, 128), 12  # rows of the three shards: chunks of 100, of 5, and one whole chunk


def values_of(unit: int, dtype: str) -> np.ndarray:
    whole = np.random.default_rng(unit).normal(size=(2, SIZES[unit], D_MODEL)).astype(np.float32)
    return encoded(whole, dtype)


def truth(dtype: str) -> np.ndarray:
    raw = np.concatenate([values_of(unit, dtype)[1] for unit in range(3)])
    return (raw.astype(np.uint32) * 65536).view(np.float32) if dtype == "bfloat16" else raw


@pytest.fixture(scope="module", params=DTYPES)
def store(request, tmp_path_factory) -> tuple[ActivationStore, str]:
    units = [Unit(f"u{i}", (f"p{i}",)) for i in range(3)]
    streams = [Stream("resid_post", (3, 7), D_MODEL, request.param)]
    made = new_store(tmp_path_factory.mktemp("s") / "s", 3, streams=streams, plan=units)
    for i, (unit, n) in enumerate(zip(units, SIZES, strict=True)):
        numbers = np.arange(n)
        block = Block(values_of(i, request.param), unit.prompt_ids * n, ["base"] * n, numbers, numbers)
        made.commit(unit, {"resid_post": block})
    return made, request.param


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_whole_layer(store, dtype):
    made, stored = store
    values = made.values("resid_post:7", dtype)
    assert values.dtype == dtype and values.flags.c_contiguous
    np.testing.assert_array_equal(values, truth(stored).astype(dtype))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, sum(SIZES) - 1), max_size=40), st.sampled_from(["float32", "float64"]))
def test_any_rows_in_any_order(store, rows, dtype):
    """Doubled rows, runs that cross chunks and shards, none at all."""
    made, stored = store
    table = made.rows()._parts["resid_post"].table
    for chosen in (rows, sorted(rows), sorted(set(rows)), [*range(90, 210), *rows], [*range(299, 433)][::-1]):
        chosen = np.array(chosen, dtype=np.int64)
        came = table.read(7, chosen, np.dtype(dtype))
        np.testing.assert_array_equal(came, truth(stored)[chosen].astype(dtype))


def test_each_chunk_is_read_once(store, monkeypatch):
    made, _ = store
    made.values("resid_post:7")
    read, real = [], os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: read.append(arguments[2]) or real(*arguments))
    made.values("resid_post:7")
    assert len(read) == 3 + 1 + 1
    read.clear()
    made.where(position={0, 299}, prompt_id="p0").values("resid_post:7")
    assert len(read) == 2
    read.clear()
    shuffled = np.random.default_rng(0).permutation(sum(SIZES))
    made.rows()._parts["resid_post"].table.read(7, shuffled, np.dtype("float32"))
    assert len(read) == 5


def test_a_result_that_does_not_lie_side_by_side(store):
    made, stored = store
    part = made.rows()._parts["resid_post"].table
    wide = np.zeros((128, 2 * D_MODEL), stored if stored != "bfloat16" else "float32")
    read_rows(part.shards[2], part.stream, 1, np.arange(128), wide[:, ::2])
    np.testing.assert_array_equal(wide[:, ::2], truth(stored)[-128:])
    assert not wide[:, 1::2].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("asked", ["float32", "float64", "float16"])
def test_every_way_of_reading_checks_the_hash(tmp_path, dtype, asked):
    """Straight into the result, and through the scratch buffer: one flipped bit is found, in padding too."""
    unit, n = Unit("u", ("p0",)), 129  # chunks of 65 rows, the last row is padding
    made = new_store(tmp_path / "s", 1, streams=[Stream("resid_post", (0,), 4, dtype)], plan=[unit])
    values = encoded(np.ones((1, n, 4), np.float32), dtype)
    made.commit(unit, {"resid_post": Block(values, ["p0"] * n, ["base"] * n, np.arange(n), np.arange(n))})
    made.values("resid_post:0")
    index = next(iter(made._indexes.values()))["resid_post"]
    shard = shards(made.path)[0]
    whole, size = shard.read_bytes(), 65 * 4 * values.itemsize
    for chunk, place in ((0, 0), (0, size - 1), (1, 0), (1, size - 1)):
        damaged = bytearray(whole)
        damaged[int(index.offsets[0, chunk]) + place] ^= 4
        shard.write_bytes(damaged)
        os.utime(shard, ns=(0, index.status[1]))
        with pytest.raises(StoreCorrupted, match=f"chunk {chunk} "):
            made.values("resid_post:0", asked)
    shard.write_bytes(whole)
    assert made.values("resid_post:0", asked).shape == (129, 4)


def test_a_shard_that_was_cut_while_open_is_found(tmp_path):
    """Also where what stood in the buffer before would fit the hash: the chunks are equal."""
    unit = Unit("u", ("p0",))
    made = new_store(tmp_path / "s", 1, streams=[Stream("resid_post", (0,), 256, "bfloat16")], plan=[unit])
    ones = np.ones((1, 256, 256), np.uint16)
    made.commit(unit, {"resid_post": Block(ones, ["p0"] * 256, ["base"] * 256, range(256), range(256))})
    rows = made.rows()
    rows.values("resid_post:0")
    first, second = made._indexes["u"]["resid_post"].offsets[0].tolist()
    assert second - first == 128 * 256 * 2
    os.truncate(shards(made.path)[0], second + 100)
    with pytest.raises(StoreCorrupted, match="chunk 1"):
        rows.values("resid_post:0")
