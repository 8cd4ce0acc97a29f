"""Merges and repairs as work that is killed: each goes on from what a killed one left.

The stores that they take from lie beside the path, and are made by the first run, which nobody kills.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from killing import Tell
from resumed import MADE, Units
from samples import SPEC, STREAMS, blocks, planned, records, rows_of, store_at

from stores import ActivationStore, StoreCorrupted
from stores.merging import merge_stores
from stores.repairing import repair_store

PARTS, PROMPTS, MORE = 2, 24, 6


def merged(path: Path, tell: Tell, link: bool = True) -> None:
    """Two parts of one plan, and a store of other prompts."""
    sources = path.parent / "sources"
    if not sources.exists():
        make_sources(sources)
    store = merge_stores(sorted(sources.iterdir()), path, link=link)
    _tell_all(store, tell)


def copied(path: Path, tell: Tell) -> None:
    """As it goes where the stores lie on different disks."""
    merged(path, tell, link=False)


def repaired(path: Path, tell: Tell) -> None:
    """A store with damaged shards, torn and lost logs and strange files; then its own command again."""
    damaged = path.parent / "damaged"
    if not damaged.exists():
        _make_damaged(damaged)
    if not path.exists():
        _copy(damaged, path)
    repair_store(path)
    store = store_at(path, PROMPTS)
    for unit in store.missing():
        store.commit(unit, blocks(unit))
    _tell_all(store, tell)


def _tell_all(store: object, tell: Tell) -> None:
    assert isinstance(store, ActivationStore) and not store.missing()
    tell(MADE)
    for unit in store.plan:
        tell(unit.key)


def rows_when_sound(path: Path) -> Units:
    """Of a store that may not be mended yet: nothing where it raises, as it must."""
    try:
        return rows_of(path)
    except StoreCorrupted:
        return {}


def sound_merge(path: Path) -> list[str]:
    """Nor have the sources changed."""
    stores = [path, *sorted((path.parent / "sources").iterdir())]
    return [fault for one in stores for fault in ActivationStore.open(one).verify(deep=True)]


def make_sources(sources: Path) -> None:
    for part in range(PARTS):
        store = store_at(sources / f"part{part}", PROMPTS)
        for unit in store.plan[part::PARTS]:
            store.commit(unit, blocks(unit))
    others = records(PROMPTS + MORE)[PROMPTS:]
    store = ActivationStore.create(
        sources / "others", streams=STREAMS, prompts=others, plan=planned, spec=SPEC, provenance={"by": "soak"}
    )
    for unit in store.missing():
        store.commit(unit, blocks(unit))


def _make_damaged(path: Path) -> None:
    store = store_at(path, PROMPTS)
    for unit in store.missing():
        store.commit(unit, blocks(unit))
    first, second, third, *_ = sorted((path / "shards").glob("*/*.h5"))
    raw = bytearray(first.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    first.write_bytes(raw)
    second.write_bytes(second.read_bytes()[:-7])
    third.unlink()
    log = next((path / "commits").iterdir())
    log.write_bytes(log.read_bytes()[:-20].replace(b'"bytes"', b'"bites"', 1))
    (path / "shards" / "notes.txt").write_text("what is this")


def _copy(damaged: Path, path: Path) -> None:
    """Whole or not at all: this is no part of what is tried."""
    draft = path.with_name(f"{path.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(damaged, draft)
    os.rename(draft, path)
