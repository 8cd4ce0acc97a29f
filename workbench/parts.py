"""Parts: the share of a work that one command of several does, for job arrays and xargs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def part_numbers(part: str | None) -> tuple[int, int]:
    """Which part (from 0), of how many; (0, 1) is the whole.

    `"i/n"` may count from 1 (1/3, 2/3, 3/3) or from 0 (0/3, 1/3, 2/3), as job arrays do: i goes round, so 0/3 is 3/3,
    and either way n commands do everything once. Raises ValueError for what is no part.
    """
    if part is None:
        return 0, 1
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", part)
    at, of = map(int, found.groups()) if found else (1, 0)
    if at > of or not of:
        raise ValueError(
            f"part={part!r}: expected 'i/n' with i from 1 to n, such as '2/3', or from 0 to n - 1, as job arrays count."
        )
    return (at - 1) % of, of


def strewn(listed: Sequence[T], part: str | None) -> list[T]:
    """Every n-th: parts of about the same size where neighbours cost about the same."""
    at, of = part_numbers(part)
    return list(listed[at::of])


def run_of(listed: Sequence[T], part: str | None) -> list[T]:
    """One run of neighbours, for work where neighbours share what is costly."""
    at, of = part_numbers(part)
    return list(listed[len(listed) * at // of : len(listed) * (at + 1) // of])
