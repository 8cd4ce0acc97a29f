"""What a table's cell is sorted by on the page: the number in it, where it has one."""

from __future__ import annotations

import math
import re

# "98 %", "−0.31", "17 % (4–42 %)", "≤ 1/100", "1.2 s", "3e-05", "12,400": a number with its unit, bound and interval.
_DIGITS = r"([−+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?:/(\d+))?"
NUMBER = re.compile(rf"^[≤<≥>]?\s*{_DIGITS}(?:\s*(?:%|s))?(?:\s*[(\[].*[)\]])?$")


def sort_key(cell: object) -> float | None:
    """The number that a cell stands for; None for words, for what was not measured, and for what is no number."""
    if isinstance(cell, bool) or cell is None:
        return None
    if isinstance(cell, int | float):
        return float(cell) if math.isfinite(cell) else None
    found = NUMBER.match(str(cell).replace("\u00a0", " "))
    if found is None:
        return None
    value = float(found[1].replace("−", "-").replace(",", ""))
    over = float(found[2] or 1)
    return value / over if over else None
