"""Adapter folders appear whole: written beside their place and renamed, with a record that says what they are."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RECORD = "training.json"


def is_finished(to: Path, key: str) -> bool:
    """True when `to` holds the adapter with this key; raises FileExistsError when it holds anything else."""
    record = to / RECORD
    if not record.is_file():
        if to.exists() and any(to.iterdir()):
            raise FileExistsError(f"{to} holds something that is no adapter of ours: expected an empty or new folder.")
        return False
    if json.loads(record.read_text())["key"] == key:
        return True
    raise FileExistsError(
        f"{to} holds an adapter of other settings or data: give another folder, or remove it ({record} says what it "
        "is)."
    )


def publish(to: Path, record: Mapping[str, Any], write: Callable[[Path], Any]) -> None:
    """What `write(folder)` puts into a folder, and the record, under the name `to`: all of it or nothing. Where another
    process was first with the same adapter, its folder stays; FileExistsError where it has made another one."""
    to.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
    write(folder)
    (folder / RECORD).write_text(json.dumps(record, indent=2))
    try:
        if to.exists():
            to.rmdir()
        os.rename(folder, to)
    except OSError:
        if not is_finished(to, record["key"]):
            raise
        shutil.rmtree(folder)


def record_of(folder: Path) -> dict[str, Any]:
    """The record of an adapter folder; empty for one that was not made here."""
    file = folder / RECORD
    return json.loads(file.read_text()) if file.is_file() else {}
