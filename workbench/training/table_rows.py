"""The rows of a flat table as they stand in its file, each with its line: CSV, TSV, JSONL, Parquet."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hooks.plain_files import Refused, lines_of, parsed
from hooks.prompt import PromptError


class BrokenRow(PromptError):
    """What is wrong with one row, in words that do not repeat its cells."""


Read = tuple[int, Mapping[str, Any] | BrokenRow]  # line (of Parquet: number of the row), and what stands there


def rows_of_file(path: Path) -> Iterator[Read]:
    """The rows of the file, by its suffix. A row that cannot be read comes as the BrokenRow that says why; a file that
    cannot be read raises PromptError, and Parquet without a package that reads it ImportError."""
    if not path.is_file():
        raise PromptError(f"table {path} does not exist: expected a {', '.join(READERS)} file.")
    if path.suffix.lower() not in READERS:
        raise PromptError(f"table {path} ends in {path.suffix!r}: expected {', '.join(READERS)}.")
    return READERS[path.suffix.lower()](path)


def _texts_of(path: Path) -> Iterator[str]:
    """The lines of the file, read as they are needed."""
    try:
        for line, data in lines_of(path):
            try:
                # Spreadsheets write a byte order mark, which is no part of the first name.
                yield data.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise PromptError(
                    f"{path}, line {line}: not UTF-8 text ({error.reason}): save the table as UTF-8."
                ) from None
    except Refused as error:
        raise error if isinstance(error, PromptError) else PromptError(str(error)) from None


def _separated(path: Path, delimiter: str) -> Iterator[Read]:
    lines = csv.reader(_texts_of(path), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    while True:
        line = lines.line_num + 1  # a quoted cell may hold line ends: a row is named by the line it begins on
        try:
            cells = next(lines)
        except StopIteration:
            break
        except csv.Error as error:  # what comes after an open quote belongs to no row, so nothing more is read
            raise PromptError(f"{path}, line {line}: the row is not {path.suffix[1:].upper()} ({error}).") from None
        if not cells:
            continue
        if names is None:
            names = [cell.strip() for cell in cells]
            _refuse_names(path, names)
        elif len(cells) != len(names):
            yield line, BrokenRow(f"{len(cells)} cells, where the header has {len(names)}: is a comma not quoted?")
        else:
            yield line, dict(zip(names, cells, strict=True))


def _refuse_names(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PromptError(f"{path}: the header names {named(twice)} twice: expected each column once.")


def named(columns: Iterable[str]) -> str:
    """Names of columns, for a message. What looks like text is counted only: a table without a header has its first
    row there, and no row is ever shown."""
    listed = list(columns)
    names = [repr(name) for name in listed if re.fullmatch(r"[A-Za-z_][\w-]{0,30}", name)]
    others = len(listed) - len(names)
    return ", ".join([*names, *([f"{others} that are no names (has the table no header?)"] if others else [])])


def _json_lines(path: Path) -> Iterator[Read]:
    for line, text in enumerate(_texts_of(path), start=1):
        if not text.strip():
            continue
        try:
            row = parsed(text)
        except Refused as error:
            yield line, BrokenRow(str(error))
            continue
        yield line, row if isinstance(row, dict) else BrokenRow(f"a {type(row).__name__}: expected a JSON object.")


def _parquet(path: Path) -> Iterator[Read]:
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            f"{path} is Parquet, which needs pyarrow: `pip install pyarrow`, or save the table as CSV or JSONL."
        ) from None
    try:
        rows = parquet.ParquetFile(path).read().to_pylist()
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are of these
        raise PromptError(
            f"{path} is no Parquet file that can be read ({type(error).__name__}): expected one, or another ending."
        ) from None
    yield from enumerate(rows, start=1)


READERS: dict[str, Callable[[Path], Iterator[Read]]] = {
    ".csv": lambda path: _separated(path, ","),
    ".tsv": lambda path: _separated(path, "\t"),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
