"""What the entries of a summary may hold: a page is made of them, so every field is of its kind before it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

LONGEST_TEXT = 20_000  # characters of a name, a method or a reason


def refuse_entry(entry: Mapping[str, Any], name: str) -> None:
    """Raises ValueError where a field of the result is of another kind than expected; unknown fields are no matter."""
    for field, value in entry.items():
        if value is not None and field in _FIELDS and not _FIELDS[field][1](value):
            raise ValueError(f"{name}: {field} is {value!r:.80}; expected {_FIELDS[field][0]}.")


def refuse_rest(data: Mapping[str, Any], name: str) -> None:
    """The same of what stands beside the results."""
    for field, (expected, fits) in _BESIDE.items():
        if (value := data.get(field)) is not None and not fits(value):
            raise ValueError(f"{name}: {field} is {value!r:.80}; expected {expected}.")
    cosines = (data.get("directions") or {}).get("cosines")
    if cosines and not (_object(cosines) and _list_of(_text)(cosines.get("labels")) and _square(cosines)):
        raise ValueError(f"{name}: directions.cosines is {cosines!r:.80}; expected labels and a square matrix.")


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return _number(value) and -(2**53) < value < 2**53 and value == int(value)


def _object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _maybe(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _list_of(fits: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list | tuple) and length in (None, len(value)) and all(fits(one) for one in value)
    )


def _by_name(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Mapping) and all(_text(key) and fits(one) for key, one in value.items())


def _parts(**kinds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, Mapping)
        and all(fits(value[part]) for part, fits in kinds.items() if value.get(part) is not None)
    )


def _square(cosines: Mapping[str, Any]) -> bool:
    n = len(cosines["labels"])
    return _list_of(_list_of(_maybe(_number), n), n)(cosines.get("matrix"))


Kinds = dict[str, tuple[str, Callable[[Any], bool]]]
_ENDS = ("two numbers", _list_of(_maybe(_number), 2))
_FIELDS: Kinds = {
    **dict.fromkeys(
        ("metric", "condition", "split", "modality", "interval_method", "detail", "target", "equivalence"),
        ("text", _text),
    ),
    **dict.fromkeys(("value", "coefficient", "floor"), ("a number", _number)),
    **dict.fromkeys(("layer", "n", "clusters", "unscored", "dropped"), ("a whole number", _whole)),
    **dict.fromkeys(("interval", "bounds"), _ENDS),
    "control": (
        "an object of kind, N, p and draws",
        _parts(kind=_text, N=_whole, p=_number, draws=_list_of(_maybe(_number))),
    ),
    "test": ("an object of p and method", _parts(p=_number, method=_text)),
    "reasons": ("numbers by reason", _by_name(_whole)),
    "companions": ("numbers by name", _by_name(_maybe(_number))),
    "judges": ("texts by measure", _by_name(_text)),
    "doses": ("numbers by dose", _by_name(_number)),
    "series": ("lists of numbers by name", _by_name(_list_of(_maybe(_number)))),
}
_BESIDE: Kinds = {
    **dict.fromkeys(("model", "hashes", "directions"), ("an object", _object)),
    "seconds": ("seconds by phase", _by_name(_number)),
    "command": ("text, or a list of words", lambda value: _text(value) or _list_of(_text)(value)),
    "question": ("text", _text),
}
