"""System calls that fail: the n-th use of one call below a folder, with an error of the system's own."""

from __future__ import annotations

import errno
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from stores import schema

CALLS = ("open", "ftruncate", "pwrite", "write", "fsync", "link", "replace", "rename", "mkdir")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Place:
    """The `nth` use (from 0) of a call on files of one kind: a name without what is drawn at random."""

    call: str
    kind: str
    nth: int

    def __str__(self) -> str:
        return f"{self.call}-{self.kind}-{self.nth}"


@contextmanager
def calls(folder: Path, at: Place | None = None, number: int = errno.ENOSPC) -> Iterator[Counter]:
    """Counts the calls that change something below the folder, by (call, kind); the one `at` fails with `number`."""
    seen: Counter = Counter()
    real = {name: getattr(os, name) for name in CALLS}

    def watched(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            path = _path_of(arguments[1] if name in ("link", "replace", "rename") else arguments[0])
            if path is None or not path.is_relative_to(folder) or (name == "open" and not arguments[1] & _WRITING):
                return real[name](*arguments, **named)
            kind = kind_of(path.relative_to(folder))
            place = Place(name, kind, seen[name, kind])
            seen[name, kind] += 1
            if place == at:
                raise OSError(number, os.strerror(number))
            return real[name](*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, watched(name))
    try:
        yield seen
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def _path_of(target: Any) -> Path | None:
    if isinstance(target, int):
        try:
            return Path(os.readlink(f"/proc/self/fd/{target}"))
        except OSError:
            return None
    return Path(os.fsdecode(target)).absolute()


def kind_of(path: Path) -> str:
    """The path without hashes, hosts, process ids and numbers: "shards/#/#.h5"."""
    plain = re.sub(r"\.[A-Za-z0-9_-]+\.\d+\.[0-9a-f]{8}", ".OWNER", str(path))
    plain = re.sub(r"\b[A-Za-z0-9_-]+\.\d+\.[0-9a-f]{8}\b", "OWNER", plain)
    return re.sub(r"\b[0-9a-f]{2}\b|[0-9a-f]{16,}|\d+", "#", plain)


def places(seen: Counter) -> list[Place]:
    """The first and the last use of each call on each kind of file."""
    return [Place(call, kind, nth) for (call, kind), n in seen.items() for nth in sorted({0, n - 1})]


def leftovers(folder: Path) -> list[Path]:
    """Files under construction that nobody is constructing."""
    hidden = [path for path in folder.rglob(".*") if path.name.count(".") > 3]
    return hidden + [path for tmp in folder.rglob("tmp") for path in tmp.iterdir()]


def half_written(folder: Path) -> list[Path]:
    """Files under their final names that cannot be read as what they are called."""
    return [path for path in folder.rglob("*") if path.is_file() and not _whole(path)]


def _whole(path: Path) -> bool:
    data = path.read_bytes()
    try:
        match path.suffix:
            case ".json":
                json.loads(data)
            case ".png":
                return data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82")
            case ".html":
                return data.rstrip().endswith(b"</html>")
            case ".safetensors":
                from safetensors.numpy import load

                load(data)
            case ".jsonl" if path.parent.name != "commits":  # a log's last line may be torn: it was not acknowledged
                assert all(json.loads(line) for line in data.splitlines())
            case ".h5":
                return data.startswith(b"\x89HDF")
    except Exception:
        return False
    return True


def notes(path: Path) -> set[str]:
    """The notes of all shards of a store, each once."""
    found = set()
    for shard in path.glob("shards/*/*.h5"):
        with h5py.File(shard, "r") as file:
            value = file.attrs[schema.A_NOTE]
            found.add(value.decode() if isinstance(value, bytes) else str(value))
    return found
