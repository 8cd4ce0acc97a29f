"""What the killed writers write: bfloat16 rows of prompts of different lengths, and rows of a result table. Everything
follows from the prompt alone, so a run that was stopped must end with the bits of one that was not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stores import ActivationStore, Block, ResultTable, Stream, Unit

STREAMS = (Stream("resid_post", (0, 1, 4), 24, "bfloat16"), Stream("vision.resid_post", (2,), 8, "bfloat16"))
VARIANTS = ("base", "tuned")
SPEC = {"model": "tiny", "scope": "all", "dtype": "bfloat16"}


def records(n: int) -> list[dict[str, Any]]:
    return [{"id": f"p{i}", "label": ["calm", "loud"][i % 2], "tags": {"topic": i % 3}} for i in range(n)]


def planned(ids: Sequence[str]) -> list[Unit]:
    """Units of one to four prompts, in order."""
    units, at = [], 0
    while at < len(ids):
        size = 1 + (at + len(units)) % 4
        units.append(Unit.of(ids[at : at + size]))
        at += size
    return units


def blocks(unit: Unit) -> dict[str, Block]:
    return {stream.name: _block(stream, unit) for stream in STREAMS}


def _block(stream: Stream, unit: Unit) -> Block:
    """One row a token; every third prompt has no picture, so none in the tower."""
    tower = stream.name.startswith("vision")
    tokens = {name: 0 if tower and int(name[1:]) % 3 == 0 else 1 + int(name[1:]) % 7 for name in unit.prompt_ids}
    rows = [(name, variant, at) for name in unit.prompt_ids for variant in VARIANTS for at in range(tokens[name])]
    values = np.zeros((len(stream.layers), len(rows), stream.d_model), dtype=np.uint16)
    for r, (name, variant, at) in enumerate(rows):
        drawn = np.random.default_rng([int(name[1:]), VARIANTS.index(variant), at, stream.d_model])
        values[:, r] = drawn.integers(0, 0x7F80, values[:, r].shape, dtype=np.uint16)  # every finite code
    return Block(
        values,
        [name for name, _, _ in rows],
        [variant for _, variant, _ in rows],
        np.array([at for _, _, at in rows], dtype=np.int64),
        np.arange(len(rows), dtype=np.int64),
    )


def answers(key: str) -> list[dict[str, Any]]:
    """Two to six rows of a table, with what JSON, CSV and HDF5 each have trouble with."""
    drawn = np.random.default_rng([int(key.removeprefix("cell")), 1])
    return [
        {"cell": key, "row": i, "score": float(drawn.normal()), "text": "é\n\t" * i, "right": bool(i % 2), "none": None}
        for i in range(2 + int(drawn.integers(5)))
    ]


def store_at(path: Path, prompts: int, bulk: bool = False) -> ActivationStore:
    """Created, or gone on with: what a command does at its start."""
    return ActivationStore.create(
        path, streams=STREAMS, prompts=records(prompts), plan=planned, spec=SPEC, provenance={"by": "soak"}, bulk=bulk
    )


def table_at(path: Path, cells: int) -> ResultTable:
    return ResultTable.create(path, spec=SPEC, plan=[f"cell{i}" for i in range(cells)], provenance={"by": "soak"})


def rows_of(path: Path) -> dict[str, dict[Any, bytes]]:
    """Unit -> row -> its bits, of all that a reader gets out of a store of activations now. Raises StoreError."""
    store, found = ActivationStore.open(path), dict[str, dict[Any, bytes]]()
    unit_of = {name: unit.key for unit in store.plan for name in unit.prompt_ids}
    for unit in committed(store.plan, store.missing()):
        found[unit.key] = {}
    for name in store.rows().streams if found else ():
        view = store.at(name)
        values = np.stack([view.values(site, np.float32) for site in view.sites], axis=1)
        index = zip(view.prompt_ids, view.variants, view.positions.tolist(), view.token_ids.tolist(), strict=True)
        for row, (prompt, *rest) in zip(values, index, strict=True):
            found[unit_of[prompt]][(name, prompt, *rest)] = row.tobytes()
    return found


def cells_of(path: Path) -> dict[str, dict[Any, bytes]]:
    """The same of a result table."""
    table = ResultTable.open(path)
    found: dict[str, dict[Any, bytes]] = {key: {} for key in committed(table.plan, table.missing())}
    for row in table.rows():
        found[str(row["cell"])][row["row"]] = repr(sorted(row.items())).encode()
    return found


def committed(plan: Sequence[Any], missing: Sequence[Any]) -> list[Any]:
    return [one for one in plan if one not in missing]
