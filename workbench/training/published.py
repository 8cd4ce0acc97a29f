"""Adapter folders appear whole: written beside their place and renamed, with a record that says what they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hooks.adapter_config import LARGEST_SETTINGS
from hooks.plain_files import Refused, json_file
from stores.files import drafted_folder, write_file
from stores.publish import sync_above

RECORD = "training.json"


def is_finished(to: Path, key: str) -> bool:
    """True when `to` holds the adapter with this key, and then its name is durable; raises FileExistsError when it
    holds anything else."""
    record = to / RECORD
    if not record.is_file():
        if to.exists() and any(to.iterdir()):
            raise FileExistsError(f"{to} holds something that is no adapter of ours: expected an empty or new folder.")
        return False
    if record_of(to).get("key") == key:
        sync_above(to)  # a writer that was killed behind the rename did not come to that
        return True
    raise FileExistsError(
        f"{to} holds an adapter of other settings or data: give another folder, or remove it ({record} says what it "
        "is)."
    )


def publish(to: Path, record: Mapping[str, Any], write: Callable[[Path], Any]) -> None:
    """What `write(folder)` puts into a folder, and the record, under the name `to`: all of it or nothing. Where another
    process was first with the same adapter, its folder stays; FileExistsError where it has made another one."""
    try:
        with drafted_folder(to) as folder:
            write(folder)
            write_file(folder / RECORD, json.dumps(record, indent=2))
    except FileExistsError:
        if not is_finished(to, record["key"]):
            raise


def record_of(folder: Path) -> dict[str, Any]:
    """The record of an adapter folder; empty for one that was not made here. Raises Refused for one that is no JSON
    object."""
    file = folder / RECORD
    said = json_file(file, LARGEST_SETTINGS) if file.is_file() else {}
    if not isinstance(said, dict):
        raise Refused(f"{file} is a {type(said).__name__}: expected a JSON object, as a training writes it.")
    return said
