"""CommitLog: which units were committed, with size and sha256. One append-only file a writer; the reader takes the
union."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from stores import publish

Fact = tuple[int, str]
"""(bytes, sha256) of one committed shard"""


class CommitLog:
    """The logs of one store folder. Losing them loses nothing but the means to notice a lost or exchanged shard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._facts: dict[str, set[Fact]] = {}
        self._sizes: dict[str, int] = {}
        self._own: tuple[int, Path] | None = None

    def facts(self) -> dict[str, set[Fact]]:
        """Unit key -> what was committed under it (more than once, if a shard was deleted and made anew).

        A line that does not parse is the last one of a writer that crashed: left out, since it was never acknowledged.
        """
        for entry in sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []:
            size = entry.stat().st_size
            if self._sizes.get(entry.name) == size:
                continue
            for line in entry.read_bytes().split(b"\n"):
                try:
                    record = json.loads(line)
                    fact = int(record["bytes"]), str(record["sha256"])
                    self._facts.setdefault(str(record["unit"]), set()).add(fact)
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue
            self._sizes[entry.name] = size
        return self._facts

    def append(self, record: dict[str, Any]) -> None:
        """One line, synced, into this process's own log: a log shared over a network file system can be torn."""
        if self._own is None or self._own[0] != os.getpid():  # a forked worker must not write into its parent's log
            self._own = os.getpid(), self.folder / f"{publish.owner_name()}.jsonl"
        log = self._own[1]
        fresh = not log.exists()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, json.dumps(record).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:
            publish.sync_folder(log.parent)
