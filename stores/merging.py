"""Several stores of one spec joined into one: the parts of a run that was split over machines, or runs over other
prompts. Every shard is read and checked on its way, and is linked rather than copied where both stand on one disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stores import publish, safe_text, schema
from stores.creating import made
from stores.errors import StoreCorrupted, StoreMismatch
from stores.folder import ShardFolder, Status, sync_file
from stores.limits import LIMITS, Limits
from stores.opening import check_of, nested_stores, of_folder
from stores.plan import Unit
from stores.provenance import scrubbed
from stores.results import ResultTable
from stores.seals import SHA256, Fact, Seal
from stores.store import ActivationStore
from stores.verifying import checked

_BATCH = 256
"""shards between two fsyncs of folders and log; a merge that is killed looks again at so many at most"""
_PIECE = 1 << 20
_OTHER_DISK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


def merge_stores(
    sources: Sequence[str | Path], to: str | Path, *, link: bool = True, limits: Limits = LIMITS
) -> ActivationStore | ResultTable:
    """The store at `to` with all that the `sources` hold: one spec, their plans one behind the other.

    A unit that several sources plan is planned once, at its first place; parts of one plan give that plan again. Stores
    inside of the sources (answers that were generated) are merged likewise. `to` may exist, and a merge that was
    stopped goes on where it was. Every shard is checked to its last byte, against its own hashes and its log.
    `link=False` copies where a hard link would do (a link is the same file: what damages one damages both). The sources
    stay as they are.

    Raises StoreMismatch, naming both, for stores of other specs, prompts that differ under one id, prompts in two
    different units, and shards of one unit with other bytes; StoreCorrupted, and then nothing of that shard is there.
    """
    if not sources:
        raise ValueError("merge_stores([]): expected at least one store.")
    folders = [ShardFolder.open(path, limits=limits) for path in sources]
    to = Path(to)
    for other in folders[1:]:
        _check_same(folders[0], other)
    if os.path.lexists(to / schema.MANIFEST):
        _check_same(folders[0], ShardFolder.open(to, limits=limits))
    for folder in folders:
        _append_plan(folder, to)
    target = ShardFolder.open(to, limits=limits)
    for folder in folders:
        _take(folder, target, link)
    inner = [nested for path in sources for nested in nested_stores(path)]
    for name in dict.fromkeys(nested.name for nested in inner):
        merge_stores([nested for nested in inner if nested.name == name], to / name, link=link, limits=limits)
    return of_folder(target)


def _check_same(one: ShardFolder, other: ShardFolder) -> None:
    try:
        one.manifest.check_same(other.manifest, one.path)
        one.manifest.check_prompts(other.manifest.prompts, one.path)
    except StoreMismatch as error:
        raise StoreMismatch(f"{other.path} cannot be merged with {one.path}. {error}") from error


def _append_plan(source: ShardFolder, to: Path) -> None:
    """The units and prompts of `source` that the store at `to` does not plan, as a segment of its own."""
    manifest, there = source.manifest, {}
    if os.path.lexists(to / schema.MANIFEST):
        target = ShardFolder.open(to, limits=source.limits)
        there = {prompt: unit for unit in target.units.values() for prompt in unit.prompt_ids}
        _check_same(target, source)
        _check_units(source, target, there)
    made(
        to,
        manifest.kind,
        spec=manifest.spec,
        plan=[unit for unit in manifest.units.values() if not any(prompt in there for prompt in unit.prompt_ids)],
        provenance={**manifest.provenance, "merged_from": str(source.path)},
        prompts=manifest.prompts,
        streams=manifest.streams,
        by_prompt=manifest.kind == schema.KIND_ACTIVATIONS,
    )


def _check_units(source: ShardFolder, target: ShardFolder, there: dict[str, Unit]) -> None:
    """A prompt has one unit: rows of two would be there twice. What nobody has captured yet is nobody's unit."""
    captured = {unit.key for unit, _ in source.committed()}
    for unit in source.units.values():
        others = {there[prompt].key for prompt in unit.prompt_ids if prompt in there}
        known = target.units.get(unit.key)
        if (others - {unit.key} and unit.key in captured) or (known is not None and known != unit):
            raise StoreMismatch(
                f"{source.path} has unit {unit.key!r}, some of whose prompts are in other units of {target.path} "
                f"({', '.join(sorted(others))}): expected each prompt in one unit, or its rows would be there twice. "
                "Mend: capture the parts of one plan (--part i/n), or other prompts."
            )


