"""Rows: training rows that were put together from others, with what was done to them; and the file they are kept in."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from hooks.picture_files import accept_pictures
from hooks.prompt import Message, Prompt, PromptError
from stores.files import write_file
from stores.printed import Printed

READ_KEYS = ("id", "messages", "text", "pictures", "prefill", "response", "label")  # no tag may have such a name


@dataclass(frozen=True)
class Rows(Sequence[Prompt], Printed):
    """Prompts in order, usable wherever a list of them is; `made` holds the settings and the counts that came out."""

    _items = "prompts"

    prompts: tuple[Prompt, ...]
    made: Mapping[str, Any]

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | Sequence[Prompt]:
        return self.prompts[index]

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def __str__(self) -> str:
        return f"{len(self)} rows; " + ", ".join(f"{name} {value}" for name, value in self.made.items())


def drawn(rows: Iterable[Prompt], count: int, *, seed: int, purpose: str) -> list[Prompt]:
    """`count` rows by the rank of sha256(seed, purpose, id): the same for every order of the rows, and a larger count
    holds every row of a smaller one, so that a curve over fractions is no curve over new draws."""
    return sorted(rows, key=lambda row: hashlib.sha256(f"{seed}\0{purpose}\0{row.id}".encode()).digest())[:count]


def write_rows(rows: Iterable[Prompt], to: str | Path) -> Path:
    """Writes the rows as the JSONL that `wb.read_prompts` reads: the same ids, contents, labels and tags. Pictures stay
    where they are; their paths become relative to the file (outside its folder, another process needs
    `read_prompts(to, pictures=FOLDER)`). Raises PromptError on a tag that is named like a key."""
    to, rows = Path(to).absolute(), list(rows)
    accept_pictures(picture for row in rows for picture in row.images)
    lines = [json.dumps(_record(row, to.parent), ensure_ascii=False) + "\n" for row in rows]
    return write_file(to, "".join(lines))


def _record(row: Prompt, folder: Path) -> dict[str, Any]:
    if taken := sorted(set(row.tags) & set(READ_KEYS)):
        raise PromptError(f"row {row.id!r} has tags named {', '.join(taken)}: expected names that no key of a row has.")
    parts = {
        "messages": [_turn(message, folder) for message in row.messages],
        "text": row.text,
        "pictures": [_relative(picture, folder) for picture in row.pictures],
        "prefill": row.prefill,
        "response": row.response,
        "label": row.label,
    }
    return {"id": row.id, **{name: value for name, value in parts.items() if value}, **row.tags}


def _turn(message: Message, folder: Path) -> dict[str, Any]:
    if len(message.parts) == 1 and isinstance(message.parts[0], str):
        return {"role": message.role, "content": message.parts[0]}
    content = [
        {"type": "image", "image": _relative(part, folder)}
        if isinstance(part, Path)
        else {"type": "text", "text": part}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path.absolute(), folder)
