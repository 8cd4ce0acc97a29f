"""What a store is: store.json, written once (spec, streams, provenance), and the plan in the segments it grew by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stores import safe_text, schema, sealed_json
from stores.canonical import content_key, differences
from stores.errors import StoreCorrupted, StoreMismatch, StoreMissing
from stores.limits import LIMITS, Limits
from stores.plan import Stream, Unit
from stores.prompts import prompt_records
from stores.segments import Segment, read_segments, units_of


@dataclass(frozen=True)
class Manifest:
    """The content of store.json and of plan/. `content_key` hashes what decides the numbers: kind, layout, spec and
    streams."""

    kind: str
    spec: dict[str, Any]
    streams: tuple[Stream, ...]
    provenance: dict[str, Any]
    segments: tuple[Segment, ...] = ()
    version: int = schema.FORMAT_VERSION
    digest: str = ""
    """of store.json, which the first segment names"""

    @cached_property
    def content_key(self) -> str:
        return content_key(self._identity())

    @cached_property
    def units(self) -> dict[str, Unit]:
        """All planned units by key, in plan order."""
        return {unit.key: unit for segment in self.segments for unit in segment.units}

    @cached_property
    def prompts(self) -> tuple[dict[str, Any], ...]:
        """The records of all prompts, in the order they were given."""
        return tuple(record for segment in self.segments for record in segment.prompts)

    def _identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "format_version": schema.SHARD_VERSION,
            "spec": self.spec,
            "streams": {stream.name: stream.described() for stream in self.streams},
        }

    def check_same(self, asked: Manifest, path: Path) -> None:
        """Raises StoreMismatch naming the first keys in which the store at `path` differs from what is asked for."""
        found = list(differences(self._identity(), asked._identity()))
        if found:
            shown = "\n  ".join(found[:5]) + (f"\n  and {len(found) - 5} more" if len(found) > 5 else "")
            raise StoreMismatch(
                f"{path} is a store of another spec (expected: what it was made with; came: what was asked now):\n"
                f"  {shown}\nMend: give the new spec a path of its own, or ask for what the store holds."
            )

    def check_prompts(self, asked: Sequence[dict[str, Any]], path: Path) -> None:
        """Raises StoreMismatch when a prompt that is asked for differs from the store's prompt of the same id."""
        mine = {record["id"]: record for record in self.prompts}
        for record in asked:
            if record["id"] in mine and mine[record["id"]] != record:
                where = next(differences(mine[record["id"]], record))
                raise StoreMismatch(
                    f"Prompt {record['id']!r} differs from the prompt of this id in {path}: {where}. "
                    "Mend: give the changed prompt a new id, or the store a new path."
                )

    def segment_for(
        self, prompts: Sequence[dict[str, Any]], units: tuple[Unit, ...], provenance: dict[str, Any]
    ) -> Segment | None:
        """What an append adds to this store: the prompts it does not have, and these units; None for nothing."""
        known = {record["id"] for record in self.prompts}
        fresh = tuple(record for record in prompts if record["id"] not in known)
        return Segment(fresh, units, provenance) if fresh or units else None

    def extended(self, segment: Segment) -> Manifest:
        """With one more segment of the plan."""
        return replace(self, segments=(*self.segments, segment))

    def published_segment(self, segment: Segment, folder: Path) -> Manifest | None:
        """Makes the segment the next one of the store in `folder`. None: another writer appended in the meantime."""
        files = [before.digest for before in self.segments if before.digest]
        digest = segment.published(folder, len(files), files[-1] if files else self.digest)
        return self.extended(replace(segment, digest=digest)) if digest else None

    def to_bytes(self) -> bytes:
        """The bytes of store.json, which holds no segment: those are files of their own."""
        return sealed_json.sealed(
            {
                schema.A_KIND: self.kind,
                schema.A_CONTENT_KEY: self.content_key,
                "spec": self.spec,
                "streams": [stream.described() for stream in self.streams],
                "provenance": self.provenance,
            }
        )


def read_manifest(folder: Path, kind: str | None = None, limits: Limits = LIMITS) -> Manifest:
    """What the store in `folder` is, with its whole plan. Raises StoreMissing, StoreMismatch (kind, format version),
    StoreCorrupted."""
    path = folder / schema.MANIFEST
    try:
        document, digest = sealed_json.read(path, limits)
    except StoreMissing:
        parts = [folder / name for name in (schema.PLAN, schema.SHARDS)]
        if left := [part.name for part in parts if safe_text.plain_folder(part) and any(part.iterdir())]:
            raise StoreMissing(
                f"{path} is gone, while {' and '.join(left)} {'is' if len(left) == 1 else 'are'} there: expected all "
                "of a store. Mend: restore it from a copy, or make the store anew in another folder."
            ) from None
        raise StoreMissing(
            f"{folder} holds no store: expected {schema.MANIFEST} in it. Mend: check the path, or create it."
        ) from None
    if kind not in (None, document.get(schema.A_KIND)):
        raise StoreMismatch(f"{path} is a store of {document.get(schema.A_KIND)}: expected one of {kind}.")
    manifest = _head(document, digest, path)
    segments = (*manifest.segments, *read_segments(folder, digest, limits))
    manifest = replace(manifest, segments=segments)
    if len(manifest.units) < sum(len(segment.units) for segment in segments) or (
        len({record["id"] for record in manifest.prompts}) < len(manifest.prompts)
    ):
        raise StoreCorrupted(f"{folder / schema.PLAN} plans a unit or a prompt twice: restore it from a copy.")
    known = {record["id"] for record in manifest.prompts}
    for unit in manifest.units.values():
        if unknown := [prompt for prompt in unit.prompt_ids if prompt not in known]:
            raise StoreCorrupted(
                f"{folder}: unit {unit.key!r} holds prompt {unknown[0]!r}, which has no record: expected "
                "one for each prompt of the plan."
            )
    return manifest


def _head(document: dict[str, Any], digest: str, path: Path) -> Manifest:
    """store.json alone; in the first version it holds prompts and plan as well."""
    try:
        segments = [Segment((), units_of(segment["units"]), {}) for segment in document.get("plan", [])]
        if records := prompt_records(document.get("prompts", [])):
            segments.insert(0, Segment(records, (), {}))
        manifest = Manifest(
            kind=document[schema.A_KIND],
            spec=_dict(document["spec"]),
            streams=tuple(Stream(**{**s, "layers": tuple(s["layers"])}) for s in document["streams"]),
            provenance=_dict(document["provenance"]),
            segments=tuple(segments),
            version=document[schema.A_VERSION],
            digest=digest,
        )
        claimed = document[schema.A_CONTENT_KEY]
        if manifest.kind not in schema.KINDS:
            raise ValueError(f"kind {manifest.kind!r}: expected one of {schema.KINDS}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise sealed_json.unreadable(path, error) from error
    if claimed != manifest.content_key:
        raise StoreCorrupted(
            f"{path}: its content key does not fit its spec (edited by hand?): restore it from a copy."
        )
    return manifest


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, came {type(value).__name__}")
    return value
