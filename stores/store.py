"""ActivationStore: residual streams of a prompt set, unit by unit on disk, as rows to whoever reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stores import frames, safe_h5, schema, seals
from stores.all_rows import AllRows
from stores.block import Block, checked
from stores.creating import Plan
from stores.errors import NoRows, StoreCorrupted
from stores.folder import ShardFolder, Status
from stores.limits import LIMITS, Limits
from stores.part import Part
from stores.plan import Stream, Unit
from stores.rows_on_disk import StreamTable
from stores.safe_h5 import MEND
from stores.sealing import ActivationShard
from stores.shard import StreamIndex, check_chunks, read_index
from stores.verifying import faults
from stores.view import Rows


class ActivationStore(AllRows):
    """A folder of sealed HDF5 shards, one a unit of the plan. Made by `create` or `open`; rows are read through views.

    All that `Rows` offers is offered here too, for all rows: `store.values("resid_post:3")`, `store.labels`.
    """

    def __init__(self, folder: ShardFolder) -> None:
        self._folder = folder
        self._indexes: dict[str, dict[str, StreamIndex]] = {}
        self._rows: tuple[tuple[tuple[str, int, int], ...], Rows] | None = None

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        streams: Sequence[Stream],
        prompts: Sequence[Mapping[str, Any]],
        plan: Plan,
        spec: Mapping[str, Any],
        provenance: Mapping[str, Any],
        bulk: bool = False,
    ) -> ActivationStore:
        """A new store; or the one at `path`, when it was made with an equal spec: a capture goes on where it stopped.

        `prompts`: records `{"id", "label", "tags", "sha256"}`. `spec`: everything that decides the numbers. `plan`:
        units that cover the prompts, or a function from the ids that are not planned yet to units; the stored plan
        stays as it is, and prompts that are new add a segment to it. `bulk` is for gigabytes a second: shards written
        through this object are sealed in the log with xxh3-128 instead of sha256 (`verify(deep=True)` adds that later);
        their bytes are the same. Raises StoreMismatch, naming the first keys that differ.
        """
        if len({stream.name for stream in streams}) != len(streams) or not streams:
            raise ValueError(f"streams {[stream.name for stream in streams]}: expected at least one, each name once.")
        return cls(
            ShardFolder.create(
                path,
                schema.KIND_ACTIVATIONS,
                spec=spec,
                plan=plan,
                provenance=provenance,
                prompts=prompts,
                streams=streams,
                algorithm=seals.TREE if bulk else seals.SHA256,
            )
        )

    @classmethod
    def open(cls, path: str | Path, limits: Limits = LIMITS) -> ActivationStore:
        """The store at `path`, for reading or going on. Needs neither torch, nor the log, nor write permission.

        `limits`: what its files may declare. Raises StoreMissing, StoreMismatch, StoreCorrupted, UnsafeFile.
        """
        return cls(ShardFolder.open(path, schema.KIND_ACTIVATIONS, limits))

    # What it is

    @property
    def path(self) -> Path:
        return self._folder.path

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self._folder.manifest.spec)

    @property
    def provenance(self) -> dict[str, Any]:
        return dict(self._folder.manifest.provenance)

    @property
    def prompts(self) -> dict[str, dict[str, Any]]:
        """Prompt id -> record `{"id", "label", "tags", "sha256"}`, in the order they were given."""
        return {record["id"]: dict(record) for record in self._folder.manifest.prompts}

    @property
    def plan(self) -> list[Unit]:
        """All units, in order: a pure function of the prompts, fixed when they were first seen."""
        return list(self._folder.units.values())

    @property
    def origin(self) -> dict[str, str]:
        """The attributes that every file made from this store carries: format, content key, spec, provenance."""
        return dict(self._folder.origin)

    @property
    def layout(self) -> list[dict[str, Any]]:
        """One `{"name", "layers", "d_model", "dtype"}` a stream."""
        return [stream.described() for stream in self._folder.manifest.streams]

    def __repr__(self) -> str:
        planned, missing = len(self._folder.units), len(self.missing())
        layout = ", ".join(
            f"{s.name} [{len(s.layers)} layers, d_model {s.d_model}, {s.dtype}]" for s in self._folder.manifest.streams
        )
        return f"ActivationStore({self.path}: {planned - missing} of {planned} units; {layout})"

    def _repr_html_(self) -> str:
        return frames.html_table(repr(self), [{**stream, "layers": len(stream["layers"])} for stream in self.layout])

    # Writing

    def missing(self) -> list[Unit]:
        """Units of the plan that have no shard yet, as the disk is now: the work that is left."""
        return self._folder.missing()

    def commit(self, unit: Unit, blocks: Mapping[str, Block], note: str = "") -> bool:
        """Makes one unit durable: when this returns, neither kill nor power cut takes it back.

        `blocks` holds one Block a stream; their values must not change before this returns. False: another writer was
        first; theirs was verified and kept. `note` is stored with the shard (such as "split: out of memory"). Threads
        may commit different units at the same time. Raises ValueError (unit not planned, wrong shapes), NotFinite,
        OSError (disk full); the unit is then not published.
        """
        self._folder.checked_unit(unit)
        streams = self._folder.manifest.streams
        if set(blocks) != {stream.name for stream in streams}:
            raise ValueError(
                f"Unit {unit.key!r} has blocks for {sorted(blocks)}, expected {sorted(s.name for s in streams)}; "
                "a stream without rows is a Block with 0 rows."
            )
        good = {stream.name: checked(blocks[stream.name], stream, unit) for stream in streams}
        attributes = self._folder.root_attributes(unit, note)
        shard = ActivationShard(attributes, streams, good, self._allows_nonfinite, where=f"Unit {unit.key!r}")
        rows = {name: len(block.prompt_id) for name, block in good.items()}
        return self._folder.commit(unit, shard.write, rows, confirm=lambda: self._check_shard(unit))

    # Checking

    def verify(self, deep: bool = False) -> list[str]:
        """One line a fault, naming file and mend; an empty list is a sound store.

        Fast: what store.json, plan and logs promise is there, whole by its size, and nothing else. `deep` reads every
        byte: hashes of chunks, indexes and files, and values for NaN and infinity unless the spec allows them. It adds
        the sha256 of sound shards to the log where that has none (`bulk`, or a lost log) and may be written: from then
        on a forged shard is found too, not only a damaged one.
        """
        return faults(self._folder, self.checked, deep)

    @property
    def _allows_nonfinite(self) -> bool:
        return bool(self._folder.manifest.spec.get("allow_nonfinite"))

    def checked(self, unit: Unit) -> list[seals.Span]:
        """Reads one whole shard, as `verify(deep=True)` does; returns where its values lie. Raises StoreCorrupted,
        UnsafeFile, NotFinite."""
        return self._check_shard(unit, finite=not self._allows_nonfinite)

    def _check_shard(self, unit: Unit, finite: bool = False) -> list[seals.Span]:
        """Identity, row index and every chunk of one shard; returns where its values lie. Raises StoreCorrupted,
        UnsafeFile, NotFinite."""
        spans = []
        for stream, index in zip(self._folder.manifest.streams, self._read_indexes(unit).values(), strict=True):
            spans += check_chunks(index, stream, finite)
        return spans

    # Reading

    def rows(self) -> Rows:
        """All rows that are there now, units in plan order. Raises StoreMissing or StoreCorrupted for damaged
        shards."""
        units = self._folder.committed()
        current = tuple((unit.key, *status) for unit, status in units)
        if self._rows is None or self._rows[0] != current:
            indexes = [self._indexes_of(unit, status) for unit, status in units]
            codes = {record["id"]: code for code, record in enumerate(self._folder.manifest.prompts)}
            parts = {}
            for stream in self._folder.manifest.streams:
                table = StreamTable.joined(stream, [index[stream.name] for index in indexes], codes)
                if len(table.prompt):
                    parts[stream.name] = Part(table, np.arange(len(table.prompt), dtype=np.int64))
            if not parts:
                raise NoRows(
                    f"{self.path} has no rows yet, expected some (run the capture): {len(units)} of {len(self.plan)} "
                    "units are committed."
                )
            info = {**self.spec, "store": str(self.path), "units": f"{len(units)} of {len(self.plan)}"}
            info.setdefault("variants", sorted({name for part in parts.values() for name in part.table.variants}))
            self._rows = current, Rows(parts, self.prompts, info)
        return self._rows[1]

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(stream.name for stream in self._folder.manifest.streams)

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(site for stream in self._folder.manifest.streams for site in stream.sites)

    def _indexes_of(self, unit: Unit, status: Status) -> dict[str, StreamIndex]:
        """Kept after the first read, until another file stands under the name."""
        known = self._indexes.get(unit.key)
        if known is None or any(index.status != status for index in known.values()):
            known = self._indexes[unit.key] = self._read_indexes(unit)
        return known

    def _read_indexes(self, unit: Unit) -> dict[str, StreamIndex]:
        with safe_h5.opened(self._folder.shard_path(unit), self._folder.limits) as file:
            self._folder.check_identity(file, unit)
            found = {stream.name: read_index(file, stream) for stream in self._folder.manifest.streams}
            for index in found.values():
                if strange := set(index.prompt_id) - set(unit.prompt_ids):
                    raise StoreCorrupted(
                        f"{file.path} has rows of {sorted(strange)[0]!r}, not a prompt of its unit. {MEND}"
                    )
            return found
