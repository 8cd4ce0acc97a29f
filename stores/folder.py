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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stores import publish, safe_h5, schema, seals
from stores.canonical import content_key, plain
from stores.commits import CommitLog
from stores.errors import StoreCorrupted, StoreError, StoreMissing
from stores.manifest import Manifest, prompt_records, read_manifest
from stores.plan import Stream, Unit, new_segment
from stores.provenance import scrubbed, secrets_in
from stores.seals import Fact, Seal, Span

MEND = safe_h5.MEND
_MAX_ATTRIBUTE = 256 << 10
Plan = Sequence[Unit] | Callable[[list[str]], Sequence[Unit]]
Status = tuple[int, int]
"""(size in bytes, mtime in ns) of a shard: another file under the same name has another status"""


@dataclass
class ShardFolder:
    """An open store folder, of activations or of results. Made by `create` or `open`, never directly."""

    path: Path
    manifest: Manifest
    algorithm: str = seals.SHA256
    """the seal of the shards that are written here; those that are read may have any"""
    _confirmed: dict[str, Status] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._log = CommitLog(self.path / schema.COMMITS)
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
        if found := secrets_in(spec):
            raise ValueError(f"The spec holds what looks like a secret at {found[0]}: a store is shared; leave it out.")
        asked = Manifest(
            kind, plain(spec), tuple(streams), scrubbed(plain(provenance)), prompt_records(prompts), segments=()
        )
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise StoreMissing(f"{path} is a file: expected a folder, or nothing, where a store is to be made.")
        for name in (schema.SHARDS, schema.COMMITS, schema.TMP):
            publish.make_folder(path / name)
        publish.sweep(path / schema.TMP)
        with _locked(path):
            if (path / schema.MANIFEST).exists():
                stored = read_manifest(path, kind)
                stored.check_same(asked, path)
            else:
                stored = Manifest(kind, asked.spec, asked.streams, asked.provenance, prompts=(), segments=())
            planned = {prompt for unit in stored.units.values() for prompt in unit.prompt_ids}
            if callable(plan):
                plan = plan([record["id"] for record in asked.prompts if record["id"] not in planned])
            segment = new_segment(stored.units, list(plan), planned if by_prompt else None)
            manifest = stored.extended(asked.prompts, segment)
            _check_plan(manifest, by_prompt)
            if manifest != stored or not (path / schema.MANIFEST).exists():
                publish.replace(manifest.to_bytes(), path / schema.MANIFEST, path / schema.TMP)
        return cls(path, manifest, algorithm)

    @classmethod
    def open(cls, path: str | Path, kind: str) -> ShardFolder:
        """The store at `path`; needs no write permission, and no log. Raises StoreMissing, StoreMismatch,
        StoreCorrupted."""
        return cls(Path(path), read_manifest(Path(path), kind))

    @property
    def units(self) -> dict[str, Unit]:
        return self.manifest.units

    def shard_path(self, unit: Unit) -> Path:
        """Where the shard of this unit stands, a function of store and unit alone: two workers meet at one name."""
        key = hashlib.sha256(f"{self.manifest.content_key}\0{unit.key}".encode("utf-8", "surrogatepass")).hexdigest()[
            :32
        ]
        return self.path / schema.SHARDS / key[:2] / f"{key}.h5"

    def root_attributes(self, unit: Unit, note: str = "") -> dict[str, str]:
        """What every shard says about itself; no clock in it, so equal numbers give equal bytes."""
        return {
            schema.A_FORMAT: schema.FORMAT,
            schema.A_VERSION: str(schema.FORMAT_VERSION),
            schema.A_KIND: self.manifest.kind,
            schema.A_CONTENT_KEY: self.manifest.content_key,
            schema.A_UNIT: unit.key,
            schema.A_UNIT_PROMPTS: content_key(unit.prompt_ids),
            **self._origin,
            schema.A_NOTE: note,
        }

    @cached_property
    def _origin(self) -> dict[str, str]:
        return {
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
        self._append(unit, fact, dict(rows))
        return ours

    def _append(self, unit: Unit, fact: Fact, rows: dict[str, int] | None = None) -> None:
        file = str(self.shard_path(unit).relative_to(self.path))
        more = {} if rows is None else {"rows": rows}
        self._log.append({"unit": unit.key, "file": file, **fact.record(), **more, "time": round(time.time(), 3)})

    def committed(self) -> list[tuple[Unit, Status]]:
        """Units whose shard stands, in plan order. Raises StoreCorrupted or StoreMissing for damaged or lost shards."""
        present, lost = self._survey()
        if lost:
            raise StoreMissing(
                f"{self.shard_path(lost[0])} was committed (unit {lost[0].key!r}) and is gone, with "
                f"{len(lost) - 1} others: reading on would silently leave rows out. Mend: run the same command again; "
                "it makes the missing units anew."
            )
        return present

    def missing(self) -> list[Unit]:
        """Planned units without a shard, in plan order, as the disk is now (other writers included)."""
        done = {unit.key for unit, _ in self._survey()[0]}
        return [unit for unit in self.units.values() if unit.key not in done]

    def problems(self, check: Callable[[Unit], Sequence[Span]], deep: bool = False) -> list[str]:
        """One line a fault: `check(unit)`, then size and hashes against the log. Reads every byte of every shard.

        `check` returns where the values lie that it found to fit their own hashes. `deep` adds the sha256 of each sound
        shard to the log, where it has none.
        """
        found, facts = [], self._log.facts()
        for unit in self.units.values():
            path, logged = self.shard_path(unit), facts.get(unit.key, set())
            if not path.exists():
                if logged:
                    found.append(f"{path}: committed (unit {unit.key!r}) and gone. Mend: run the same command again.")
                continue
            algorithms = seals.algorithms_of(logged)
            lacking = {seals.SHA256} - algorithms if deep else set()
            try:
                fact = seals.read_fact(path, algorithms | lacking, check(unit))
            except StoreError as error:
                found.append(str(error))
                continue
            if logged and not seals.fits(fact, logged):
                found.append(f"{path}: its bytes are not those that were committed (unit {unit.key!r}). {MEND}")
            elif lacking:
                self._append(unit, fact)
        return found

    def _survey(self) -> tuple[list[tuple[Unit, Status]], list[Unit]]:
        """(units whose shard stands, units that a log promises and the disk lacks), from one listing of the disk."""
        facts, found = self._log.facts(), self._listing()
        present, lost = [], []
        for unit in self.units.values():
            path, logged = self.shard_path(unit), facts.get(unit.key)
            if path.name in found:
                self._check_present(unit, path, found[path.name], logged)
                present.append((unit, found[path.name]))
            elif logged:
                lost.append(unit)
        return present, lost

    def _listing(self) -> dict[str, Status]:
        shards, found = self.path / schema.SHARDS, {}
        for folder in os.scandir(shards) if shards.is_dir() else ():
            for entry in os.scandir(folder) if folder.is_dir(follow_symlinks=False) else ():
                status = entry.stat(follow_symlinks=False)
                found[entry.name] = status.st_size, status.st_mtime_ns
        return found

    def _check_present(self, unit: Unit, path: Path, status: Status, logged: set[Fact] | None) -> None:
        """By size, when the shard is in the log; by the identity it carries, once, when it is not."""
        if logged:
            sizes = {fact.size for fact in logged}
            if status[0] not in sizes:
                expected = " or ".join(map(str, sorted(sizes)))
                raise StoreCorrupted(f"{path} has {status[0]} bytes, expected {expected} (unit {unit.key!r}). {MEND}")
        elif self._confirmed.get(path.name) != status:
            with safe_h5.opened(path) as file:
                self.check_identity(file, unit)
            self._confirmed[path.name] = status


def _short_json(document: dict[str, Any]) -> str:
    """Attributes stay small: the spec of a large sweep stands in store.json alone, and by its hash in the shard."""
    text = json.dumps(document)
    return text if len(text) <= _MAX_ATTRIBUTE else json.dumps({"content_key": content_key(document)})


def _check_plan(manifest: Manifest, by_prompt: bool) -> None:
    """Every planned prompt has a record: a row must lead back to its label and tags."""
    if by_prompt:
        known = {record["id"] for record in manifest.prompts}
        for unit in manifest.units.values():
            if unknown := [prompt for prompt in unit.prompt_ids if prompt not in known]:
                raise ValueError(f"Unit {unit.key!r} holds prompt {unknown[0]!r}, which has no record in `prompts`.")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer of store.json at a time on this host; without flock, prompts must not be appended in parallel."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield
    finally:
        os.close(descriptor)
