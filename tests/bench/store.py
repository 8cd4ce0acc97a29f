"""B10: what a shard costs to write beside a bare write(), and a layer to read beside np.memmap.

Ours is always `ActivationStore.commit` whole, as the capture loop calls it, nothing left out: values looked at for NaN,
every chunk hashed into the shard's table, the seal for the log, HDF5 metadata and row index, fsync, link to the final
name, fsync of the folder, log line with its fsync. The peer is open, one write() of the values alone, fsync, close.
Both on tmpfs, where fsync is free: what is compared is the work of the processor. Removing the file is outside the
clock for both.

- bulk: all tokens of prompts of 115, `create(..., bulk=True)`. The seal in the log is the xxh3-128 tree of
  stores/seals.py: "bulk" is sealed with xxh3 already, in one pass over the values. The gated lines are what `create`
  and `Block` do by default; beside them, `Block(finite=True)`, of a capture that looked for NaN on the device.
- sealed with xxh3: the same at the size of a last-token unit, where the fixed cost of a shard counts most.
- sealed with sha256: the default. Reported, with the rate of captured bytes up to which a writer thread on a core of
  its own keeps up, and what that is in tokens of a Gemma3-4B capture of last tokens at all layers.
- layer read: `store.values(site)`, a fresh float32 array, every chunk checked against its hash. The peer maps the same
  values as one raw file and makes the same fresh float32 array of them, unchecked.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measure import SETTING, Line, Ratio, main, paired  # first: it puts the checkout on the path

# isort: split
import hashlib

import h5py
import numpy as np
import xxhash

from stores import ActivationStore, Block, Stream, Unit

DTYPES = {"bfloat16": np.dtype("<u2"), "float32": np.dtype("<f4")}
SHAPE, POOLED = (16, 1024, 2048), (34, 142, 2560)  # pooled: the last tokens of one 16k-token batch of Gemma3-4B
TOKENS_A_PROMPT, GEMMA_ON_H100 = 115, 93_000  # speed.md section 4: tokens/s at 600 TFLOP/s


@dataclass
class Case:
    """One store with one unit, to be committed again and again, and the same values as a raw file."""

    folder: Path
    dtype: str
    shape: tuple[int, int, int]
    bulk: bool
    tokens: int = 1  # rows of one prompt
    finite: bool = False  # whether NaN was looked for on the device

    def __post_init__(self) -> None:
        layers, rows, d_model = self.shape
        values = np.random.default_rng(0).normal(size=self.shape).astype("<f4")
        self.values = (values.view("<u4") >> 16).astype("<u2") if self.dtype == "bfloat16" else values
        ids = [f"prompt-{i // self.tokens:06d}" for i in range(rows)]
        self.unit, place = Unit.of(dict.fromkeys(ids)), np.arange(rows) % self.tokens
        self.blocks = {"resid_post": Block(self.values, ids, ["base"] * rows, place, np.arange(rows), self.finite)}
        self.store = ActivationStore.create(
            self.folder / f"{self.dtype}-{rows}-{self.bulk}-{self.finite}",
            streams=[Stream("resid_post", tuple(range(layers)), d_model, self.dtype)],
            prompts=[{"id": name} for name in self.unit.prompt_ids],
            plan=[self.unit],
            spec={"model": "benchmark", "scope": "last"},
            provenance={},
            bulk=self.bulk,
        )
        self.raw = self.folder / f"raw-{self.dtype}-{rows}"

    @property
    def name(self) -> str:
        return f"{self.dtype} {list(self.shape)}"

    @property
    def shard(self) -> Path:
        return next(self.store.path.glob("shards/*/*.h5"))

    def commit(self) -> Path:
        assert self.store.commit(self.unit, self.blocks)
        return self.store.path / "shards"

    def write(self) -> Path:
        """The peer. One write() moves at most 2 GiB."""
        descriptor = os.open(self.raw, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        assert os.write(descriptor, self.values.reshape(-1).view(np.uint8).data) == self.values.nbytes
        os.fsync(descriptor)
        os.close(descriptor)
        return self.raw

    def numbers(self, layer: int) -> np.ndarray:
        """What a reader must get, by arithmetic that is not ours."""
        raw = self.values[layer]
        return raw if self.dtype == "float32" else (raw.astype("<u4") * 65536).view("<f4")

    def mapped(self, layer: int) -> np.ndarray:
        raw = np.memmap(self.raw, DTYPES[self.dtype], "r", shape=self.shape)[layer]
        if self.dtype == "float32":
            return np.array(raw)
        bits = raw.astype("<u4")
        bits <<= 16
        return bits.view("<f4")


def checked(case: Case) -> None:
    """What is timed is right: values, table of hashes, seal, and the store's own verdict."""
    case.commit()
    store, shard = ActivationStore.open(case.store.path), case.shard
    for layer in range(case.shape[0]):
        np.testing.assert_array_equal(store.values(f"resid_post:{layer}"), case.numbers(layer))
    assert store.verify(deep=True) == []
    data = shard.read_bytes()
    outside = xxhash.xxh3_128()
    with h5py.File(shard, "r") as file:
        values, table, at = file["activations/resid_post/values"], file["chunk_xxh3_128/resid_post"][()], 0
        for layer, chunk in np.ndindex(table.shape[:2]):
            where = values.id.get_chunk_info_by_coord((layer, chunk * values.chunks[1], 0))
            stored = data[where.byte_offset : where.byte_offset + where.size]
            assert xxhash.xxh3_128_digest(stored) == table[layer, chunk].tobytes()
            outside.update(data[at : where.byte_offset])
            at = where.byte_offset + where.size
    outside.update(data[at:])
    record = json.loads(next((case.store.path / "commits").glob("*.jsonl")).read_text().splitlines()[-1])
    seal = {"xxh3_128_tree": outside.hexdigest()} if case.bulk else {"sha256": hashlib.sha256(data).hexdigest()}
    assert {name: record[name] for name in seal} == seal  # a deep verification adds the other
    removed(case.store.path / "shards")


