"""plan/: how a store grew. One file an append of prompts and units, numbered, each naming the digest of the one before.

A segment is published by link, as shards are: of two writers that append at once, on whatever hosts, one gets the
number, and the other reads what the first appended and adds the rest under the next one. No file is ever replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stores import publish, safe_text, schema, sealed_json
from stores.errors import StoreCorrupted
from stores.limits import LIMITS, Limits
from stores.plan import Unit
from stores.prompts import prompt_records

NAME = re.compile(r"([0-9]{6,12})\.json")
_FOLLOWS, _NUMBER = "follows", "segment"


@dataclass(frozen=True)
class Segment:
    """What one append added: prompt records, the units they form, and where the command that appended came from."""

    prompts: tuple[dict[str, Any], ...]
    units: tuple[Unit, ...]
    provenance: dict[str, Any]
    digest: str = ""

    def published(self, folder: Path, number: int, follows: str) -> str:
        """Makes it segment `number` of the store in `folder`: its digest, or "" when another writer has that number."""
        document = {
            _NUMBER: number,
            _FOLLOWS: follows,
            schema.A_PROVENANCE: self.provenance,
            "prompts": list(self.prompts),
            "units": [unit.described() for unit in self.units],
        }
        publish.make_folder(folder / schema.PLAN)
        publish.sync_folder(folder)  # another writer may have made plan/, and not have synced its name yet
        raw = sealed_json.sealed(document)
        ours = publish.publish(raw, segment_path(folder, number), folder / schema.TMP)
        return sealed_json.digest_of(raw) if ours else ""


def segment_path(folder: Path, number: int) -> Path:
    return folder / schema.PLAN / f"{number:06d}.json"


def read_segments(folder: Path, head: str, limits: Limits = LIMITS) -> Iterator[Segment]:
    """The segments of the store in `folder`, whose store.json has the digest `head`, in order.

    Raises StoreCorrupted when one is damaged, gone, or of another store.
    """
    plan, follows = folder / schema.PLAN, head
    found = [NAME.fullmatch(entry.name) for entry in plan.iterdir()] if safe_text.plain_folder(plan) else []
    numbers = sorted(int(match[1]) for match in found if match)
    for place, number in enumerate(numbers):
        path = segment_path(folder, place)
        if number != place:
            raise StoreCorrupted(f"{path} is gone, and {segment_path(folder, number).name} is there: restore it.")
        segment, before = _read(path, number, limits)
        if before != follows:
            raise StoreCorrupted(f"{path} does not follow the file before it: restore both from one copy.")
        follows = segment.digest
        yield segment


def units_of(records: Any) -> tuple[Unit, ...]:
    """Units as a document lists them. Raises ValueError, KeyError or TypeError for anything else."""
    return tuple(
        Unit(_text(record["key"]), tuple(map(_text, record["prompt_ids"])), tuple(record.get("batches", ())))
        for record in records
    )


def _read(path: Path, number: int, limits: Limits) -> tuple[Segment, str]:
    document, digest = sealed_json.read(path, limits)
    try:
        if document[_NUMBER] != number:
            raise ValueError(f"it is segment {document[_NUMBER]!r}")
        provenance = document[schema.A_PROVENANCE]
        if not isinstance(provenance, dict):
            raise TypeError("its provenance is no object")
        return Segment(prompt_records(document["prompts"]), units_of(document["units"]), provenance, digest), document[
            _FOLLOWS
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise sealed_json.unreadable(path, error) from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, came {type(value).__name__}")
    return value
