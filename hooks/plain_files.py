"""Files from elsewhere as plain bytes, lines and JSON: regular files of a stated size, and JSON without surprises.

A name that a user gives may be a symbolic link (the caches of model hubs are made of them); what it leads to has to be
a regular file, so that nothing is read from a pipe or a device. Every refusal says what came and what was expected.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

LARGEST_JSON = 256 * 2**20  # bytes of a file that is read as one JSON document
LONGEST_LINE = 16 * 2**20  # bytes of one line: far more than any model reads at once
MOST_NAMES = 10_000  # of a folder, that a misspelt name is compared with
DEEPEST = 64  # lists and objects inside one another
FREE_CONTAINERS, BYTES_A_CONTAINER = 100_000, 16  # `[],[],...` takes thirty times its size in memory


class Refused(ValueError):
    """A file that is not read, or what it says is not used; the message says what was expected and what came."""


def nearest(path: str | Path) -> str:
    """ " Is 'NAME' meant?", where a name in the same folder is much like this one that is not there; else ""."""
    path = Path(path)
    try:
        names = [entry.name for entry in islice(path.parent.iterdir(), MOST_NAMES)]
    except OSError:
        return ""
    close = get_close_matches(path.name, names, 1, cutoff=0.75)
    return f" Is {str(path.parent / close[0])!r} meant?" if close else ""


def opened(path: str | Path, largest: int | None = None) -> BinaryIO:
    """The file, open for reading. Raises FileNotFoundError, and Refused for what is no regular file or is larger."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: expected a file.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise Refused(f"{str(path)!a} cannot be opened ({error}): expected a file.") from None
    told = os.fstat(descriptor)
    if not stat.S_ISREG(told.st_mode):
        os.close(descriptor)
        raise Refused(f"{path} is no regular file (a folder, a pipe or a device): expected a file.")
    if largest is not None and told.st_size > largest:
        os.close(descriptor)
        raise Refused(f"{path} has {told.st_size:,} bytes: expected at most {largest:,}.")
    return os.fdopen(descriptor, "rb")


def whole(path: str | Path, largest: int) -> bytes:
    """All bytes of the file. Raises as `opened` does."""
    with opened(path, largest) as file:
        data = file.read(largest + 1)
    if len(data) > largest:  # it grew, or its file system states no sizes
        raise Refused(f"{path} has more than {largest:,} bytes: expected at most that.")
    return data


def lines_of(path: str | Path, longest: int = LONGEST_LINE) -> Iterator[tuple[int, bytes]]:
    """Every line with its number, from 1; the file is read as it goes. Raises Refused for a line above `longest`."""
    with opened(path) as file:
        number = 0
        while line := file.readline(longest + 1):
            number += 1
            if len(line) > longest:
                raise Refused(f"{path}, line {number}: more than {longest:,} bytes; expected lines of at most that.")
            yield number, line


def json_file(path: str | Path, largest: int = LARGEST_JSON, *, infinite: bool = False, repeated: bool = False) -> Any:
    """The JSON document of the file. Raises as `whole` and `parsed` do, naming the file."""
    try:
        return parsed(whole(path, largest), infinite=infinite, repeated=repeated)
    except Refused as error:
        raise error if str(path) in str(error) else Refused(f"{path}: {error}") from None


def parsed(data: bytes | str, *, infinite: bool = False, repeated: bool = False) -> Any:
    """The JSON value of the text (UTF-8, with or without a byte order mark).

    Raises Refused for broken JSON, a key that stands twice in one object (readers differ in which one counts), NaN and
    infinity (both unless they are welcome: `repeated`, `infinite`), nesting deeper than DEEPEST, numbers of thousands
    of digits, and halves of surrogate pairs, which no UTF-8 text can hold.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        if text.count("[") + text.count("{") > FREE_CONTAINERS + len(text) // BYTES_A_CONTAINER:
            raise Refused("more lists and objects than there is text to fill them.")
        value = json.loads(
            text.rstrip(),  # else the end of a line that breaks off would be column 1 of the next
            object_pairs_hook=None if repeated else _once,
            parse_constant=None if infinite else _not_a_number,
        )
    except UnicodeDecodeError as error:
        raise Refused(f"not UTF-8 text ({error.reason}).") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise Refused(f"not a JSON object ({error.msg} at {line}column {error.colno}).") from None
    except RecursionError:
        raise Refused(f"nested too deep: expected at most {DEEPEST} levels.") from None
    except Refused:
        raise
    except ValueError:  # Python reads no integers of thousands of digits
        raise Refused("a number of thousands of digits: expected numbers.") from None
    _check(value, infinite)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused(f"the key {twice[:60]!a} stands twice in one object.")
    return made


def _not_a_number(word: str) -> float:
    raise Refused(f"{word} is no JSON number: expected a finite number, or null.")


def _check(value: Any, infinite: bool) -> None:
    """Depth, texts and numbers of the value, without recursion."""
    waiting: list[tuple[Any, int]] = [([value], 0)]
    while waiting:
        container, depth = waiting.pop()
        if depth > DEEPEST:
            raise Refused(f"nested too deep: expected at most {DEEPEST} levels.")
        parts = chain(container, container.values()) if isinstance(container, dict) else container
        for one in parts:
            kind = type(one)
            if kind is str:
                if not one.isascii() and any("\ud800" <= character <= "\udfff" for character in one):
                    raise Refused("half of a surrogate pair in a text: expected whole characters.")
            elif kind is float:
                if not infinite and not math.isfinite(one):
                    raise Refused("a number beyond what a float holds: expected a finite number.")
            elif kind is dict or kind is list:
                waiting.append((one, depth + 1))
