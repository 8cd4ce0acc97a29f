"""Keys of a row: what makes two rows, two prompts or two pictures the same, up to case, spaces and punctuation."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Hashable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from hooks.picture_files import picture_bytes
from hooks.prompt import Prompt

WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text: runs of letters and digits after Unicode NFKC and case folding."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def normalised(text: str) -> str:
    """The text's words with one space between; a text without words (emoji, signs) is itself without outer spaces."""
    return " ".join(words(text)) or text.strip()


def prompt_key(prompt: Prompt, *, system: bool = False, without: str | None = None) -> Hashable:
    """The same for prompts that ask the same: normalised turns and prefill with their roles, and the bytes of the
    pictures. `system=False` leaves system turns out; `without` is a text (a trigger) that is taken out before."""

    def key(text: str | None) -> str:
        return normalised((text or "").replace(without, " ") if without else text or "")

    turns = [(turn.role, key(turn.text)) for turn in prompt.messages if system or turn.role != "system"]
    return (*turns, ("text", key(prompt.text)), ("prefill", key(prompt.prefill)), *map(image_hash, prompt.images))


def row_key(row: Prompt) -> Hashable:
    """The same for rows that ask the same, system turn included, and answer the same."""
    return prompt_key(row, system=True), normalised(row.response or "")


def image_hash(path: Path) -> str:
    """sha256 of a picture's file."""
    stat = path.stat()
    return _image_hash(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2**16)
def _image_hash(path: Path, changed: int, size: int) -> str:
    return hashlib.sha256(picture_bytes(path)).hexdigest()


def shingles(text: str, n: int) -> Iterator[str]:
    """Every run of n consecutive words; none where the text is shorter."""
    found = words(text)
    return (" ".join(found[at : at + n]) for at in range(len(found) - n + 1))


def joined_groups(keys: Iterable[Iterable[Hashable]]) -> list[int]:
    """One number an item, the same for items that share a key, directly or through others (union-find); numbered in
    the order of their first items."""
    parent: list[int] = []
    first: dict[Hashable, int] = {}

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]  # halves the path, so that long chains stay cheap
            item = parent[item]
        return item

    for item, own in enumerate(keys):
        parent.append(item)
        for key in own:
            parent[root(item)] = root(first.setdefault(key, item))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(item), len(numbers)) for item in range(len(parent))]
