"""Runs that are recorded, and what must be true of what a crash leaves of them.

A scene makes its store below `root`, says by `told` what it was promised there, and judges a folder by the promises
that had been given: all of it there, every row right, every promise in the log, and the same run goes on from it to the
same end. What a row holds follows from its prompt alone, so no copy of the truth is needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from store_samples import block, expected, prompt_records, stream

from stores import ActivationStore, ResultTable, StoreError, StoreMissing, Unit

Tell = Callable[[Any], None]
Promise = tuple[str, Any]
MADE, UNIT = "made", "unit"
DTYPE = "bfloat16"


class Scene(Protocol):
    def prepare(self, root: Path) -> None:
        """What is there before, safe."""
        ...

    def run(self, root: Path, tell: Tell) -> None:
        """The run; goes on from whatever there is."""
        ...

    def faults(self, root: Path, promises: Sequence[Promise]) -> list[str]:
        """What a reader misses there, or finds wrong."""
        ...

    def finished(self, root: Path) -> list[str]:
        """What differs from an uninterrupted run, once the run is through."""
        ...


def stubbornly(act: Callable[..., Any], *arguments: Any) -> Any:
    """A second time with the same objects, when the system refuses a call or somebody interrupts."""
    try:
        return act(*arguments)
    except (OSError, KeyboardInterrupt):
        return act(*arguments)


def mixed_units(n: int) -> list[Unit]:
    """Units of one to five prompts."""
    starts = np.cumsum([0, *(1 + unit * 3 % 5 for unit in range(n))]).tolist()
    return [Unit.of([f"p{i}" for i in range(a, b)]) for a, b in pairwise(starts)]


class Activations:
    """A capture of `shards` units; half of the prompts are appended when the first half is done. `again`: units that
    are there already are committed all the same, as a writer does whose list of missing ones is old."""

    def __init__(self, shards: int, folder: str = "runs/store", bulk: bool = False, again: bool = False) -> None:
        self.units, self.folder, self.bulk, self.again = mixed_units(shards), folder, bulk, again
        self.keys = [unit.key for unit in self.units]

    def prepare(self, root: Path) -> None: ...

    def run(self, root: Path, tell: Tell) -> None:
        for count in (max(1, len(self.keys) // 2), len(self.keys)):
            store = stubbornly(self.opened, root, count)
            tell((MADE, count))
            for key in self.keys[:count] if self.again else self.missing(store):
                stubbornly(self.commit, store, key)
                tell((UNIT, key))

    def opened(self, root: Path, count: int, **changes: Any) -> ActivationStore:
        """With the first units planned; made, or gone on with."""
        units = self.units[:count]
        options: dict[str, Any] = {
            "streams": [stream(DTYPE)],
            "prompts": prompt_records(sum(len(unit.prompt_ids) for unit in units)),
            "plan": units,
            "spec": {"model": "tiny", "scope": "last"},
            "provenance": {"seed": 0},
            "bulk": self.bulk,
        }
        return ActivationStore.create(root / self.folder, **{**options, **changes})

    def missing(self, store: ActivationStore) -> list[str]:
        return [unit.key for unit in store.missing()]

    def commit(self, store: ActivationStore, key: str, spoiled: bool = False) -> bool:
        """`spoiled`: with other values than the right ones, as a writer with another machine has them."""
        unit = self.units[self.keys.index(key)]
        made = block(unit, DTYPE)
        made.values[...] ^= int(spoiled)
        return store.commit(unit, {"resid_post": made})

    def faults(self, root: Path, promises: Sequence[Promise]) -> list[str]:
        made = max((number for kind, number in promises if kind == MADE), default=0)
        told = {key for kind, key in promises if kind == UNIT}
        try:
            store = ActivationStore.open(root / self.folder)
        except StoreMissing as error:
            return [f"the store is gone: {error}"] if made else []
        except (StoreError, OSError) as error:
            return [f"unreadable: {error}"]
        try:
            planned = {unit.key: unit for unit in store.plan}
            found = [f"{unit.key} is no longer planned" for unit in self.units[:made] if unit.key not in planned]
            missing = {unit.key for unit in store.missing()}
            found += [f"{key} was promised and is missing" for key in told if key in missing or key not in planned]
            there = [unit for unit in planned.values() if unit.key not in missing]
            found += [*(wrong_rows(store, there) if there else []), *store.verify()]
        except (StoreError, OSError) as error:
            return [f"unreadable: {error}"]
        return found + unlogged(root / self.folder, told)

    def finished(self, root: Path) -> list[str]:
        store = ActivationStore.open(root / self.folder)
        left = [f"{unit.key} is missing" for unit in store.missing()]
        return left + wrong_rows(store, self.units) + unsound(store)


class Results:
    """A result table of `shards` units of one to four rows; half of the keys are appended later."""

    def __init__(self, shards: int, folder: str = "runs/table") -> None:
        self.keys, self.folder = [f"cell {i}" for i in range(shards)], folder

    def prepare(self, root: Path) -> None: ...

    def run(self, root: Path, tell: Tell) -> None:
        for count in (max(1, len(self.keys) // 2), len(self.keys)):
            table = stubbornly(self.opened, root, count)
            tell((MADE, count))
            for key in self.missing(table):
                stubbornly(self.commit, table, key)
                tell((UNIT, key))

    def opened(self, root: Path, count: int, **changes: Any) -> ResultTable:
        options: dict[str, Any] = {"spec": {"sweep": "tiny"}, "plan": self.keys[:count], "provenance": {}}
        return ResultTable.create(root / self.folder, **{**options, **changes})

    def missing(self, table: ResultTable) -> list[str]:
        return table.missing()

    def commit(self, table: ResultTable, key: str, spoiled: bool = False) -> bool:
        return table.commit(key, [{**row, "n": row["n"] + int(spoiled)} for row in result_rows(key)])

    def faults(self, root: Path, promises: Sequence[Promise]) -> list[str]:
        made = max((number for kind, number in promises if kind == MADE), default=0)
        told = {key for kind, key in promises if kind == UNIT}
        try:
            table = ResultTable.open(root / self.folder)
        except StoreMissing as error:
            return [f"the table is gone: {error}"] if made else []
        except (StoreError, OSError) as error:
            return [f"unreadable: {error}"]
        try:
            missing = set(table.missing())
            found = [f"{key} is no longer planned" for key in self.keys[:made] if key not in table.plan]
            found += [f"{key} was promised and is missing" for key in told if key in missing or key not in table.plan]
            there = [key for key in table.plan if key not in missing]
            if table.rows() != [row for key in there for row in result_rows(key)]:
                found.append("rows differ")
            found += table.verify()
        except (StoreError, OSError) as error:
            return [f"unreadable: {error}"]
        return found + unlogged(root / self.folder, told)

    def finished(self, root: Path) -> list[str]:
        table = ResultTable.open(root / self.folder)
        left = [f"{key} is missing" for key in table.missing()]
        right = table.rows() == [row for key in self.keys for row in result_rows(key)]
        return left + ([] if right else ["rows differ"]) + unsound(table)


def result_rows(key: str) -> list[dict[str, Any]]:
    """The rows of one unit: text, whole numbers, floats, booleans and None."""
    n = int(key.split()[1])
    return [
        {"cell": key, "n": i, "score": n / 7 + i, "right": i % 2 == 0, "said": "é\n" * i if i else None}
        for i in range(1 + n % 4)
    ]


def wrong_rows(store: ActivationStore, units: Sequence[Unit]) -> list[str]:
    """Where the rows of these units, and of no others, are not those that were committed."""
    blocks = [block(unit, DTYPE) for unit in units]
    for name, came in (("prompt_id", store.prompt_ids), ("variant", store.variants)):
        if came != [text for each in blocks for text in getattr(each, name)]:
            return [f"{name} differs"]
    for name, came in (("position", store.positions), ("token_id", store.token_ids)):
        if came.tolist() != np.concatenate([getattr(each, name) for each in blocks]).tolist():
            return [f"{name} differs"]
    rows = list(zip(store.prompt_ids, store.variants, strict=True))
    return [
        f"values of {site} differ"
        for site in store.sites
        if store.values(site).tobytes() != b"".join(known_row(*row, int(site.split(":")[1])) for row in rows)
    ]


_KNOWN: dict[tuple[str, str, int], bytes] = {}


def known_row(prompt: str, variant: str, layer: int) -> bytes:
    if (prompt, variant, layer) not in _KNOWN:
        _KNOWN[prompt, variant, layer] = expected(prompt, variant, layer).tobytes()
    return _KNOWN[prompt, variant, layer]


def unlogged(store: Path, told: set[str]) -> list[str]:
    """Promised units without a line in a log that gives the size of the file that stands there, and its digest."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for log in sorted((store / "commits").glob("*.jsonl")):
        for line in log.read_bytes().split(b"\n"):
            try:
                record = json.loads(line)
                lines.setdefault(record["unit"], []).append(record)
            except (ValueError, KeyError, TypeError):
                continue
    return [
        f"{key} was promised and is in no log"
        for key in told
        if not any(fitting(store, line) for line in lines.get(key, ()))
    ]


def fitting(store: Path, line: dict[str, Any]) -> bool:
    shard = store / line["file"]
    if not shard.is_file() or shard.stat().st_size != line["bytes"]:
        return False
    return "sha256" not in line or hashlib.sha256(shard.read_bytes()).hexdigest() == line["sha256"]


def unsound(store: ActivationStore | ResultTable) -> list[str]:
    """What verify finds in every byte. The torn line of a writer that died is no fault: it was never promised."""
    return store.verify(deep=True)
