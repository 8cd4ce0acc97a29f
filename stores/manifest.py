"""store.json: what a store is. Spec, streams, provenance, prompts, and the plan in the segments it grew by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stores import schema
from stores.canonical import content_key, differences, plain
from stores.errors import StoreCorrupted, StoreMismatch, StoreMissing
from stores.plan import Stream, Unit

_MAX_BYTES = 1 << 30
_PROMPT_KEYS = {"id", "label", "tags", "sha256"}


@dataclass(frozen=True)
class Manifest:
    """The content of store.json. `content_key` hashes what decides the numbers: kind, format, spec and streams."""

    kind: str
    spec: dict[str, Any]
    streams: tuple[Stream, ...]
    provenance: dict[str, Any]
    prompts: tuple[dict[str, Any], ...]
    segments: tuple[tuple[Unit, ...], ...]
    version: int = schema.FORMAT_VERSION

    @cached_property
    def content_key(self) -> str:
        return content_key(self._identity())

    @cached_property
    def units(self) -> dict[str, Unit]:
        """All planned units by key, in plan order."""
        return {unit.key: unit for segment in self.segments for unit in segment}

    def _identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "format_version": self.version,
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
        mine = {record["id"]: record for record in self.prompts}
        for record in asked.prompts:
            if record["id"] in mine and mine[record["id"]] != record:
                where = next(differences(mine[record["id"]], record))
                raise StoreMismatch(
                    f"Prompt {record['id']!r} differs from the prompt of this id in {path}: {where}. "
                    "Mend: give the changed prompt a new id, or the store a new path."
                )

    def extended(self, prompts: Sequence[dict[str, Any]], segment: tuple[Unit, ...]) -> Manifest:
        """With the prompts it did not have, and one more segment of the plan (unless it is empty)."""
        known = {record["id"] for record in self.prompts}
        fresh = tuple(record for record in prompts if record["id"] not in known)
        return replace(self, prompts=self.prompts + fresh, segments=self.segments + ((segment,) if segment else ()))

    def to_bytes(self) -> bytes:
        document = {
            schema.A_FORMAT: schema.FORMAT,
            schema.A_VERSION: self.version,
            schema.A_KIND: self.kind,
            schema.A_CONTENT_KEY: self.content_key,
            "spec": self.spec,
            "streams": [stream.described() for stream in self.streams],
            "provenance": self.provenance,
            "prompts": list(self.prompts),
            "plan": [{"units": [unit.described() for unit in segment]} for segment in self.segments],
        }
        return (json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def prompt_records(prompts: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Prompt records as a store keeps them: `id`, `label`, `tags`, `sha256`. Raises ValueError for doubles or strange
    keys."""
    records: dict[str, dict[str, Any]] = {}
    for prompt in prompts:
        if "id" not in prompt or not isinstance(prompt["id"], str) or not prompt["id"] or "\0" in prompt["id"]:
            raise ValueError(f"Prompt record {dict(prompt)!r}: expected an 'id' of non-empty text without NUL.")
        if extra := set(prompt) - _PROMPT_KEYS:
            raise ValueError(
                f"Prompt {prompt['id']!r} has {sorted(extra)}: expected {sorted(_PROMPT_KEYS)}; own keys belong "
                "into 'tags'."
            )
        if prompt["id"] in records:
            raise ValueError(f"Prompt id {prompt['id']!r} occurs twice: expected one record an id.")
        records[prompt["id"]] = plain(
            {
                "id": prompt["id"],
                "label": prompt.get("label"),
                "tags": prompt.get("tags") or {},
                "sha256": prompt.get("sha256"),
            },
            f"prompt {prompt['id']!r}",
        )
    return tuple(records.values())


def read_manifest(folder: Path, kind: str) -> Manifest:
    """The manifest of the store in `folder`. Raises StoreMissing, StoreMismatch (kind, format version),
    StoreCorrupted."""
    path = folder / schema.MANIFEST
    if not path.is_file():
        raise StoreMissing(
            f"{folder} holds no store: expected {schema.MANIFEST} in it. Mend: check the path, or create it."
        )
    if path.stat().st_size > _MAX_BYTES:
        raise StoreCorrupted(f"{path} has {path.stat().st_size} bytes: expected less than {_MAX_BYTES}.")
    try:
        document = json.loads(path.read_bytes())
        version = document[schema.A_VERSION]
        if (
            document[schema.A_FORMAT] != schema.FORMAT
            or not isinstance(version, int)
            or version > schema.FORMAT_VERSION
        ):
            raise StoreMismatch(
                f"{path}: format {document[schema.A_FORMAT]!r} version {version!r}, expected {schema.FORMAT!r} up to "
                f"version {schema.FORMAT_VERSION}. Mend: a newer version of this package reads it."
            )
        if document[schema.A_KIND] != kind:
            raise StoreMismatch(f"{path} is a store of {document[schema.A_KIND]}: expected one of {kind}.")
        manifest = Manifest(
            kind=kind,
            spec=_dict(document["spec"]),
            streams=tuple(Stream(**{**s, "layers": tuple(s["layers"])}) for s in document["streams"]),
            provenance=_dict(document["provenance"]),
            prompts=prompt_records(document["prompts"]),
            segments=tuple(
                tuple(Unit(unit["key"], tuple(unit["prompt_ids"])) for unit in segment["units"])
                for segment in document["plan"]
            ),
            version=version,
        )
        claimed = document[schema.A_CONTENT_KEY]
    except StoreMismatch:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreCorrupted(
            f"{path} cannot be read ({type(error).__name__}: {error}): restore it from a copy."
        ) from error
    if claimed != manifest.content_key:
        raise StoreCorrupted(
            f"{path}: its content key does not fit its spec (edited by hand?): restore it from a copy."
        )
    return manifest


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, came {type(value).__name__}")
    return value
