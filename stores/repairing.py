"""A damaged store made sound again: what is damaged is moved away, never deleted, and the same command fills the gaps.

Nothing here invents a row. A shard that does not fit its hashes goes to quarantine/, and its unit is missing again; a
log that was damaged or lost is written anew from the shards, each of which says what it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from stores import publish, safe_text, schema
from stores.commits import CommitLog, is_whole, parsed, whole_lines
from stores.errors import NotFinite, StoreCorrupted, StoreMissing, UnsafeFile
from stores.folder import ShardFolder
from stores.limits import LIMITS, Limits
from stores.opening import check_of, nested_stores
from stores.plan import Unit
from stores.seals import SHA256, algorithms_of
from stores.verifying import checked, strange_files


def repair_store(path: str | Path, limits: Limits = LIMITS) -> list[str]:
    """Mends the store at `path` as far as its own files allow. One line a deed; the last ones name the units that are
    missing, which the command that made the store makes anew. An empty list: it was whole.

    Sweeps what dead writers left; moves damaged shards, and files of no store, into quarantine/; writes the good lines
    of damaged logs, and those that are lacking, into a new log. Other writers may go on meanwhile. Raises StoreError
    when store.json or plan/ is damaged (restore them from a copy), WriteFailed.
    """
    path = Path(path)
    folder = ShardFolder.open(path, limits=limits, whole=False)
    done = [f"swept {name}" for name in publish.sweep(path / schema.TMP)]
    for file in list(strange_files(folder)):
        done.append(f"{_moved(path, file)}: it was no file of this store")
    done += _logs_mended(folder)
    done += _shards_mended(ShardFolder.open(path, limits=limits, whole=False))
    now = ShardFolder.open(path, limits=limits, whole=False)
    if gone := now.unplanned(now.log.facts()):
        done.append(gone)
    deeds = "\n".join(done)
    lost = {unit.key for unit in now.lost() if now.shard_path(unit).name not in deeds}  # by other hands than these
    for unit in now.missing():
        if done or unit.key in lost:
            why = ", whose shard was committed and is gone" if unit.key in lost else ""
            done.append(f"missing: {_named(unit)}{why}; the same command makes it anew")
    return done + [line for inner in nested_stores(path) for line in repair_store(inner, limits)]


def _shards_mended(folder: ShardFolder) -> Iterator[str]:
    logged, check, listing = folder.log.facts(), check_of(folder), folder.listing()
    for unit in folder.units.values():
        shard, facts = folder.shard_path(unit), logged.get(unit.key, set())
        if shard.name not in listing:
            continue
        try:
            fact = checked(folder, unit, listing[shard.name], facts, check)
        except (StoreCorrupted, UnsafeFile, NotFinite) as error:
            yield f"{_moved(folder.path, shard)}: {str(error).partition(' Mend:')[0]}"
            continue
        except StoreMissing:  # another hand was faster
            continue
        if SHA256 not in algorithms_of(facts):
            folder.adopt(unit, fact)
            yield f"logged {shard.name} ({_named(unit)}), which no log had with its sha256"


def _logs_mended(folder: ShardFolder) -> Iterator[str]:
    """A log with damage is moved away once its good lines stand in a new one. What its writer, if it lives, adds in
    between is lost from the log alone: the shard is there, and is logged again."""
    mended = CommitLog(folder.path / schema.COMMITS, folder.limits)
    for log in folder.log.files():
        good, bad = [], 0
        for line in whole_lines(log, 0, folder.limits):
            try:
                good.append({name: value for name, value in parsed(line).items() if name != "line"})
            except (ValueError, StoreCorrupted, UnsafeFile):
                bad += 1
        torn = not is_whole(log) and publish.abandoned(log.stem, log)
        if bad or torn:
            if good:
                mended.append(*good)
            what = _many(bad, "damaged line") + ", torn at its end" * torn
            yield f"{_moved(folder.path, log)}: {what}; {len(good)} kept"


def _moved(store: Path, file: Path) -> str:
    """Moves a file or link into quarantine/ under a name that tells where it stood."""
    quarantine = store / schema.QUARANTINE
    if not safe_text.plain_folder(quarantine):
        publish.make_folder(quarantine)
    place = quarantine / f"{'_'.join(file.relative_to(store).parts)}.{publish.owner_name()}"
    with publish.named(place):
        os.rename(file, place)
        publish.sync_folder(quarantine)
        publish.sync_folder(file.parent)
    return f"moved {file.relative_to(store)} to {place.relative_to(store)}"


def _named(unit: Unit) -> str:
    return f"unit {unit.key!r}" + (f" ({_many(len(unit.prompt_ids), 'prompt')})" if unit.prompt_ids else "")


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
