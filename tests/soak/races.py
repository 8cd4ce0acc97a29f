"""Four writers at once, as on four hosts: no file locks, host names of their own, and pauses between the calls that
they make of the system. n counts the races.

What must hold behind each: exactly one writer was told True for a unit, and its rows are the ones that stand there, in
one shard; nobody's prompts or units were lost, and none is planned twice. In some, two of the four are killed on the
way, and a fifth comes later to finish: then nobody may have been told, of a unit that a killed one published.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from counts import counted
from killing import CALLS, NEVER, Fate, Outcome, Tell, forked, started
from mending import make_sources
from samples import SPEC, STREAMS, answers, blocks, cells_of, planned, records, rows_of, store_at, table_at

from stores import ActivationStore, ResultTable, StoreError, Unit
from stores.merging import merge_stores

WRITERS = 4
_PAUSE = 0.001  # seconds, at most, before a call
PROMPTS, CELLS = 12, 5
Ended = list[Outcome]


@dataclass(frozen=True)
class Race:
    """What is there before, what writer `who` does, and what is wrong behind it, by count."""

    before: Callable[[Path], object]
    writer: Callable[[Path, int, Tell], None]
    faults: Callable[[Path, Ended], Counter[str]]
    killed: int = 0  # so many of the writers


# The same units


def commit_units(path: Path, who: int, tell: Tell) -> None:
    _commit(store_at(path, PROMPTS), who, tell)


def commit_cells(path: Path, who: int, tell: Tell) -> None:
    table = table_at(path, CELLS)
    for key in table.plan:
        tell(f"{key} {int(table.commit(key, [{**row, 'who': who} for row in answers(key)]))}")


def _commit(store: ActivationStore, who: int, tell: Tell) -> None:
    """All units, whoever was there before; the rows say whose they are."""
    for unit in store.plan:
        named = blocks(unit)
        for block in named.values():
            block.values[:, :, 0] = who
        tell(f"{unit.key} {int(store.commit(unit, named))}")


def faults_of_store(path: Path, ended: Ended) -> Counter[str]:
    store = ActivationStore.open(path)
    first = {key: _writers(rows) for key, rows in rows_of(path).items()}
    return _faults(path, [unit.key for unit in store.plan], first, ended) + Counter(
        unreadable=len(store.verify(deep=True))
    )


def _writers(rows: dict[Any, bytes]) -> set[int]:
    """Whose rows these are: the first value of each, whose bits are the writer's number."""
    return {int(np.frombuffer(bits, dtype="<u4")[0] >> 16) for bits in rows.values()}


def faults_of_table(path: Path, ended: Ended) -> Counter[str]:
    table = ResultTable.open(path)
    whose = {key: {int(str(row["who"])) for row in table.rows(cell=key)} for key in cells_of(path)}
    return _faults(path, table.plan, whose, ended) + Counter(unreadable=len(table.verify(deep=True)))


def _faults(path: Path, plan: list[str], whose: dict[str, set[int]], ended: Ended) -> Counter[str]:
    """Of a race for the same units: who was told True is who wrote the rows."""
    found, told = Counter[str](), Counter[tuple[str, int]]()
    killed = {who for who, one in enumerate(ended) if one.killed}
    for who, one in enumerate(ended):
        found["unreadable"] += bool(one.error)
        for key, won in (line.split() for line in one.told):
            told[key, who] += int(won)
    for key in plan:
        won, owner = {who for who in range(len(ended)) if told[key, who]}, whose.get(key, set())
        found["lost"] += not owner or (not won and not owner <= killed)
        found["duplicates"] += max(len(won) - 1, 0)
        found["bad"] += len(owner) > 1 or (len(won) == 1 and bool(owner) and owner != won)
    found["duplicates"] += abs(len(list((path / "shards").glob("*/*.h5"))) - len(plan))
    found["bad"] += 0 if killed else len(list((path / "tmp").iterdir()))  # of the dead on other hosts nobody knows
    return found


# Prompts appended at once


def append(path: Path, who: int, tell: Tell) -> None:
    """Prompts of its own, and some that another writer appends as well; then whatever is missing."""
    mine = [*range(PROMPTS + 4 * who, PROMPTS + 4 * who + 6)]
    store = _appended(path, [one for one in records(PROMPTS + 4 * WRITERS + 10) if int(one["id"][1:]) in mine])
    tell(" ".join(f"p{i}" for i in mine))
    for unit in store.missing():
        store.commit(unit, blocks(unit))


def _appended(path: Path, prompts: list[dict[str, Any]]) -> ActivationStore:
    return ActivationStore.create(
        path, streams=STREAMS, prompts=prompts, plan=planned, spec=SPEC, provenance={"by": "soak"}
    )


