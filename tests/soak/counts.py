"""What the parts of the soak count, and how they say how far they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping

# What was tried, and what came of it; every part gives some of these.
TRIED = ("kills", "prefixes", "torn", "power_cuts", "flips", "hostile", "races")
BAD = ("lost", "unreadable", "resume_differs", "bad", "silent", "accepted", "duplicates")
KEYS = (
    *("kills", "lost", "unreadable", "resume_differs", "prefixes", "torn", "power_cuts", "bad"),
    *("flips", "silent", "hostile", "accepted", "races", "duplicates"),
)
_EVERY = 20.0  # seconds between two lines of progress


def added(*counts: Mapping[str, int]) -> dict[str, int]:
    """The sums, every key once. Raises ValueError for a key that nobody would look at."""
    if strange := {key for some in counts for key in some} - set(KEYS):
        raise ValueError(f"A part of the soak counts {sorted(strange)}: expected some of {', '.join(KEYS)}.")
    return {key: sum(some.get(key, 0) for some in counts) for key in KEYS}


def bad(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts that must be zero, and are not."""
    return {key: counts[key] for key in BAD if counts.get(key, 0)}


def counted(part: str, n: int) -> Iterator[int]:
    """0 .. n - 1, with a line on the error stream now and then."""
    start = said = time.monotonic()
    for i in range(n):
        yield i
        now = time.monotonic()
        if now - said > _EVERY or (i == n - 1 and now - start > 1):
            print(f"  {part}: {i + 1} of {n}, {now - start:.0f} s", file=sys.stderr, flush=True)
            said = now
