"""The one door through which JSON is read that others may have written: store.json, logs, attributes, summaries.

A name in a folder may be a link to a device or a pipe that never ends; a few kilobytes of JSON can nest until the
interpreter's stack is gone, and `[],[],...` takes thirty times its size in memory. Each is refused by name before it is
parsed. So are the things that Python's parser takes and JSON does not know (NaN, infinity, one key twice): what two
readers read differently cannot be trusted.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from stores.errors import StoreCorrupted, StoreMissing, UnsafeFile
from stores.limits import LIMITS, Limits

_PIECE = 1 << 20
_FREE_CONTAINERS, _BYTES_A_CONTAINER = 100_000, 16
_DEPTHS = np.zeros(256, dtype=np.int8)
_DEPTHS[list(b"[{")], _DEPTHS[list(b"]}")] = 1, -1


def open_descriptor(path: Path) -> int:
    """A read-only descriptor of a regular file; symbolic links, pipes, folders and devices are refused.

    Raises StoreMissing or UnsafeFile.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise StoreMissing(f"{path} is not there: expected a file. Mend: run the same command again.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        words = getattr(error, "strerror", None) or str(error)
        raise UnsafeFile(f"{path} cannot be opened as a regular file ({words}).") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafeFile(f"{path} is not a regular file.")
    return descriptor


def plain_folder(path: Path) -> bool:
    """Whether a folder stands there. Raises UnsafeFile for a link or a file: a store is never followed out of its
    folder, neither to read nor to write nor to sweep."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UnsafeFile(f"{path} cannot be looked at ({error.strerror}): expected a folder.") from error
    if not stat.S_ISDIR(kind):
        what = "a symbolic link" if stat.S_ISLNK(kind) else "no folder"
        raise UnsafeFile(f"{path} is {what}: expected a folder of the store itself. Mend: put the real folder there.")
    return True


def read_bytes(path: Path, most: int = LIMITS.text_bytes) -> bytes:
    """All bytes of a regular file. Raises StoreMissing, UnsafeFile (no regular file, more than `most` bytes)."""
    with os.fdopen(open_descriptor(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise UnsafeFile(
                f"{path} has {size} bytes: expected at most {most}. A larger file needs Limits(text_bytes=...)."
            )
        return file.read(size)


def read_json(path: Path, limits: Limits = LIMITS) -> Any:
    """The document in a JSON file. Raises StoreMissing, UnsafeFile (no regular file, too large, too deep),
    StoreCorrupted (not JSON)."""
    return parsed(read_bytes(path, limits.text_bytes), str(path), limits)


def parsed(data: bytes | str, where: str | Path, limits: Limits = LIMITS) -> Any:
    """The value that a JSON text stands for; `where` names it in errors. Raises UnsafeFile (too large, too deep, a
    bomb), StoreCorrupted (not JSON)."""
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    if len(data) > limits.text_bytes:
        raise UnsafeFile(f"{where} has {len(data)} bytes of JSON, expected at most {limits.text_bytes}.")
    containers = data.count(b"[") + data.count(b"{")
    if containers > _FREE_CONTAINERS + len(data) // _BYTES_A_CONTAINER:
        raise UnsafeFile(f"{where} has {containers} lists and objects in {len(data)} bytes of JSON: refused as a bomb.")
    if containers > limits.text_depth and _deeper(data, limits.text_depth):
        raise UnsafeFile(
            f"{where} nests its JSON more than {limits.text_depth} deep: expected at most that; no store is written so."
        )
    try:
        return _DECODER.decode(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise StoreCorrupted(f"{where} is not JSON as expected ({error}): restore it from a copy.") from error


def _deeper(data: bytes, most: int) -> bool:
    """Whether brackets nest deeper, by counting them; those inside of texts are left out only where they would
    decide."""
    if _bracket_depth(data) <= most:
        return False
    return _bracket_depth(re.sub(rb'"[^"]*"?', b"", re.sub(rb"\\.", b"", data, flags=re.DOTALL))) > most


def _bracket_depth(data: bytes) -> int:
    depth = deepest = 0
    for start in range(0, len(data), _PIECE):
        steps = np.cumsum(_DEPTHS[np.frombuffer(data[start : start + _PIECE], dtype=np.uint8)], dtype=np.int64)
        deepest = max(deepest, depth + int(steps.max()))
        depth += int(steps[-1])
    return deepest


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"the key {twice[:60]!r} stands there twice")
    return found


def _finite(text: str) -> float:
    if abs(number := float(text)) == float("inf"):
        raise ValueError(f"the number {text[:40]} is beyond every float, expected a finite one")
    return number


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite, parse_constant=_refused)
