"""Rows as the plainest files there are: one .npy a site, and what each row is as JSON lines; tables as CSV."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stores import publish, schema
from stores.one_file import AS_STORED, encoded, pieces
from stores.results import ResultTable
from stores.view import Rows

_PIECE_ROWS = 4096


def write_arrays(rows: Rows, folder: Path, dtype: str) -> None:
    """`<stream>.<layer>.npy` [n, d_model] for each site, and `<stream>.rows.jsonl` with one line a row, into a folder.
    NumPy has no bfloat16: as stored, that becomes float32, exactly."""
    for name in rows.streams:
        part, chosen = rows.part(name), rows.at(name)
        stream = part.table.stream
        kind = stream.dtype if dtype == AS_STORED and part.minus is None else dtype
        kind = "float32" if kind in (AS_STORED, "bfloat16") else kind
        for layer in stream.layers:
            shape, raw = (len(part), stream.d_model), schema.DTYPES[kind].raw
            _write_array(
                folder / f"{name}.{layer}.npy",
                shape,
                raw,
                (encoded(piece, kind, f"{name}:{layer}") for piece in pieces(part, layer, _PIECE_ROWS)),
            )
        _write_lines(folder / f"{name}.rows.jsonl", _described(chosen))


def write_table(table: ResultTable, folder: Path) -> None:
    """`rows.jsonl`, which keeps every type, and `rows.csv`, which every program opens."""
    _write_lines(folder / "rows.jsonl", table.rows())
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        writer = csv.DictWriter(file, table.columns)
        writer.writeheader()
        writer.writerows(table.rows())


def _described(rows: Rows) -> Iterable[dict[str, Any]]:
    columns = rows.prompt_ids, rows.variants, rows.positions.tolist(), rows.token_ids.tolist()
    for row, (prompt, variant, position, token) in enumerate(zip(*columns, strict=True)):
        record = rows.record(prompt)
        yield {
            "row": row,
            "prompt_id": prompt,
            "variant": variant,
            "position": position,
            "token_id": token,
            "label": record["label"],
            "tags": record["tags"],
        }


def _write_array(path: Path, shape: tuple[int, int], dtype: np.dtype, parts: Iterable[np.ndarray]) -> None:
    """Written by hand: a memory map on a full disk ends the process."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            at = file.tell()
        for part in parts:
            publish.write_at(descriptor, np.ascontiguousarray(part, dtype).reshape(-1).view(np.uint8).data, at)
            at += part.nbytes
    finally:
        os.close(descriptor)


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="ascii") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")
