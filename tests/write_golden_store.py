"""Wrote `tests/golden/store_2`, once: a store and a table of format version 2, which every later version must read.

`python tests/write_golden_store.py FOLDER` writes them as the code of today does; a new format version gets a folder of
its own, and those that are there are never written again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from store_samples import block, new_store

from stores import ResultTable, publish

ROWS = {
    "0-base": [
        {"prompt": "p0", "text": "ü, \u202e\n", "score": 0.5, "kept": True, "n": 1 << 40, "mixed": "a"},
        {"prompt": "p1", "text": "", "score": float("inf"), "kept": False, "n": -1, "mixed": 2},
    ],
    "1-steered": [{"prompt": "p0", "text": "日本", "score": None, "kept": None, "n": None, "mixed": None}],
    "2-empty": [],
}
SPEC = {"question": "golden", "alpha": [0.5, 1]}


def write(to: Path) -> None:
    for n in (6, 10):  # two appends: the plan has two segments
        store = new_store(to / "activations", n, "bfloat16", provenance={"seed": 0})
        for unit in store.missing()[:2]:
            store.commit(unit, {"resid_post": block(unit, "bfloat16")})
    for keys in (["0-base"], [*ROWS, "3-missing"]):
        table = ResultTable.create(to / "table", spec=SPEC, plan=keys, provenance={"seed": 0})
    for key, rows in ROWS.items():
        table.commit(key, rows)


if __name__ == "__main__":
    publish.owner_name = lambda: "host.1.00000000"
    time.time = lambda: 1.8e9
    write(Path(sys.argv[1]))
