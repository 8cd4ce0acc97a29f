"""Result rows as sealed columns: text, whole numbers, floats, booleans and None go in, and come out equal."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence

import h5py
import numpy as np
import xxhash

from stores import h5_write, schema
from stores.errors import StoreCorrupted
from stores.safe_h5 import MEND, SafeFile

Cell = str | int | float | bool | None
Columns = dict[str, list[Cell]]

_DTYPES = {"bool": np.dtype(bool), "int": np.dtype("<i8"), "float": np.dtype("<f8"), "null": np.dtype("<i8")}
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
    order = bytes(file.array(f"/{schema.COLUMN_ORDER}", (-1,))).decode("utf-8", "surrogatepass")
    with file.guarded("the list of columns"):
        kinds = {str(name): str(kind) for name, kind in json.loads(order)}
    stored = {path: file.array(f"/{path}") for name, kind in kinds.items() for path in _paths(name, kind)}
    if file.text(schema.A_INDEX_HASH) != _hash(order, stored):
        raise StoreCorrupted(f"{file.path}: its columns do not fit their hash. {MEND}")
    with file.guarded("the columns"):
        return {name: list(_decoded(name, kind, stored)) for name, kind in kinds.items()}


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
        yield None if absent else text if kind == "text" else json.loads(text)


def _hash(order: str, stored: Mapping[str, np.ndarray]) -> str:
    state = xxhash.xxh3_128(order.encode("utf-8", "surrogatepass"))
    for path, array in stored.items():
        state.update(f"{path}{array.dtype.str}{array.shape};".encode("utf-8", "surrogatepass"))
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()
