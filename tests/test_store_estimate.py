"""bytes_of: what a unit takes on disk, told before it is captured, against real shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_samples import new_store, shards

from stores import Block, Stream, Unit, bytes_of, schema


def written(path: Path, streams: list[Stream], rows: dict[str, int], size: int = 0) -> int:
    """Bytes of one real unit, its log line included; spec and provenance of `size` bytes each."""
    ids = tuple(f"prompt-{i:05d}" for i in range(max(1, *rows.values())))
    text = "x" * max(0, size - 20)
    more = {"spec": {"model": text}, "provenance": {"command": text}}
    store = new_store(path, streams=streams, prompts=[{"id": i} for i in ids], plan=[Unit("u", ids)], **more)
    blocks = {}
    for stream in streams:
        n = rows[stream.name]
        values = np.ones((len(stream.layers), n, stream.d_model), schema.DTYPES[stream.dtype].raw)
        blocks[stream.name] = Block(values, ids[:n], ["base"] * n, np.arange(n), np.arange(n))
    store.commit(store.plan[0], blocks)
    return sum(file.stat().st_size for file in [*shards(store.path), *(store.path / "commits").iterdir()])


@pytest.mark.parametrize("rows", [0, 1, 40, 128, 129, 1000])
@pytest.mark.parametrize("width", [8, 300])
def test_never_too_small_and_little_too_large(tmp_path, rows, width):
    """By 144 bytes a row (shorter ids than were allowed for) and the fixed 64 + 16 KiB a shard and stream."""
    streams = [
        Stream("resid_post", tuple(range(9)), width, "bfloat16"),
        Stream("vision.resid_post", (0,), 5, "float32"),
    ]
    counts = {"resid_post": rows, "vision.resid_post": 2}
    real, told = written(tmp_path / "s", streams, counts), bytes_of(streams, counts)
    assert real <= told <= real + (rows + 2) * 144 + (100 << 10) and told % 4096 == 0


def test_one_number_of_rows_stands_for_every_stream():
    streams = [Stream("a", (0, 1), 8, "float32"), Stream("b", (0,), 8, "float16")]
    assert bytes_of(streams, 7) == bytes_of(streams, {"a": 7, "b": 7}) < bytes_of(streams, {"a": 7, "b": 7000})


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(("layers", "width"), [(900, 300), (9, 20_000), (2000, 1)])
def test_values_and_their_hashes_are_told_exactly(tmp_path, dtype, layers, width):
    """129 rows are two chunks of 65: what more layers and a wider stream add is the same in both, padding included."""
    small = [Stream("resid_post", (0,), 8, dtype)]
    large = [Stream("resid_post", tuple(range(layers)), width, dtype)]
    counts = {"resid_post": 129}
    real = written(tmp_path / "large", large, counts) - written(tmp_path / "small", small, counts)
    assert abs(bytes_of(large, 129) - bytes_of(small, 129) - real) <= 4096 + 4 * layers + 512


def test_many_streams_and_a_large_spec_stay_below(tmp_path):
    few = [Stream("resid_post", (0,), 8, "float32")]
    assert written(tmp_path / "a", few, {"resid_post": 1}, size=16 << 10) <= bytes_of(few, 1)
    many = [Stream(f"s{i}", (0,), 8, "float32") for i in range(20)]
    assert written(tmp_path / "b", many, {s.name: 1 for s in many}, size=16 << 10) <= bytes_of(many, 1)


def test_long_ids_are_told_of():
    streams = [Stream("resid_post", (0,), 8, "float32")]
    assert bytes_of(streams, 1000, id_bytes=300) - bytes_of(streams, 1000) == pytest.approx(1000 * 2 * 236, abs=4096)
