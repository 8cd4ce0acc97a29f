"""Whether a store is what was committed: fast by names and sizes, deep by every byte. One line a fault."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from stores import schema, seals
from stores.commits import LOG_SUFFIX
from stores.errors import StoreCorrupted, StoreError
from stores.folder import MEND, ShardFolder, Status
from stores.plan import Unit
from stores.seals import Fact, Span
from stores.segments import NAME

Check = Callable[[Unit], Sequence[Span]]
_SYSTEM = ".nfs"
"""how a network file system names what was removed while somebody reads it"""


def faults(folder: ShardFolder, check: Check, deep: bool = False) -> list[str]:
    """One line a fault of the store, naming file and mend; an empty list is a sound one.

    Fast: store.json and plan/ fit their digests; each shard that a log promises is there with its size, and those in no
    log carry their identity; nothing else stands in the folders of the store. `deep` reads every byte: `check(unit)`
    returns where the values lie that it found sound, all bytes are hashed and compared with the log, and where the log
    lacks a sha256 it is added, if it may be written.
    """
    try:
        logged, listing = folder.log.facts(), folder.listing()
        now = ShardFolder.open(folder.path, folder.manifest.kind, folder.limits, whole=False)
        folder, now.log = now, folder.log
        units = folder.units
        found = [
            f"{file} is no file of this store, or a link. Mend: `workbench repair` moves it out of the way."
            for file in strange_files(folder)
        ]
        found += folder.log.damaged()
    except StoreError as error:
        return [str(error)]
    if gone := folder.unplanned(logged):
        found.append(gone)
    for unit in units.values():
        try:
            facts, name = logged.get(unit.key, set()), folder.shard_path(unit).name
            if name in listing and not deep:
                folder.check_present(unit, listing[name], facts)
            elif name in listing:
                fact = checked(folder, unit, listing[name], facts, check)
                if seals.SHA256 not in seals.algorithms_of(facts):
                    with suppress(OSError):  # a store that may not be written is verified all the same
                        folder.adopt(unit, fact)
            elif facts:
                found.append(
                    f"{folder.shard_path(unit)}: committed (unit {unit.key!r}) and gone. Mend: run the same command "
                    "again; it makes the missing units anew."
                )
        except StoreError as error:
            found.append(str(error))
    return found


def checked(folder: ShardFolder, unit: Unit, status: Status, logged: set[Fact], check: Check) -> Fact:
    """Size and digests, the sha256 among them, of one shard that is there, once every byte of it was found sound.

    Raises StoreCorrupted, UnsafeFile, NotFinite.
    """
    folder.check_present(unit, status, logged)
    path, algorithms = folder.shard_path(unit), seals.algorithms_of(logged)
    # What the log knows by its sha256 is hashed before libhdf5 sees it: what was forged is then never parsed.
    first, rest = algorithms & {seals.SHA256}, {seals.SHA256, *algorithms} - (algorithms & {seals.SHA256})
    digests = seals.read_fact(path, first).digests if first else frozenset()
    if first and not any(digests <= fact.digests for fact in logged):
        raise _not_committed(path, unit)
    spans = check(unit)
    whole = Fact(status[0], digests | (seals.read_fact(path, rest, spans).digests if rest else frozenset()))
    if logged and not seals.fits(whole, logged):
        raise _not_committed(path, unit)
    return whole


def strange_files(folder: ShardFolder) -> Iterator[Path]:
    """What stands in the folders of the store and is no file of it: a link, a stray copy, a shard of something else."""
    for name in (schema.QUARANTINE, schema.INDEX):
        if (folder.path / name).is_symlink():
            yield folder.path / name
    expected = {folder.shard_path(unit) for unit in folder.units.values()}
    for name, is_ours in (
        (schema.SHARDS, expected.__contains__),
        (schema.COMMITS, lambda path: path.suffix == LOG_SUFFIX),
        (schema.PLAN, lambda path: bool(NAME.fullmatch(path.name))),
    ):
        for at, folders, files in os.walk(folder.path / name):
            for path in sorted(Path(at, file) for file in (*folders, *files)):
                mode = path.lstat().st_mode
                if (
                    not stat.S_ISDIR(mode)
                    and not path.name.startswith(_SYSTEM)
                    and not (stat.S_ISREG(mode) and is_ours(path))
                ):
                    yield path


def _not_committed(path: Path, unit: Unit) -> StoreCorrupted:
    return StoreCorrupted(f"{path}: its bytes are not those that were committed (unit {unit.key!r}). {MEND}")
