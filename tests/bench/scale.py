"""What a store costs by unit, prompt and byte: the constants of docs/scale.md.

Stores of small made-up shards, at two numbers of units: what grows with a store is stated by unit (or prompt) at both,
so that a constant that is none shows. Values of one shard are kept small, and its time and size beside them stated
apart: what bytes cost is measured by `store.py` (B10). Every number is wall time in this process, on one core, on the
disk under --scratch (default: the system's temporary folder), one run.

    python tests/bench/scale.py [--quick] [--json FILE] [--scratch FOLDER]

- made: `ActivationStore.create` with the plan of all units; commit: `store.commit` of one unit, whole (fsync and log).
- opened: `ActivationStore.open`; missing: `store.missing()`, what a command that goes on asks first; indexed:
  `store.rows()`, the row index of every shard; read: one site of all rows; verified: `verify()`; deep:
  `verify(deep=True)`, every byte; merged: two halves by `merge_stores`, with hard links, every byte checked;
  index_file: the `index.h5` of virtual datasets for other tools.
- shard beyond its values, log line, plan: bytes on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clocks import ROOT  # puts the checkout on the path

sys.path.insert(0, str(ROOT))

import h5py
import numpy as np

from stores import ActivationStore, Block, Stream, Unit, schema
from stores.exporting import index_store
from stores.merging import merge_stores

LAYERS, ROWS, WIDTH = 4, 16, 64  # of one shard: 16 prompts, 8 KiB of values
STREAM = Stream("resid_post", tuple(range(LAYERS)), WIDTH, "bfloat16")
SIZES, QUICK = (500, 4000), (20, 60)  # units


def units_of(n: int) -> list[Unit]:
    return [Unit.of([f"prompt-{u * ROWS + i:010d}" for i in range(ROWS)]) for u in range(n)]


def made(folder: Path, units: list[Unit]) -> ActivationStore:
    records = [{"id": name, "label": "a", "tags": {"domain": "capital"}, "sha256": "0" * 64}
               for unit in units for name in unit.prompt_ids]  # fmt: skip
    return ActivationStore.create(
        folder, streams=[STREAM], prompts=records, plan=units, spec={"model": "made up"}, provenance={"seed": 0}
    )


def block(unit: Unit, seed: int) -> Block:
    values = np.random.default_rng(seed).standard_normal((LAYERS, ROWS, WIDTH)).astype("<f4").view("<u4") >> 16
    ids = list(unit.prompt_ids)
    return Block(values.astype("<u2"), ids, ["base"] * ROWS, np.arange(ROWS), np.arange(ROWS))


def bytes_of(files: Any) -> int:
    return sum(file.stat().st_size for file in files)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def measured(n: int, scratch: Path) -> dict[str, float]:
    """Microseconds a unit (a prompt, where it says so), and bytes, of a store of `n` units."""
    units, folder = units_of(n), scratch / f"{n}"
    seconds: dict[str, float] = {}
    seconds["made"], store = timed(lambda: made(folder, units))
    blocks = [block(unit, u) for u, unit in enumerate(units)]
    seconds["commit"], _ = timed(
        lambda: [store.commit(unit, {STREAM.name: one}) for unit, one in zip(units, blocks, strict=True)]
    )
    seconds["opened"], store = timed(lambda: ActivationStore.open(folder))
    seconds["missing"], left = timed(store.missing)
    seconds["indexed"], rows = timed(store.rows)
    seconds["read"], values = timed(lambda: rows.values("resid_post:1"))
    seconds["verified"], faults = timed(store.verify)
    seconds["deep"], deep_faults = timed(lambda: store.verify(deep=True))
    assert not left and not faults and not deep_faults and len(values) == n * ROWS

    halves = []
    for half in (0, 1):
        part = made(scratch / f"{n}-{half}", units)
        for u in range(half, n, 2):
            part.commit(units[u], {STREAM.name: blocks[u]})
        halves.append(part.path)
    seconds["merged"], merged = timed(lambda: merge_stores(halves, scratch / f"{n}-merged"))
    assert not merged.missing()
    seconds["index_file"], _ = timed(lambda: index_store(merged))

    shards = list((folder / schema.SHARDS).glob("*/*.h5"))
    index = scratch / f"{n}-merged" / "index.h5"
    head = [folder / schema.MANIFEST, *(folder / "plan").glob("*.json")]
    logs = list((folder / schema.COMMITS).glob("*.jsonl"))
    found = {f"{name}_us_a_unit": round(spent / n * 1e6, 1) for name, spent in seconds.items()}
    found |= {
        "shard_bytes_beyond_values": round(bytes_of(shards) / n - LAYERS * ROWS * WIDTH * 2, 1),
        "log_bytes_a_unit": round(bytes_of(logs) / n, 1),
        "index_file_bytes_a_unit": round(index.stat().st_size / n, 1),
        "plan_bytes_a_prompt": round(bytes_of(head) / n / ROWS, 1),
    }
    for path in (folder, scratch / f"{n}-merged", *halves):
        shutil.rmtree(path)
    return {"units": n, "prompts": n * ROWS, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scratch", type=Path, help="a folder of the disk that is to be measured")
    asked = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir=asked.scratch))
    try:
        sizes = [measured(n, scratch) for n in (QUICK if asked.quick else SIZES)]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for name in sizes[0]:
        print(f"{name:28}" + "".join(f"{size[name]:>14,}" for size in sizes))
    record = {
        "benchmark": "scale",
        "shard": {"layers": LAYERS, "rows": ROWS, "d_model": WIDTH, "dtype": "bfloat16"},
        "sizes": sizes,
        "machine": {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {"h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version, "numpy": np.__version__},
        "quick": asked.quick,
    }
    if asked.json is not None:
        asked.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
