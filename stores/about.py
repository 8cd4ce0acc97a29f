"""What a store is, in numbers: whose rows, how many of what, how large, written when and by how many."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stores import schema
from stores.errors import NoRows
from stores.folder import ShardFolder
from stores.limits import LIMITS, Limits
from stores.opening import of_folder
from stores.results import ResultTable
from stores.store import ActivationStore


def store_info(path: str | Path, limits: Limits = LIMITS) -> dict[str, Any]:
    """What `workbench info` prints of the store at `path`, JSON-plain: kind, spec (model, adapter, tokenizer, ...),
    streams, prompts, units and rows (a stream; by variant and by label), bytes, commits (first, last, writers), and
    where it came from. Reads indexes, no values. Raises StoreError."""
    folder = ShardFolder.open(path, limits=limits)
    manifest, committed, store = folder.manifest, folder.committed(), of_folder(folder)
    return {
        "path": str(path),
        "kind": manifest.kind,
        "format_version": manifest.version,
        "content_key": manifest.content_key,
        "spec": manifest.spec,
        "prompts": len(manifest.prompts),
        "units": {
            "planned": len(folder.units),
            "committed": len(committed),
            "appends": len([segment for segment in manifest.segments if segment.units]),
        },
        "bytes": sum(size for _, (size, _) in committed),
        **(_streams(store) if isinstance(store, ActivationStore) else _table(store)),
        "commits": _commits(folder),
        "quarantine": sum(1 for _ in (folder.path / schema.QUARANTINE).glob("*")),
        "provenance": manifest.provenance,
        "appended_by": [segment.provenance for segment in manifest.segments[1:] if segment.provenance],
    }


def _streams(store: ActivationStore) -> dict[str, Any]:
    try:
        rows = store.rows()
    except NoRows:
        return {"streams": [{**stream, "rows": 0} for stream in store.layout]}
    found = []
    for stream in store.layout:
        there = rows.at(stream["name"]) if stream["name"] in rows.streams else None
        count = {} if there is None else {"variants": _counted(there.variants), "labels": _counted(there.labels)}
        found.append({**stream, "rows": 0 if there is None else len(there), **count})
    return {"streams": found}


def _table(table: ResultTable) -> dict[str, Any]:
    return {"rows": len(table), "columns": table.columns}


def _counted(values: list[Any]) -> dict[str, int]:
    return {str(value): count for value, count in Counter(map(str, values)).most_common()}


def _commits(folder: ShardFolder) -> dict[str, Any]:
    """Times in UTC, as the writers' clocks had them; a store without logs has none."""
    records = list(folder.log.records())
    times = [float(record["time"]) for _, record in records if isinstance(record.get("time"), int | float)]
    first, last = (_utc(min(times)), _utc(max(times))) if times else (None, None)
    return {
        "first": first,
        "last": last,
        "writers": len({log.name for log, _ in records}),
        "merged_from": sorted({str(record["merged_from"]) for _, record in records if "merged_from" in record}),
    }


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
