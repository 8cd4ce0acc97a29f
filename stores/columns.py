"""Result rows as sealed columns: text, whole numbers, floats, booleans and None go in, and come out equal."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence

import h5py
import numpy as np
import xxhash

from stores import h5_write, safe_text, schema
from stores.errors import StoreCorrupted
from stores.safe_h5 import MEND, SafeFile

Cell = str | int | float | bool | None
Columns = dict[str, list[Cell]]

_DTYPES = {"bool": np.dtype(bool), "int": np.dtype("<i8"), "float": np.dtype("<f8"), "null": np.dtype("<i8")}
_LETTERS = {"bool": "bb", "int": "ib", "float": "fb", "null": "ib", "text": "ubi", "json": "ubi"}
_ENCODED = {"text", "json"}  # UTF-8 bytes of all rows, one behind the other; json holds columns of mixed types


def columns_of(rows: Sequence[Mapping[str, object]], where: str) -> Columns:
    """Rows turned into columns, in the order in which names first appear; what a row lacks is None.

    Raises ValueError, naming the column, for values that are no str, int, float, bool or None.
    """
    columns: Columns = {name: [None] * len(rows) for row in rows for name in row}
    for name in columns:
        if not isinstance(name, str) or not name or "/" in name or "\0" in name or name == ".":
            raise ValueError(f"{where}: column name {name!r}: expected non-empty text without '/' or NUL.")
    for i, row in enumerate(rows):
        for name, value in row.items():
            if isinstance(value, np.generic):
                value = value.item()
            if value is not None and not isinstance(value, str | int | float):
                raise ValueError(
                    f"{where}, column {name!r}: a {type(value).__name__} in row {i}, expected str, int, float, bool "
                    "or None; "
                    "give each part a column of its own."
                )
            columns[name][i] = value
    return columns


def build_table(attributes: Mapping[str, str], columns: Columns) -> memoryview:
    """The bytes of one result shard, built in memory."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        for name, text in attributes.items():
            h5_write.write_text(file.id, name, text)
        h5_write.write_encoding(file.id, "result-shard")
        stored: dict[str, np.ndarray] = {}
        kinds = {name: _kind(values) for name, values in columns.items()}
        for name, values in columns.items():
            stored.update(_encoded(name, kinds[name], values))
        for path, array in stored.items():
            folder, _, name = path.partition("/")
            h5_write.column(h5_write.group(file.id, folder), name, array)
        # Names and types of the columns, in order: a dataset, since HDF5 lists the objects of a group by name only.
        order = json.dumps(list(kinds.items()))
        data = np.frombuffer(order.encode("utf-8", "surrogatepass"), dtype=np.uint8)
        h5_write.column(file.id, schema.COLUMN_ORDER, data, kind="json")
        h5_write.write_text(file.id, schema.A_INDEX_HASH, _hash(order, stored))
    return buffer.getbuffer()


def read_table(file: SafeFile) -> Columns:
    """The columns of an opened result shard. Raises StoreCorrupted when they do not fit their hash."""
    with file.guarded("the list of columns"):
        order = bytes(file.array(f"/{schema.COLUMN_ORDER}", (-1,), kinds="u")).decode("utf-8", "surrogatepass")
        listed = safe_text.parsed(order, f"{file.path}: the list of columns", file.limits)
        kinds = {name: kind for name, kind in listed if isinstance(name, str) and kind in _LETTERS}
        if len(kinds) != len(listed):
            raise StoreCorrupted(f"{file.path}: columns that are named twice, or of unknown kinds. {MEND}")
    stored = {
        path: file.array(f"/{path}", (-1,), kinds=letter)
        for name, kind in kinds.items()
        for path, letter in zip(_paths(name, kind), _LETTERS[kind], strict=True)
    }
    if file.text(schema.A_INDEX_HASH) != _hash(order, stored):
        raise StoreCorrupted(f"{file.path}: its columns do not fit their hash. {MEND}")
    _check_lengths(file, kinds, stored)
    with file.guarded("the columns"):
        return {name: list(_decoded(name, kind, stored)) for name, kind in kinds.items()}


def _check_lengths(file: SafeFile, kinds: Mapping[str, str], stored: Mapping[str, np.ndarray]) -> None:
    """Columns of one height, texts that lie one behind the other: what a hash cannot say of a file that was forged."""
    heights = set()
    for name, kind in kinds.items():
        data, null, *rest = (stored[path] for path in _paths(name, kind))
        heights |= {len(null)}
        for offsets in rest:
            whole = len(offsets) == len(null) + 1 and offsets[0] == 0 and offsets[-1] == len(data)
            if not whole or (np.diff(offsets) < 0).any():
                raise StoreCorrupted(
                    f"{file.path}: the texts of column {name!r} do not lie one behind the other. {MEND}"
                )
        heights |= set() if rest else {len(data)}
    if len(heights) > 1:
        raise StoreCorrupted(f"{file.path}: columns of different heights {sorted(heights)}. {MEND}")


def _kind(values: Sequence[Cell]) -> str:
    types = {type(value) for value in values if value is not None}
    if not types:
        return "null"
    if types == {bool}:
        return "bool"
    if types == {int} and all(value is None or -(1 << 63) <= int(value) < 1 << 63 for value in values):
        return "int"
    if types == {float}:
        return "float"
    return "text" if all(issubclass(kind, str) for kind in types) else "json"


def _paths(name: str, kind: str) -> list[str]:
    folders = [schema.COLUMNS, schema.NULL] + ([schema.OFFSETS] if kind in _ENCODED else [])
    return [f"{folder}/{name}" for folder in folders]


def _encoded(name: str, kind: str, values: Sequence[Cell]) -> dict[str, np.ndarray]:
    null = np.array([value is None for value in values], dtype=bool)
    if kind not in _ENCODED:
        data = np.array([0 if value is None else value for value in values], dtype=_DTYPES[kind])
        return dict(zip(_paths(name, kind), (data, null), strict=True))
    texts = ["" if value is None else str(value) if kind == "text" else json.dumps(value) for value in values]
    pieces = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.cumsum([0, *map(len, pieces)], dtype="<i8")
    data = np.frombuffer(b"".join(pieces), dtype=np.uint8)
    return dict(zip(_paths(name, kind), (data, null, offsets), strict=True))


def _decoded(name: str, kind: str, stored: Mapping[str, np.ndarray]) -> Iterator[Cell]:
    data, null, *rest = (stored[path] for path in _paths(name, kind))
    if not rest:
        for value, absent in zip(data.tolist(), null.tolist(), strict=True):
            yield None if absent else value
        return
    raw, offsets = data.tobytes(), rest[0].tolist()
    for start, stop, absent in zip(offsets[:-1], offsets[1:], null.tolist(), strict=True):
        text = raw[start:stop].decode("utf-8", "surrogatepass")
        yield None if absent else text if kind == "text" else _cell(text)


def _cell(text: str) -> Cell:
    """The value of a column of mixed types. Raises ValueError for lists and objects, which no cell holds."""
    if text[:1] not in '"-0123456789tfnNI':
        raise ValueError(f"a cell holds {text[:40]!r}: expected text, a number, true, false or null")
    return json.loads(text)


def _hash(order: str, stored: Mapping[str, np.ndarray]) -> str:
    state = xxhash.xxh3_128(order.encode("utf-8", "surrogatepass"))
    for path, array in stored.items():
        state.update(f"{path}{array.dtype.str}{array.shape};".encode("utf-8", "surrogatepass"))
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()
