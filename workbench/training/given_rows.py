"""Rows as a user has them, chat JSONL or a flat table, as the one file that the rest reads: chat JSONL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from hooks.prompt import Prompt, read_prompts
from workbench.training.rows import write_rows
from workbench.training.table_rows import READERS, rows_of_file
from workbench.training.tables import Columns, read_table

Taken = Literal["questions", "safe", "harmful"]


def is_flat_table(path: str | Path) -> bool:
    """True for a file of one row a question and its answers, False for chat JSONL (`messages` or `text`); of a `.jsonl`
    file its first row decides. A file that is not there is none."""
    path = Path(path)
    if not path.is_file() or path.suffix.lower() not in READERS:
        return False
    row = _first_row(path)
    return path.suffix.lower() != ".jsonl" or (Columns().prompt in row and not row.keys() & {"messages", "text"})


def read_rows(path: str | Path, taken: Taken = "questions") -> list[Prompt]:
    """The prompts of a file in either form: chat JSONL as `wb.read_prompts` has it, or of a flat table its questions
    with the answers that are `taken` (`questions`: none of them).

    Columns are named as `wb.Columns` has them; one of answers that are not taken may be absent, and a row of
    `questions` may have no picture. Raises PromptError as `wb.read_prompts` and `wb.read_table` do.
    """
    path = Path(path)
    if not is_flat_table(path):
        return read_prompts(path)
    names = Columns()
    there = _first_row(path)
    absent: dict[str, Any] = {
        kind: None for kind in ("safe", "harmful") if kind != taken and getattr(names, kind) not in there
    }
    return list(read_table(path, replace(names, **absent), text_rows=taken == "questions").sets[taken])


def chat_rows(path: Path, taken: Taken, to: Path, *, of: str) -> Path:
    """The file itself where it is chat JSONL; of a flat table, what `read_rows` takes of it as chat JSONL in the folder
    `to`, with a line that says so (`of` is what the rows are for)."""
    if not is_flat_table(path):
        return path
    rows = read_rows(path, taken)
    shown = sum(bool(row.images) for row in rows)
    column = getattr(Columns(), "prompt" if taken == "questions" else taken)
    written = write_rows(rows, to / f"{of}.jsonl")
    print(f"{of}: {len(rows)} rows of {path.name}, its {column}; {shown} with a picture, as chat in {written}")
    return written


def _first_row(path: Path) -> Mapping[str, Any]:
    """What stands in the file's first row; nothing where it cannot be read, which its reader says better."""
    _, row = next(iter(rows_of_file(path)), (0, {}))
    return row if isinstance(row, Mapping) else {}
