"""What `where(variant="base", label={"a", "b"}, position=lambda p: p > 0)` means: one value against one condition."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from stores.errors import NoRows

_SHOWN = 20


def matching(condition: Any) -> Callable[[Any], bool]:
    """The test that a condition stands for: a predicate, membership in a collection, or equality (None: is absent)."""
    if callable(condition):
        return lambda value: bool(condition(value))
    if isinstance(condition, Collection) and not isinstance(condition, str | bytes | Mapping):
        allowed = list(condition)
        # A tag may itself be a list: equal to the condition, or one of its members.
        return lambda value: value in allowed or (isinstance(value, list) and value == allowed)
    return lambda value: value == condition and isinstance(value, bool) == isinstance(condition, bool)


def nothing_matches(conditions: Mapping[str, Any], existing: Mapping[str, Iterable[Any]]) -> NoRows:
    """The error for an empty selection: what was asked, and for each name the values that exist."""
    asked = ", ".join(f"{name}={_shown(value)}" for name, value in conditions.items())
    lines = [f"{name}: {_listed(values)}" for name, values in existing.items()]
    return NoRows(f"No row has {asked}. There are:\n  " + "\n  ".join(lines))


def _listed(values: Iterable[Any]) -> str:
    counts: dict[str, int] = {}
    for value in values:
        text = _shown(value)
        counts[text] = counts.get(text, 0) + 1
    shown = [f"{text} ({count} rows)" for text, count in list(counts.items())[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def _shown(value: Any) -> str:
    if callable(value):
        return "(a predicate)"
    text = json.dumps(value) if isinstance(value, list | dict) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
