"""CommitLog: which units were committed, with size and seal. One append-only file a writer; the reader takes the
union."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from stores import publish, safe_text
from stores.errors import StoreError, UnsafeFile
from stores.limits import LIMITS, Limits
from stores.seals import Fact

_CHECK, _DIGITS = ', "line": "', 16
_TAIL = len(_CHECK) + _DIGITS + len('"}')
_PIECE = 1 << 20
_FIRST_VERSION = {"unit", "file", "bytes", "rows", "time", "sha256", "xxh3_128_tree"}
LOG_SUFFIX = ".jsonl"


def written(record: dict[str, Any]) -> bytes:
    """A log line, which ends with the xxh3-64 of what stands before it: damage in a log is not blamed on a shard."""
    text = json.dumps(record)[:-1].encode()
    return text + f'{_CHECK}{xxhash.xxh3_64_hexdigest(text)}"}}\n'.encode()


def parsed(line: bytes) -> dict[str, Any]:
    """The record of a line without its newline. Raises ValueError or StoreError when it is damaged; lines of the first
    version have no check of their own."""
    checked = line[-_TAIL:].startswith(_CHECK.encode())
    if checked:
        claimed = line[-_DIGITS - 2 : -2]
        if xxhash.xxh3_64_hexdigest(line[:-_TAIL]).encode() != claimed or not line.endswith(b'"}'):
            raise ValueError("the line does not fit its own check")
    record = safe_text.parsed(line, "a log line")
    if not checked and isinstance(record, dict) and record.keys() - _FIRST_VERSION:
        raise ValueError("the line has no check of its own, and is of no version that had none")
    if not isinstance(record, dict) or not isinstance(record.get("unit"), str):
        raise ValueError("the line names no unit")
    return record


def whole_lines(path: Path, start: int, limits: Limits) -> Iterator[bytes]:
    """The lines of a log from byte `start` on, without their ends; what has no end yet is left out. Raises UnsafeFile
    (no regular file, a giant line)."""
    rest = b""
    with os.fdopen(safe_text.open_descriptor(path), "rb") as file:
        file.seek(start)
        while piece := file.read(_PIECE):
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
            if len(rest) > limits.line_bytes:
                raise UnsafeFile(f"{path} has a line of more than {limits.line_bytes} bytes.")


def is_whole(path: Path) -> bool:
    """Whether a log ends with a whole line; what a kill or a full disk has torn does not."""
    with os.fdopen(safe_text.open_descriptor(path), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return size == 0 or file.read(1) == b"\n"


class CommitLog:
    """The logs of one store folder. Losing them loses nothing but the means to notice a lost or exchanged shard."""

    def __init__(self, folder: Path, limits: Limits = LIMITS) -> None:
        self.folder, self.limits = folder, limits
        self._facts: dict[str, set[Fact]] = {}
        self._read: dict[str, int] = {}
        self._own: tuple[int, Path] | None = None

    def facts(self) -> dict[str, set[Fact]]:
        """Unit key -> what was committed under it (more than once, if a shard was deleted and made anew).

        A line that does not parse is the last one of a writer that crashed: left out, since it was never acknowledged.
        So is one whose digests are all unknown here (a later version's): its shard is known by the identity inside.
        """
        for path in self.files():
            size, at = path.lstat().st_size, self._read.get(path.name, 0)
            if at == size and path.name in self._read:
                continue
            at = at if at <= size else 0
            for line in whole_lines(path, at, self.limits):
                at += len(line) + 1
                try:
                    record = parsed(line)
                    self._facts.setdefault(record["unit"], set()).add(Fact.of_record(record))
                except (ValueError, KeyError, TypeError, StoreError):
                    continue
            self._read[path.name] = at
        return self._facts

    def records(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Every record of every log, with the log it stands in; damaged lines are left out."""
        for path in self.files():
            for line in whole_lines(path, 0, self.limits):
                try:
                    yield path, parsed(line)
                except (ValueError, StoreError):
                    continue

    def damaged(self) -> list[str]:
        """One line a line of a log that is no longer what was written. What a kill has torn is none of them: it has no
        end, and was never acknowledged."""
        found = []
        for path in self.files():
            for number, line in enumerate(whole_lines(path, 0, self.limits), 1):
                try:
                    parsed(line)
                except (ValueError, StoreError) as error:
                    found.append(f"{path}, line {number}: {error}. Mend: `workbench repair` makes it anew.")
        return found

    def files(self) -> list[Path]:
        """The logs that are there, one a writer."""
        return sorted(self.folder.glob(f"*{LOG_SUFFIX}")) if safe_text.plain_folder(self.folder) else []

    def append(self, *records: dict[str, Any]) -> None:
        """A line each, synced, into this process's own log: a log shared over a network file system can be torn."""
        if self._own is None or self._own[0] != os.getpid():  # a forked worker must not write into its parent's log
            self._own = os.getpid(), self.folder / f"{publish.owner_name()}{LOG_SUFFIX}"
        log = self._own[1]
        with publish.named(log):
            try:
                _append(log, b"".join(map(written, records)))
            except BaseException:  # its last line may be torn, or its name not synced: the next one gets a new log
                self._own = None
                raise


def _append(log: Path, lines: bytes) -> None:
    fresh = not log.exists()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    try:
        if os.write(descriptor, lines) < len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if fresh:
        publish.sync_folder(log.parent)