def _take(source: ShardFolder, target: ShardFolder, link: bool) -> None:
    logged, check = source.log.facts(), check_of(source)
    known, present, rows = target.log.facts(), target.listing(), _rows_of(source)
    waiting: list[tuple[Unit, Fact]] = []
    for unit, status in source.committed():
        if unit.key not in target.units:
            continue
        facts, name = logged.get(unit.key, set()), source.shard_path(unit).name
        if _taken(facts, known.get(unit.key, set()), present.get(name)):
            continue
        fact = checked(source, unit, status, facts, check)
        _place(source, target, unit, fact, link)
        waiting.append((unit, fact))
        if len(waiting) == _BATCH:
            _log(target, source, waiting, rows)
            waiting = []
    _log(target, source, waiting, rows)


def _taken(facts: set[Fact], known: set[Fact], there: Status | None) -> bool:
    """Whether the target has this shard and says so in its log: the same size and the same sha256."""
    digests = {digest for fact in facts for digest in fact.digests if digest[0] == SHA256}
    return there is not None and any(fact.size == there[0] and fact.digests & digests for fact in known)


def _place(source: ShardFolder, target: ShardFolder, unit: Unit, fact: Fact, link: bool) -> None:
    """The shard under its name in the target, never over another one."""
    old, new = source.shard_path(unit), target.shard_path(unit)
    if not safe_text.plain_folder(new.parent):
        publish.make_folder(new.parent)
    with publish.named(new):
        try:
            if not link:
                raise OSError(errno.EXDEV, "asked for a copy")
            sync_file(old)
            os.link(old, new, follow_symlinks=False)
            return
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _OTHER_DISK:
                raise
            if publish.publish(lambda file: _copy(old, fact, file), new, target.path / schema.TMP):
                return
    theirs = checked(target, unit, _status(new), target.log.facts().get(unit.key, set()), check_of(target))
    if not theirs.digests & fact.digests:
        raise StoreMismatch(
            f"{old} and {new} are shards of one unit ({unit.key!r}) with other bytes: expected equal ones. Mend: find "
            "out which is right (threads, devices and libraries stand in the provenance), and leave the other one out."
        )


def _copy(old: Path, fact: Fact, file: int) -> None:
    """The bytes of a shard into an empty file; what changed since it was checked is refused."""
    seal, at = Seal(SHA256), 0
    with os.fdopen(safe_text.open_descriptor(old), "rb", buffering=0) as source:
        while piece := source.read(_PIECE):
            publish.write_at(file, piece, at)
            seal.update(piece)
            at += len(piece)
    if not seal.fact.digests <= fact.digests:
        raise StoreCorrupted(f"{old} changed while it was copied: expected a sealed shard. Mend: verify its store.")


def _log(
    target: ShardFolder, source: ShardFolder, placed: Sequence[tuple[Unit, Fact]], rows: Mapping[str, Any]
) -> None:
    """Makes what was placed durable, and only then promises it."""
    if not placed:
        return
    with publish.named(target.path / schema.SHARDS):
        for folder in {target.shard_path(unit).parent for unit, _ in placed} | {target.path / schema.SHARDS}:
            publish.sync_folder(folder)
    origin = scrubbed(str(source.path))
    target.log.append(
        *({**target.record(unit, fact, rows.get(unit.key)), "merged_from": origin} for unit, fact in placed)
    )


def _rows_of(source: ShardFolder) -> dict[str, Any]:
    """Unit -> rows a stream, as the writers of the source counted them."""
    return {record["unit"]: record["rows"] for _, record in source.log.records() if "rows" in record}


def _status(path: Path) -> Status:
    status = path.lstat()
    return status.st_size, status.st_mtime_ns
