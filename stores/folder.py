"""ShardFolder: the commit protocol. A folder of sealed shards, the plan they fill, and the logs that say which are
there.

What is true: a unit is done when its shard stands under its final name, for a shard gets that name only when it is
whole and synced. The logs add what a directory cannot say (size and seal), and can be thrown away: shards without a
log line are recognised by the identity that each carries inside.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stores import publish, safe_h5, safe_text, schema, seals
from stores.canonical import content_key
from stores.commits import CommitLog
from stores.creating import Plan, made
from stores.errors import StoreCorrupted, StoreMissing, UnsafeFile
from stores.limits import LIMITS, Limits
from stores.manifest import Manifest, read_manifest
from stores.plan import Stream, Unit
from stores.seals import Fact, Seal, Span

MEND = safe_h5.MEND
_MAX_ATTRIBUTE = 256 << 10
Status = tuple[int, int]
"""(size in bytes, mtime in ns) of a shard: another file under the same name has another status"""


@dataclass
class ShardFolder:
    """An open store folder, of activations or of results. Made by `create` or `open`, never directly."""

    path: Path
    manifest: Manifest
    algorithm: str = seals.SHA256
    """the seal of the shards that are written here; those that are read may have any"""
    limits: Limits = LIMITS
    """what the files of this store may declare"""
    _confirmed: dict[str, Status] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log = CommitLog(self.path / schema.COMMITS, self.limits)
        self._synced: set[Path] = set()

    @classmethod
    def create(
        cls,
        path: str | Path,
        kind: str,
        *,
        spec: Mapping[str, Any],
        plan: Plan,
        provenance: Mapping[str, Any],
        prompts: Sequence[Mapping[str, Any]] = (),
        streams: Sequence[Stream] = (),
        by_prompt: bool = True,
        algorithm: str = seals.SHA256,
    ) -> ShardFolder:
        """A new store, or the one that is there when its spec is equal; prompts it does not have add a plan segment.

        Raises StoreMismatch (names the first differing keys), ValueError for a secret inside the spec.
        """
        manifest = made(
            Path(path),
            kind,
            spec=spec,
            plan=plan,
            provenance=provenance,
            prompts=prompts,
            streams=streams,
            by_prompt=by_prompt,
        )
        return cls(Path(path), manifest, algorithm)

    @classmethod
    def open(
        cls, path: str | Path, kind: str | None = None, limits: Limits = LIMITS, whole: bool = True
    ) -> ShardFolder:
        """The store at `path`, of any kind when none is named; needs no write permission, and no log. Raises
        StoreMissing, StoreMismatch, StoreCorrupted, UnsafeFile; `whole=False`: not when a part of its plan is gone."""
        path = Path(path)
        for name in schema.FOLDERS:
            safe_text.plain_folder(path / name)
        # The logs first: what they name was planned before.
        logged = set(CommitLog(path / schema.COMMITS, limits).facts()) if whole else set()
        folder = cls(path, read_manifest(path, kind, limits), limits=limits)
        if gone := folder.unplanned(logged):
            raise StoreCorrupted(gone)
        return folder

    @property
    def units(self) -> dict[str, Unit]:
        return self.manifest.units

    def shard_path(self, unit: Unit) -> Path:
        """Where the shard of this unit stands, a function of store and unit alone: two workers meet at one name."""
        key = hashlib.sha256(f"{self.manifest.content_key}\0{unit.key}".encode("utf-8", "surrogatepass")).hexdigest()[
            :32
        ]
        return self.path / schema.SHARDS / key[:2] / f"{key}{schema.SHARD_SUFFIX}"

    def root_attributes(self, unit: Unit, note: str = "") -> dict[str, str]:
        """What every shard says about itself; no clock in it, so equal numbers give equal bytes."""
        return {
            **self.origin,
            schema.A_UNIT: unit.key,
            schema.A_UNIT_PROMPTS: content_key(unit.prompt_ids),
            schema.A_NOTE: note,
        }

    @cached_property
    def origin(self) -> dict[str, str]:
        """What every file made from this store says of it."""
        return {
            schema.A_FORMAT: schema.FORMAT,
            schema.A_VERSION: str(schema.SHARD_VERSION),
            schema.A_KIND: self.manifest.kind,
            schema.A_CONTENT_KEY: self.manifest.content_key,
            schema.A_SPEC: _short_json(self.manifest.spec),
            schema.A_PROVENANCE: _short_json(self.manifest.provenance),
        }

    def check_identity(self, file: safe_h5.SafeFile, unit: Unit) -> None:
        """Raises StoreCorrupted when a shard is not the one of this unit of this store (copied in, renamed)."""
        for name, expected in (
            (schema.A_CONTENT_KEY, self.manifest.content_key),
            (schema.A_UNIT, unit.key),
            (schema.A_UNIT_PROMPTS, content_key(unit.prompt_ids)),
        ):
            if (came := file.text(name)) != expected:
                raise StoreCorrupted(
                    f"{file.path}: {name} is {came!r}, expected {expected!r} (unit {unit.key!r}). {MEND}"
                )

    def checked_unit(self, unit: Unit) -> Unit:
        """Raises ValueError unless this very unit is planned."""
        if self.units.get(unit.key) != unit:
            known = "with other prompts" if unit.key in self.units else f"among {len(self.units)} planned units"
            raise ValueError(
                f"Unit {unit.key!r} is not in the plan of {self.path} (the key is {known}): expected a unit from "
                "`missing()`. Mend: append its prompts through `create`."
            )
        return unit

    def commit(
        self,
        unit: Unit,
        content: bytes | memoryview | Callable[[int, Seal], object],
        rows: Mapping[str, int],
        confirm: Callable[[], Sequence[Span]],
    ) -> bool:
        """Publishes a shard and logs it. True: ours. False: another writer was first, `confirm()` has checked theirs.

        `content` is its bytes, or writes them into a descriptor and into the seal; `confirm` returns where the values
        lie that it found to fit their own hashes. When this returns, shard, folder
        entry and log line are synced: neither kill nor power cut takes them back.
        """
        final = self.shard_path(unit)
        for folder in (final.parent, self.path / schema.TMP, self.path / schema.COMMITS):
            if not safe_text.plain_folder(folder):
                publish.make_folder(folder)
        if final.parent not in self._synced:  # another writer may have made it, and not have synced its name yet
            publish.sync_folder(final.parent.parent)
            self._synced.add(final.parent)
        seal = Seal(self.algorithm)

        def write(file: int) -> None:
            if callable(content):
                content(file, seal)
            else:
                seal.update(content)
                publish.write_at(file, content, 0)

        ours = publish.publish(write, final, self.path / schema.TMP)
        fact = seal.fact if ours else seals.read_fact(final, {self.algorithm}, confirm())
        if not ours:
            publish.sync_folder(final.parent)  # its writer may have been killed before it did so
        self.append(unit, fact, dict(rows))
        return ours

    def append(self, unit: Unit, fact: Fact, rows: dict[str, int] | None = None) -> None:
        """Logs a shard that stands: when this returns, the line is synced."""
        self.log.append(self.record(unit, fact, rows))

    def adopt(self, unit: Unit, fact: Fact) -> None:
        """Logs a sound shard that somebody else has put there; what it rests on is synced before it is promised."""
        shard = self.shard_path(unit)
        with publish.named(shard):
            sync_file(shard)
            publish.sync_folder(shard.parent)
        self.append(unit, fact)

    def record(self, unit: Unit, fact: Fact, rows: dict[str, int] | None = None) -> dict[str, Any]:
        """What a log says of a shard."""
        file = str(self.shard_path(unit).relative_to(self.path))
        more = {} if rows is None else {"rows": rows}
        return {"unit": unit.key, "file": file, **fact.record(), **more, "time": round(time.time(), 3)}

    def committed(self) -> list[tuple[Unit, Status]]:
        """Units whose shard stands, in plan order. Raises StoreCorrupted or StoreMissing for damaged or lost shards."""
        present, lost = self._survey()
        if lost:
            others = f", with {len(lost) - 1} others" if len(lost) > 1 else ""
            raise StoreMissing(
                f"{self.shard_path(lost[0])} was committed (unit {lost[0].key!r}) and is gone{others}: reading on "
                "would silently leave rows out. Mend: run the same command again; it makes the missing units anew."
            )
        return present

    def lost(self) -> list[Unit]:
        """Units that a log names and whose shard is gone, in plan order."""
        return self._survey()[1]

    def missing(self) -> list[Unit]:
        """Planned units without a shard, in plan order, as the disk is now (other writers included)."""
        done = {unit.key for unit, _ in self._survey()[0]}
        return [unit for unit in self.units.values() if unit.key not in done]

    def unplanned(self, logged: Collection[str]) -> str:
        """What is wrong when a log names units that are in no plan; empty when it does not."""
        if not (unknown := sorted(set(logged) - self.units.keys())):
            return ""
        return (
            f"{self.path / schema.COMMITS} has {len(unknown)} units that are not in the plan (unit {unknown[0]!r}): a "
            f"file of {schema.PLAN}/ is gone, and reading on would silently leave rows out. Mend: restore it from a "
            "copy, or run the command that appended these prompts again (a network file system may also show a file "
            "late: wait a minute)."
        )

    def _survey(self) -> tuple[list[tuple[Unit, Status]], list[Unit]]:
        """(units whose shard stands, units that a log promises and the disk lacks), from one listing of the disk."""
        facts, found = self.log.facts(), self.listing()
        present, lost = [], []
        for unit in self.units.values():
            path, logged = self.shard_path(unit), facts.get(unit.key)
            if path.name in found:
                self.check_present(unit, found[path.name], logged)
                present.append((unit, found[path.name]))
            elif logged:
                lost.append(unit)
        return present, lost

    def listing(self) -> dict[str, Status]:
        """Name of each file under shards/ -> its status. Raises UnsafeFile where a link or another thing stands."""
        shards, found = self.path / schema.SHARDS, {}
        for folder in os.scandir(shards) if safe_text.plain_folder(shards) else ():
            if not folder.is_dir(follow_symlinks=False) and not folder.is_symlink():
                continue  # no shard stands there; `verify` names it
            for entry in os.scandir(folder) if safe_text.plain_folder(Path(folder.path)) else ():
                status = entry.stat(follow_symlinks=False)
                if entry.name.endswith(schema.SHARD_SUFFIX) and not stat.S_ISREG(status.st_mode):
                    raise UnsafeFile(f"{entry.path} is not a regular file: expected a sealed shard.")
                found[entry.name] = status.st_size, status.st_mtime_ns
        return found

    def check_present(self, unit: Unit, status: Status, logged: set[Fact] | None) -> None:
        """By size, when the shard is in the log; by the identity it carries, once, when it is not."""
        path = self.shard_path(unit)
        if logged:
            sizes = {fact.size for fact in logged}
            if status[0] not in sizes:
                expected = " or ".join(map(str, sorted(sizes)))
                raise StoreCorrupted(f"{path} has {status[0]} bytes, expected {expected} (unit {unit.key!r}). {MEND}")
        elif self._confirmed.get(path.name) != status:
            with safe_h5.opened(path, self.limits) as file:
                self.check_identity(file, unit)
            self._confirmed[path.name] = status


def sync_file(path: Path) -> None:
    """fsync of a file that another process wrote, and may not have synced (rsync, cp)."""
    descriptor = safe_text.open_descriptor(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _short_json(document: dict[str, Any]) -> str:
    """Attributes stay small: the spec of a large sweep stands in store.json alone, and by its hash in the shard."""
    text = json.dumps(document)
    return text if len(text) <= _MAX_ATTRIBUTE else json.dumps({"content_key": content_key(document)})