def removed(path: Path) -> None:
    for file in path.glob("*/*.h5") if path.is_dir() else [path]:
        file.unlink()


def cleaning(call: Callable[[], object], times: int) -> float:
    """CPU seconds of one call of this process; what it wrote is removed outside the clock."""
    spent = 0.0
    for _ in range(times):
        began = time.process_time()
        written = call()
        spent += time.process_time() - began
        assert isinstance(written, Path)
        removed(written)
    return spent / times


def written(case: Case) -> Ratio:
    checked(case)
    return paired(case.commit, case.write, seconds=cleaning, least=0.06)


def sha256_lines(folder: Path, shape: tuple[int, int, int]) -> Iterator[Line]:
    case = Case(folder, "bfloat16", shape, bulk=False)
    ratio = written(case)
    yield Line("B10", f"commit sealed with sha256 (default), {case.name}", ratio, peer="write()")
    rate = case.values.nbytes / ratio.ours
    per_token = shape[0] * shape[2] * 2 / TOKENS_A_PROMPT
    note = (
        "a writer thread on a core of its own; a disk slower than that is the limit instead. Gemma3-4B, last token, "
        f"all layers: {per_token:,.0f} bytes a token; at the {GEMMA_ON_H100:,} tokens/s of an H100 (derived) it "
        f"is busy {GEMMA_ON_H100 * per_token / rate:.0%} of the time"
    )
    yield Line("B10", "sha256: hidden up to", value=rate / 1e6, unit="MB/s captured", note=note)
    yield Line("B10", "sha256: hidden up to", value=rate / per_token, unit="tokens/s")


def layer_read(folder: Path, dtype: str, shape: tuple[int, int, int]) -> Iterator[Line]:
    case = Case(folder, dtype, shape, bulk=False)
    case.commit()
    case.write()
    store, turn = ActivationStore.open(case.store.path), itertools.count()
    shard = case.shard

    def ours() -> np.ndarray:
        return store.values(f"resid_post:{next(turn) % shape[0]}")

    def peer() -> np.ndarray:
        return case.mapped(next(turn) % shape[0])

    def through_h5py() -> np.ndarray:
        with h5py.File(shard, "r") as file:
            return file["activations/resid_post/values"][next(turn) % shape[0]].astype("<f4", copy=False)

    for layer in range(shape[0]):
        truth = case.numbers(layer)
        np.testing.assert_array_equal(store.values(f"resid_post:{layer}"), truth)
        np.testing.assert_array_equal(case.mapped(layer), truth)
    ratio = paired(ours, peer, also={"h5py": through_h5py}, least=0.06)
    yield Line("B10", f"layer read, {case.name}", ratio, gate=0.4, peer="np.memmap")
    yield Line("B10", f"layer read, {case.name}", ratio.also["h5py"], peer="h5py")


@contextmanager
def tmpfs() -> Iterator[Path]:
    """A folder in memory, and the system's own place for temporary files where there is none."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def lines(quick: bool) -> Iterator[Line]:
    """The quick form is the whole form: a pair takes 50 ms."""
    shape = (2, 64, 64) if SETTING.tiny else SHAPE
    pooled = (2, 32, 64) if SETTING.tiny else POOLED
    with tmpfs() as folder:
        for dtype in DTYPES:
            for finite in (False, True):
                case = Case(folder, dtype, shape, bulk=True, tokens=TOKENS_A_PROMPT, finite=finite)
                what = f"bulk commit, {case.name}" + (", finite=True" if finite else "")
                yield Line("B10", what, written(case), gate=None if finite else 0.8, peer="write()")
        case = Case(folder, "bfloat16", pooled, bulk=True)
        yield Line("B10", f"commit sealed with xxh3, {case.name}", written(case), gate=0.25, peer="write()")
        yield from sha256_lines(folder, pooled)
        for dtype in DTYPES:
            yield from layer_read(folder, dtype, shape)


if __name__ == "__main__":
    main("store", lines)
