"""CommitLog: which units were committed, with size and seal. One append-only file a writer; the reader takes the
union."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from stores import publish
from stores.seals import Fact


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
        So is one whose digests are all unknown here (a later version's): its shard is known by the identity inside.
        """
        for entry in sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []:
            size = entry.stat().st_size
            if self._sizes.get(entry.name) == size:
                continue
            for line in entry.read_bytes().split(b"\n"):
                try:
                    record = json.loads(line)
                    self._facts.setdefault(str(record["unit"]), set()).add(Fact.of_record(record))
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue
            self._sizes[entry.name] = size
        return self._facts

    def append(self, record: dict[str, Any]) -> None:
        """One line, synced, into this process's own log: a log shared over a network file system can be torn."""
        if self._own is None or self._own[0] != os.getpid():  # a forked worker must not write into its parent's log
            self._own = os.getpid(), self.folder / f"{publish.owner_name()}.jsonl"
        log = self._own[1]
        fresh, line = not log.exists(), json.dumps(record).encode() + b"\n"
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log))
            os.fsync(descriptor)
        except OSError:
            self._own = None  # the line may be torn, and nothing may be written behind it: the next one gets a new log
            raise
        finally:
            os.close(descriptor)
        if fresh:
            publish.sync_folder(log.parent)
