"""A store made, or its plan extended, by any number of writers at once: no lock, and no file that is replaced.

store.json and each segment of the plan are published by link. Who comes second reads what the first wrote, and adds
what is still lacking; so all writers end with one plan, and each prompt is planned once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from stores import publish, safe_text, schema
from stores.canonical import plain
from stores.errors import StoreError, StoreMissing
from stores.manifest import Manifest, read_manifest
from stores.plan import Stream, Unit, new_segment
from stores.prompts import prompt_records
from stores.provenance import scrubbed, secrets_in

Plan = Sequence[Unit] | Callable[[list[str]], Sequence[Unit]]
_TRIES = 1000
"""appends by others that one append gives way to, each of which is progress; more would be a disk that answers wrong"""


def made(
    path: Path,
    kind: str,
    *,
    spec: Mapping[str, Any],
    plan: Plan,
    provenance: Mapping[str, Any],
    prompts: Sequence[Mapping[str, Any]] = (),
    streams: Sequence[Stream] = (),
    by_prompt: bool = True,
) -> Manifest:
    """The manifest of the store at `path`, new or as it was, with what `prompts` and `plan` add; all of it synced.

    Raises StoreMismatch (names the first differing keys), ValueError for a secret inside the spec, or a plan that does
    not fit the prompts.
    """
    if found := secrets_in(spec):
        raise ValueError(f"The spec holds what looks like a secret at {found[0]}: a store is shared; leave it out.")
    asked = Manifest(kind, plain(spec), tuple(streams), scrubbed(plain(provenance)))
    records = prompt_records(prompts)
    if path.exists() and not path.is_dir():
        raise StoreMissing(f"{path} is a file: expected a folder, or nothing, where a store is to be made.")
    for name in schema.FOLDERS:
        if not safe_text.plain_folder(path / name):
            publish.make_folder(path / name)
    publish.sweep(path / schema.TMP)
    for attempt in count():
        stored = read_manifest(path, kind) if os.path.lexists(path / schema.MANIFEST) else asked
        stored.check_same(asked, path)
        stored.check_prompts(records, path)
        planned = {prompt for unit in stored.units.values() for prompt in unit.prompt_ids}
        wanted = plan([record["id"] for record in records if record["id"] not in planned]) if callable(plan) else plan
        units = new_segment(stored.units, list(wanted), planned if by_prompt else None)
        segment = stored.segment_for(records, units, asked.provenance)
        if by_prompt:
            _check_records(units, {record["id"] for record in (*stored.prompts, *records)})
        if not stored.digest:  # nothing is there yet
            publish.publish(stored.to_bytes(), path / schema.MANIFEST, path / schema.TMP)
            stored = read_manifest(path, kind)
            if stored.segments:  # another writer was first, and its plan comes first
                continue
            stored.check_same(asked, path)
        extended = stored.published_segment(segment, path) if segment else stored
        if extended is not None:
            _sync(path)
            return extended
        if attempt == _TRIES:
            raise StoreError(f"{path}: {_TRIES} appends found their place in plan/ taken. Mend: run the command again.")
        time.sleep(min(0.001 * attempt, 0.1))  # a network file system may show the other's segment late
    raise AssertionError


def _sync(path: Path) -> None:
    """Makes the names of the store's files durable, whoever published them: a writer may have been killed before its
    own fsync, and what is built on its files must not outlive them."""
    with publish.named(path):
        publish.sync_folder(path / schema.PLAN)
        publish.sync_folder(path)
        publish.sync_above(path)


def _check_records(units: Sequence[Unit], known: set[str]) -> None:
    """Every planned prompt has a record: a row must lead back to its label and tags."""
    for unit in units:
        if unknown := [prompt for prompt in unit.prompt_ids if prompt not in known]:
            raise ValueError(
                f"Unit {unit.key!r} holds prompt {unknown[0]!r}, which has no record in `prompts`: expected one "
                "for each."
            )
