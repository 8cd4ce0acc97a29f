"""read_table: a flat table of pictures, questions and two answers each, as named sets of Prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hooks.picture_files import picture_bytes
from hooks.plain_files import Refused
from hooks.prompt import Message, Prompt, PromptError
from stores.printed import Printed
from workbench.training.rows import READ_KEYS
from workbench.training.table_rows import BrokenRow, named, rows_of_file


@dataclass(frozen=True, repr=False)
class Table(Printed):
    """The sets of one table, row by row in its order. A row has the same id in every set: `questions` have no response,
    `safe` and `harmful` have one of the two (and the label of that name). `duplicates` are rows that show the same
    picture and ask the same as an earlier one, as (line, line of the first)."""

    path: Path
    questions: tuple[Prompt, ...]
    safe: tuple[Prompt, ...]
    harmful: tuple[Prompt, ...]
    lines: Mapping[str, int]  # of each id
    duplicates: tuple[tuple[int, int], ...]

    @property
    def sets(self) -> dict[str, tuple[Prompt, ...]]:
        """Those that have rows, by name."""
        named = {"questions": self.questions, "safe": self.safe, "harmful": self.harmful}
        return {name: rows for name, rows in named.items() if rows}

    def __len__(self) -> int:
        return len(self.questions)

    def __repr__(self) -> str:
        """Counts, never rows."""
        shown = sum(bool(row.images) for row in self.questions)
        pictures = len({row.tags["image_sha256"] for row in self.questions if row.images})
        said = (
            f"{self.path.name}: {len(self)} rows ({', '.join(self.sets)}), {shown} with a picture, {pictures} distinct"
        )
        if not self.duplicates:
            return said
        first = ", ".join(f"line {line} = line {of}" for line, of in self.duplicates[:5])
        return f"{said}; {len(self.duplicates)} repeat picture and question of an earlier row ({first}, ...)"


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called; None for a column that is not looked for. `system`, `caption` and `id`
    may be absent from the table, the others may not."""

    image: str | None = "image_path"
    prompt: str = "user_prompt"
    safe: str | None = "safe_response"
    harmful: str | None = "harmful_response"
    system: str | None = "system"
    caption: str | None = "image_desc"
    id: str | None = "id"

    @property
    def needed(self) -> list[str]:
        return [name for name in (self.image, self.prompt, self.safe, self.harmful) if name is not None]

    @property
    def taken(self) -> set[str]:
        """Columns that become something else than a tag of their own name."""
        return {name for name in vars(self).values() if name is not None}


def read_table(
    path: str | Path,
    columns: Columns | None = None,
    *,
    folder: str | Path | None = None,
    text_rows: bool = False,
    limit: int = 20,
) -> Table:
    """The sets `questions`, `safe` and `harmful` of a CSV, TSV, JSONL or Parquet table, one row a picture and question.

    Picture paths are relative to `folder` (default: the table's own) and must lie in it, links followed. A row's
    picture stands before its question. An empty picture cell is a fault, unless `text_rows` makes it a row of text
    alone. The caption becomes the tag `caption`; every other column a tag of its name (`table_NAME` where a prompt has
    a key of that name). Tags `image_sha256`, and `family` (where the table has none): the picture, by which intervals
    are clustered. A row without an id is named by its content.

    Raises PromptError that names the line of every broken row and missing picture, up to `limit` of them, and never
    shows a row's texts; ImportError where Parquet cannot be read.
    """
    path, names = Path(path), columns or Columns()
    reading = _Reading(names, Path(folder) if folder is not None else path.parent, text_rows)
    for line, row in rows_of_file(path):
        try:
            if isinstance(row, BrokenRow):
                raise row
            reading.take(line, row)
        except BrokenRow as error:
            reading.faults.append(f"line {line}: {error}")
    if reading.faults:
        rest = len(reading.faults) - limit
        more = [f"... and {rest} more"] if rest > 0 else []
        raise PromptError(
            f"{path}: {len(reading.faults)} of its rows cannot be used (pictures are looked for in {reading.folder}):\n"
            + "\n".join([*reading.faults[:limit], *more])
        )
    if not reading.questions:
        raise PromptError(f"table {path} has no rows: expected a header and one row a question.")
    return Table(
        path, tuple(reading.questions), tuple(reading.safe), tuple(reading.harmful), reading.lines,
        tuple(reading.duplicates),
    )  # fmt: skip


