"""Printed: a result in one line on a terminal, as a table in a notebook, as a data frame in pandas."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stores import frames

if TYPE_CHECKING:
    import pandas

LONGEST = 320  # letters of a result's line
VALUE = 64  # of one field in it
NAMED = 4  # entries of a collection that are named; the others are counted
SCALARS = (str, bool, int, float, np.bool_, np.integer, np.floating)


class Printed:
    """Base of results that are dataclasses: what they hold in one short line, however much that is, and `to_pandas()`.

    The table is `rows()` or `table()` where the result has one, else a row for each item of the field `_items`, else a
    row for each key that its mappings share, else the result itself as one row. Arrays are no columns; an interval is
    two, `interval_low` and `interval_high`.
    """

    _items: str | None = None

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        # @dataclass writes a repr with every value into each class whose own body has none; an inherited one is no bar.
        cls.__repr__ = cls.__repr__

    def __repr__(self) -> str:
        said = [f"{name} {brief(value)}" for name, value in _fields(self) if value is not None]
        line, left = type(self).__name__ + "(", len(said)
        for field in said:
            if len(line) + len(field) > LONGEST:
                return f"{line}and {left} more fields)"
            line, left = line + field + (", " if left > 1 else ""), left - 1
        return line + ")"

    def to_pandas(self) -> pandas.DataFrame:
        """The table of this result as a data frame. Raises ImportError, with the install command, where pandas is
        missing."""
        return frames.data_frame(self._records())

    def _repr_html_(self) -> str:
        return frames.html_table(repr(self), self._records())

    def _records(self) -> list[dict[str, Any]]:
        for name in ("rows", "table"):
            if callable(getattr(self, name, None)):
                return list(getattr(self, name)())
        if self._items is not None:
            items: Any = getattr(self, self._items)
            return [record(item) for item in (items.values() if isinstance(items, Mapping) else items)]
        return _by_key(self) or [record(self)]


def brief(value: Any) -> str:
    """A value in at most some 60 letters: an array by its shape and range, a collection by its first names and length.
    Letters that would steer a terminal are spelled out."""
    if isinstance(value, SCALARS) or value is None:
        said = f"{value:.4g}" if isinstance(value, float | np.floating) else repr(_plain(value))
    elif isinstance(value, np.ndarray):
        return _array(value)
    elif isinstance(value, Printed):
        return value._brief() if hasattr(value, "_brief") else type(value).__name__  # pyright: ignore[reportAttributeAccessIssue]
    elif hasattr(value, "shape") and hasattr(value, "dtype"):  # a tensor: looking into it may wait for a device
        return f"{list(value.shape)} {value.dtype}"
    elif isinstance(value, Mapping):
        said = _named(value, [f"{_word(key)} {brief(one)}" for key, one in _first(value.items())], "{}")
        said = said if len(said) <= VALUE else _named(value, [_word(key) for key in _first(value)], "{}")
    elif isinstance(value, Collection):
        said = _named(value, [brief(one) for one in _first(value)], "[]")
    else:
        said = str(value) if type(value).__str__ is not object.__str__ else type(value).__name__
    if len(said) <= VALUE:
        return said
    if isinstance(value, Collection) and not isinstance(value, str):
        kinds = {type(one).__name__ for one in value}
        return f"{len(value)} {kinds.pop() if len(kinds) == 1 else 'entries'}"
    return said[: VALUE - 3] + "..."


def record(item: Any, prefix: str = "") -> dict[str, Any]:
    """The scalars of a dataclass by name and those of dataclasses in it, the `value` of `r2` as `r2`; the ends of an
    interval are two columns. Other fields, arrays and collections, are left out."""
    out: dict[str, Any] = {}
    for field, value in _fields(item):
        name = prefix.rstrip("_") if prefix and field == "value" else prefix + field
        ends = _ends(value)
        if value is None or isinstance(value, SCALARS):
            out[name] = None if value is None else _plain(value)
        elif ends is not None:
            out |= {f"{name}_low": float(ends[0]), f"{name}_high": float(ends[1])}
        elif type(value).__str__ is not object.__str__ and not isinstance(value, Collection):
            out[name] = str(value)
        elif dataclasses.is_dataclass(value) and not prefix:
            out |= record(value, f"{name}_")
    return out


def _ends(value: Any) -> tuple[float, float] | None:
    if hasattr(value, "low") and hasattr(value, "high"):
        return value.low, value.high
    is_pair = isinstance(value, tuple) and len(value) == 2 and all(isinstance(end, float) for end in value)
    return value if is_pair else None


def _by_key(item: Any) -> list[dict[str, Any]]:
    """A row a key where two mappings or more have the same keys: `value`, `null` and `p` of each measure."""
    mappings = {name: value for name, value in _fields(item) if isinstance(value, Mapping) and value}
    keys = list(next(iter(mappings.values()), {}))
    if len(mappings) < 2 or any(list(value) != keys for value in mappings.values()):
        return []
    return [{"name": str(key), **{name: value[key] for name, value in mappings.items()}} for key in keys]


def _fields(item: Any) -> list[tuple[str, Any]]:
    return [(one.name, getattr(item, one.name)) for one in dataclasses.fields(item) if not one.name.startswith("_")]


def _array(value: np.ndarray) -> str:
    shape = "x".join(map(str, value.shape)) or "scalar"
    if not value.size or value.dtype.kind not in "iuf" or value.size > 10_000_000:
        return f"[{shape}] {value.dtype}"
    finite = value[np.isfinite(value)]
    lost = value.size - finite.size
    span = f"{finite.min():.3g}..{finite.max():.3g}" if finite.size else "no finite value"
    return f"[{shape}] {span}" + (f" ({lost} not finite)" if lost and finite.size else "")


def _first(entries: Iterable[Any]) -> list[Any]:
    return [entry for entry, _ in zip(entries, range(NAMED), strict=False)]


def _named(whole: Collection[Any], names: list[str], around: str) -> str:
    more = f", and {len(whole) - len(names)} more" if len(whole) > len(names) else ""
    return f"{around[0]}{', '.join(names)}{more}{around[1]}"


def _word(key: Any) -> str:
    said = str(key)
    return said if said.isprintable() else repr(said)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