def faults_of_append(path: Path, ended: Ended, before: int = 0) -> Counter[str]:
    """Every prompt planned once, none forgotten; and the store can be finished by one that comes later."""
    found = Counter[str](unreadable=sum(bool(one.error) for one in ended))
    store = ActivationStore.open(path)
    times = Counter(name for unit in store.plan for name in unit.prompt_ids)
    wanted = {name for one in ended for line in one.told for name in line.split()} | {f"p{i}" for i in range(before)}
    found["lost"] += len(wanted - times.keys()) + len(wanted - store.prompts.keys())
    found["duplicates"] += sum(n - 1 for n in times.values())
    for unit in store.missing():
        store.commit(unit, blocks(unit))
    there = rows_of(path)
    expected = {unit.key: _expected(unit) for unit in store.plan}
    found["bad"] += sum(len(there.get(key, {})) != n for key, n in expected.items())
    found["unreadable"] += len(store.verify(deep=True))
    return found


def _expected(unit: Unit) -> int:
    return sum(len(block.prompt_id) for block in blocks(unit).values())


# Merged at once


def merge(path: Path, who: int, tell: Tell) -> None:
    """The same sources, each writer in an order of its own: whose plan is first is anybody's guess."""
    sources = sorted((path.parent / "sources").iterdir())
    merge_stores(sources[who % 3 :] + sources[: who % 3], path, link=who % 2 == 0)


def faults_of_merge(path: Path, ended: Ended) -> Counter[str]:
    found, store = Counter[str](unreadable=sum(bool(one.error) for one in ended)), ActivationStore.open(path)
    sources = [rows_of(one) for one in (path.parent / "sources").iterdir()]
    expected = {key: rows for source in sources for key, rows in source.items()}
    there = rows_of(path)
    found["lost"] += len(expected.keys() - there.keys())
    found["bad"] += sum(rows != expected.get(key) for key, rows in there.items())
    found["duplicates"] += sum(n - 1 for n in Counter(name for unit in store.plan for name in unit.prompt_ids).values())
    found["unreadable"] += len(store.verify(deep=True))
    return found


RACES = {
    "units": Race(lambda path: store_at(path, PROMPTS), commit_units, faults_of_store),
    "new store": Race(lambda path: None, commit_units, faults_of_store),
    "cells": Race(lambda path: table_at(path, CELLS), commit_cells, faults_of_table),
    "new table": Race(lambda path: None, commit_cells, faults_of_table),
    "append": Race(lambda path: store_at(path, PROMPTS), append, partial(faults_of_append, before=PROMPTS)),
    "append to a new store": Race(lambda path: None, append, faults_of_append),
    "units, killed": Race(lambda path: None, commit_units, faults_of_store, killed=2),
    "cells, killed": Race(lambda path: None, commit_cells, faults_of_table, killed=2),
    "merge": Race(lambda path: make_sources(path.parent / "sources"), merge, faults_of_merge),
    "append, killed": Race(lambda path: None, append, faults_of_append, killed=2),
}


def run(n: int, scratch: Path, seed: int = 0) -> dict[str, int]:
    """n races, each kind in turn."""
    counts = Counter[str](races=n, lost=0, unreadable=0, duplicates=0)
    for i in counted("races", n):
        name = list(RACES)[i % len(RACES)]
        path = scratch / f"race{i}" / "store"
        found = raced(RACES[name], path, seed * n + i)
        if any(found.values()):
            print(f"  races: {name}, number {i}: {dict(+found)}", flush=True)
        counts += found
        shutil.rmtree(path.parent, ignore_errors=True)
    return {"races": n, "lost": 0, "unreadable": 0, "duplicates": 0, **counts}


def raced(race: Race, path: Path, seed: int) -> Counter[str]:
    race.before(path)
    chance, (gate, opened) = random.Random(seed), os.pipe()
    fates = [Fate(chance.randrange(5, 250), "behind") if who < race.killed else NEVER for who in range(WRITERS)]
    children = [
        started(lambda tell, who=who: _run(race, path, who, gate, opened, seed, tell), fate)
        for who, fate in enumerate(fates)
    ]
    os.close(gate)
    os.close(opened)  # the children read the end of the pipe all at once
    ended = [child.ended() for child in children]
    if race.killed:
        ended.append(forked(lambda tell: race.writer(path, WRITERS, tell), NEVER))
    for one in ended:
        if one.error:
            print(f"  races: {one.error}", flush=True)
    try:
        return race.faults(path, ended)
    except (StoreError, OSError) as error:
        print(f"  races: {error!r}", flush=True)
        return Counter(unreadable=1)


def _run(race: Race, path: Path, who: int, gate: int, opened: int, seed: int, tell: Tell) -> None:
    on_a_host(who, random.Random(seed * WRITERS + who))
    os.close(opened)
    os.read(gate, 1)
    race.writer(path, who, tell)


def on_a_host(who: int, chance: random.Random) -> None:
    """This process as one on another host: its name, no locks that others would see, a pace of its own."""
    import fcntl

    def unlocked(*_: Any) -> None:
        raise OSError("no locks between hosts")

    fcntl.flock = unlocked
    fcntl.lockf = unlocked
    socket.gethostname = lambda: f"host{who}"
    sleep = time.sleep

    def slow(call: Callable[..., Any]) -> Callable[..., Any]:
        def late(*arguments: Any, **named: Any) -> Any:
            if chance.random() < 0.3:
                sleep(chance.uniform(0.0, _PAUSE))
            return call(*arguments, **named)

        return late

    for name in CALLS:
        if hasattr(os, name):
            setattr(os, name, slow(getattr(os, name)))