@dataclass
class _Reading:
    names: Columns
    folder: Path
    text_rows: bool
    questions: list[Prompt] = field(default_factory=list)
    safe: list[Prompt] = field(default_factory=list)
    harmful: list[Prompt] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    duplicates: list[tuple[int, int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _first: dict[str, int] = field(default_factory=dict)  # content -> line
    _hashes: dict[Path, str] = field(default_factory=dict)

    def take(self, line: int, row: Mapping[str, Any]) -> None:
        names = self.names
        if absent := [name for name in names.needed if name not in row]:
            why = f"there is no column {', '.join(map(repr, absent))}; there is {named(row)}. Columns(...) names them."
            raise BrokenRow(why) if self.questions else PromptError(f"line {line}: {why}")  # one line for a whole table
        asked = _text(row, names.prompt)
        answers = {kind: _text(row, name) for kind, name in (("safe", names.safe), ("harmful", names.harmful)) if name}
        system = _optional(row, names.system)
        picture = self._picture(row)
        sha = None if picture is None else self._hash(picture)
        content = hashlib.sha256("\0".join([sha or "", system or "", asked]).encode()).hexdigest()[:16]
        first = self._first.setdefault(content, line)
        identifier = _optional(row, names.id, numbers=True)
        if identifier is None:
            identifier = content if first == line else f"{content}.line{line}"
        if identifier in self.lines:
            raise BrokenRow(f"its id was used on line {self.lines[identifier]}: expected each id once.")
        tags = self._tags(row, sha, identifier)
        self.lines[identifier] = line
        if first != line:
            self.duplicates.append((line, first))
        shown = (asked,) if picture is None else (picture, asked)
        turns = (*([] if system is None else [Message("system", (system,))]), Message("user", shown))
        self.questions.append(Prompt(identifier, turns, tags=tags))
        for kind, answer in answers.items():
            getattr(self, kind).append(Prompt(identifier, turns, response=answer, label=kind, tags=tags))

    def _tags(self, row: Mapping[str, Any], sha: str | None, identifier: str) -> dict[str, Any]:
        caption = _optional(row, self.names.caption)
        rest = {name: value for name, value in row.items() if name not in self.names.taken and value not in (None, "")}
        tags = {f"table_{name}" if name in READ_KEYS else str(name): value for name, value in rest.items()}
        known = {"image_sha256": sha, "caption": caption}
        return {"family": sha or identifier, **tags, **{name: value for name, value in known.items() if value}}

    def _picture(self, row: Mapping[str, Any]) -> Path | None:
        if self.names.image is None:
            return None
        name = (_optional if self.text_rows else _text)(row, self.names.image)
        return None if name is None else picture_inside(name, self.folder)

    def _hash(self, picture: Path) -> str:
        if picture not in self._hashes:
            try:
                self._hashes[picture] = hashlib.sha256(picture_bytes(picture)).hexdigest()[:16]
            except (OSError, Refused) as error:
                raise BrokenRow(f"its picture cannot be read, expected PNG or JPEG ({type(error).__name__}).") from None
        return self._hashes[picture]


def picture_inside(name: str, folder: Path) -> Path:
    """The file that a table's cell names, links followed. Raises BrokenRow for what lies outside the folder, is an
    address, or is no file."""
    shown = ascii(name[:80])  # a name may hold control characters, which a terminal would obey
    if "://" in name or name.startswith("data:"):
        raise BrokenRow(f"picture {shown} is an address: expected a local file (nothing is downloaded).")
    if Path(name).is_absolute():
        raise BrokenRow(f"picture {shown} is an absolute path: expected one relative to the folder.")
    try:
        home = folder.resolve()
        real = (home / name).resolve()
        there = real.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, links in a ring
        raise BrokenRow(f"picture {shown} is no name of a file.") from None
    if not real.is_relative_to(home):
        raise BrokenRow(f"picture {shown} lies outside the folder: expected a file in it (links are followed).")
    if not there:
        raise BrokenRow(f"picture {shown} does not exist: expected a file in the table's folder, or folder=.")
    return real


def _text(row: Mapping[str, Any], name: str) -> str:
    found = _optional(row, name)
    if found is None:
        raise BrokenRow(f"its {name} is empty: expected text, or the row left out.")
    return found


def _optional(row: Mapping[str, Any], name: str | None, *, numbers: bool = False) -> str | None:
    """The cell as text, None where it is empty. Raises BrokenRow."""
    value = None if name is None else row.get(name)
    if numbers and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise BrokenRow(f"its {name} is {type(value).__name__}: expected text.")
    return value
