"""ReplyCache: every reply that was paid for, in an append-only JSONL file that survives a kill."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from stores.files import append, open_log
from workbench.behaviour.endpoint_reply import Reply

VERSION = 1
_APPENDING = 2**62  # the place in the lock file that stands for "writes a line"
_CLAIMS = 2**60  # places below it stand for keys


class ReplyCache:
    """Replies by key. A line is on the disk before `put` returns; a line that a kill cut short is passed over.

    Processes share a file: each sees the others' lines, and `claim` gives a key to one asker at a time. Claims are
    locks of the kernel, in a file beside it (`.lock`), so that those of a killed process are free at once. One object a
    file and process: `reply_cache` gives it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_log(path)  # for its owner alone: replies may quote what they judge
        self._locks = open_log(path.with_name(path.name + ".lock"))
        for descriptor in (self._file, self._locks):
            weakref.finalize(self, os.close, descriptor)
        self._places: dict[str, tuple[int, int]] = {}  # key -> offset and length of its line
        self._read_to = 0
        self._claimed: dict[str, int] = {}
        self._guard = threading.RLock()

    def __len__(self) -> int:
        with self._guard:
            self._read_new()
            return len(self._places)

    def get(self, key: str) -> Reply | None:
        """The reply of that key, by this process or another."""
        with self._guard:
            if key not in self._places:
                self._read_new()
            if (place := self._places.get(key)) is None:
                return None
            return Reply(**json.loads(os.pread(self._file, place[1], place[0]))["reply"])

    def put(self, key: str, reply: Reply, **about: Any) -> None:
        """Writes it; of two replies for one key the first counts. OSError where it cannot be written."""
        line = {"version": VERSION, "key": key, "reply": reply.record(), "unix_time": round(time.time()), **about}
        data = json.dumps(line).encode() + b"\n"
        with self._guard:
            fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, _APPENDING)
            try:
                size = os.fstat(self._file).st_size
                if size and os.pread(self._file, 1, size - 1) != b"\n":
                    data = b"\n" + data  # ends the line of a writer that was killed
                append(self._file, data, self.path)
            finally:
                fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, _APPENDING)

    def claim(self, key: str) -> bool:
        """Whether this caller may ask for the key; False while another one does."""
        place = int(key[:12], 16) % _CLAIMS  # two keys of one place only wait for each other
        with self._guard:
            if place in self._claimed.values():  # the kernel's locks do not part the threads of a process
                return False
            try:
                fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except OSError:
                return False
            self._claimed[key] = place
            return True

    def release(self, key: str) -> None:
        with self._guard:
            if (place := self._claimed.pop(key, None)) is not None:
                fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, place)

    def _read_new(self) -> None:
        """The lines written since the last look; one that has no end yet is left for the next."""
        size = os.fstat(self._file).st_size
        while self._read_to < size:
            data = os.pread(self._file, min(size - self._read_to, 1 << 26), self._read_to)
            end = data.rfind(b"\n") + 1
            if not end:
                return
            offset = self._read_to
            for line in data[:end].split(b"\n")[:-1]:
                if (key := _key_of(line)) is not None:
                    self._places.setdefault(key, (offset, len(line)))
                offset += len(line) + 1
            self._read_to += end


def _key_of(line: bytes) -> str | None:
    try:
        read = json.loads(line)
        Reply(**read["reply"])
        return read["key"] if read["version"] == VERSION else None
    except (ValueError, TypeError, KeyError):
        return None


_OPEN: weakref.WeakValueDictionary[str, ReplyCache] = weakref.WeakValueDictionary()
_OPENING = threading.Lock()  # two threads that open one file at once get one object


def reply_cache(path: str | Path) -> ReplyCache:
    """The cache of that file: the same object while one is in use, since the kernel drops a process's locks on a file
    as soon as any descriptor of it is closed."""
    place = Path(path).expanduser().resolve()
    name = f"{os.getpid()}:{place}"
    with _OPENING:
        if (cache := _OPEN.get(name)) is None:
            cache = _OPEN[name] = ReplyCache(place)
        return cache


class NoCache:
    """For `cache=None`: nothing is kept beyond the judge's life."""

    def __init__(self) -> None:
        self._replies: dict[str, Reply] = {}
        self._claimed: set[str] = set()
        self._guard = threading.Lock()

    def get(self, key: str) -> Reply | None:
        return self._replies.get(key)

    def put(self, key: str, reply: Reply, **about: Any) -> None:
        self._replies.setdefault(key, reply)

    def claim(self, key: str) -> bool:
        with self._guard:
            if key in self._claimed:
                return False
            self._claimed.add(key)
            return True

    def release(self, key: str) -> None:
        with self._guard:
            self._claimed.discard(key)
