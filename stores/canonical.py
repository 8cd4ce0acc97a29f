"""Canonical JSON, its hash, and where two documents differ: how a store knows whether two specs are the same."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

ABSENT = "(absent)"


def plain(value: Any, where: str = "") -> Any:
    """`value` as JSON would give it back: dicts with text keys, lists, str, int, finite float, bool, None.

    Raises TypeError or ValueError, naming the place, for anything that JSON would lose (NaN, sets, objects).
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where or 'value'} is {value}: JSON has no such number; write it as text or None.")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(
                    f"{where or 'value'} has the key {key!r}: expected text keys; write it as {str(key)!r}."
                )
        return {key: plain(item, f"{where}.{key}" if where else key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(
        f"{where or 'value'} is a {type(value).__name__}: expected dict, list, str, int, float, bool or None; "
        "pass its name, hash or str() instead."
    )


def canonical_json(value: Any) -> str:
    """One text per document: sorted keys, no spaces, ASCII (so a lone surrogate survives as an escape)."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def content_key(value: Any) -> str:
    """sha256, in hexadecimal, of the canonical JSON of `value`: equal content, equal key, whatever the order
    of keys."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def differences(expected: Any, came: Any, where: str = "") -> Iterator[str]:
    """One line a leaf in which two plain documents differ: `scope: expected 'last', came 'response'`."""
    if isinstance(expected, dict) and isinstance(came, dict):
        for key in sorted(expected.keys() | came.keys()):
            place = f"{where}.{key}" if where else key
            yield from differences(expected.get(key, ABSENT), came.get(key, ABSENT), place)
    elif isinstance(expected, list) and isinstance(came, list) and len(expected) == len(came):
        for i, (left, right) in enumerate(zip(expected, came, strict=True)):
            yield from differences(left, right, f"{where}[{i}]")
    elif expected != came or isinstance(expected, bool) != isinstance(came, bool):
        yield f"{where or 'value'}: expected {_short(expected)}, came {_short(came)}"


def _short(value: Any, limit: int = 80) -> str:
    text = value if value is ABSENT else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
