"""Writers of stores and tables, merges and repairs, killed and started again until they are done. n counts the
kills."""

from __future__ import annotations

from pathlib import Path

from killing import Tell
from mending import copied, merged, repaired, rows_when_sound, sound_merge
from resumed import MADE, Task, killed_in_turn
from samples import answers, blocks, cells_of, rows_of, store_at, table_at

from stores import ActivationStore, ResultTable

PROMPTS, CELLS = 24, 12


def capture(path: Path, tell: Tell, bulk: bool = False) -> None:
    _filled(store_at(path, PROMPTS, bulk), tell)


def in_bulk(path: Path, tell: Tell) -> None:
    """Sealed with xxh3 first; then every shard is read, and gets its sha256."""
    capture(path, tell, bulk=True)
    if faults := sound_store(path):
        raise AssertionError(faults)


def appended(path: Path, tell: Tell) -> None:
    """Prompts that come in four portions."""
    for portion in range(1, 5):
        _filled(store_at(path, portion * PROMPTS // 4), tell)


def table(path: Path, tell: Tell) -> None:
    rows = table_at(path, CELLS)
    tell(MADE)
    for key in rows.missing():
        rows.commit(key, answers(key))
        tell(key)


def _filled(store: ActivationStore, tell: Tell) -> None:
    tell(MADE)
    for unit in store.missing():
        store.commit(unit, blocks(unit))
        tell(unit.key)


def sound_store(path: Path) -> list[str]:
    return ActivationStore.open(path).verify(deep=True)


def sound_table(path: Path) -> list[str]:
    return ResultTable.open(path).verify(deep=True)


TASKS = {
    "capture": Task(capture, rows_of, sound_store),
    "bulk": Task(in_bulk, rows_of, sound_store),
    "append": Task(appended, rows_of, sound_store),
    "table": Task(table, cells_of, sound_table),
    "merge": Task(merged, rows_of, sound_merge, calls=250, seconds=0.07, told=1),
    "copy": Task(copied, rows_of, sound_merge, calls=400, seconds=0.07, told=1),
    "repair": Task(repaired, rows_when_sound, sound_store, calls=200, seconds=0.08, told=1),
}


def run(n: int, scratch: Path, seed: int = 0) -> dict[str, int]:
    return killed_in_turn("kills", TASKS, n, scratch, seed)
