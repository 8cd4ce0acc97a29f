"""A store, or some of its rows, in one sealed HDF5 file, in plain NumPy files, or as an index of virtual datasets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from stores import publish, schema
from stores.columns import build_table, columns_of
from stores.files import drafted_folder, write_file
from stores.index_file import write_index_file
from stores.limits import LIMITS, Limits
from stores.one_file import AS_STORED, file_of_rows, write_rows
from stores.opening import open_store
from stores.plain_files import write_arrays, write_table
from stores.results import ResultTable
from stores.store import ActivationStore

Dtype = Literal["as stored", "float32", "float16"]
Form = Literal["hdf5", "numpy"]


def export_store(
    store: str | Path | ActivationStore | ResultTable,
    to: str | Path,
    form: Form = "hdf5",
    dtype: Dtype = AS_STORED,
    limits: Limits = LIMITS,
) -> Path:
    """Everything a store holds, under a new name that appears when it is whole.

    `hdf5`: one sealed file in the layout of a shard. Activations stand at `/activations/<stream>/values` [layer, row,
    d_model] with their row index, labels and tags as coordinates, so that
    `xarray.open_dataset(file, engine="h5netcdf", group="activations/resid_post")` names them all; every chunk has its
    hash; spec and provenance are attributes. `numpy`: a folder with `<stream>.<layer>.npy` [n, d_model] and
    `<stream>.rows.jsonl`; of a table, `rows.csv` and `rows.jsonl`. `dtype`: `float16` rounds; `as stored` keeps each
    bit (NumPy has no bfloat16, which becomes float32 there). Activations pass through memory a few megabytes at a time,
    a table is held whole. Every chunk is checked as it is read.

    Raises FileExistsError, NoRows, StoreCorrupted, NotFinite (too large for float16), WriteFailed.
    """
    if isinstance(store, str | Path):
        store = open_store(store, limits)
    if dtype not in (AS_STORED, "float32", "float16") or form not in ("hdf5", "numpy"):
        raise ValueError(
            f"export_store(form={form!r}, dtype={dtype!r}): expected a form hdf5 or numpy, and a dtype "
            f"{AS_STORED!r}, float32 or float16."
        )
    to = Path(to)
    if os.path.lexists(to):
        raise FileExistsError(f"{to} is there already: expected a new name for the export.")
    if form == "numpy":
        with drafted_folder(to) as draft:
            if isinstance(store, ResultTable):
                write_table(store, draft)
            else:
                write_arrays(store.rows(), draft, dtype)
        return to
    if isinstance(store, ResultTable):
        data = build_table({**store.origin, schema.A_UNIT: "export"}, columns_of(store.rows(), "Export"))
        return write_file(to, lambda descriptor: publish.write_at(descriptor, data, 0))
    rows = store.rows()
    file = file_of_rows(rows, store.origin, dtype)
    return write_file(to, lambda descriptor: write_rows(file, rows, descriptor))


def index_store(store: str | Path | ActivationStore, limits: Limits = LIMITS) -> Path:
    """Writes index.h5 into a store of activations: one file of virtual datasets over its shards, for tools that want
    one (MATLAB, h5dump, h5py). It holds no values and is made anew at any time, so do that after each capture."""
    if isinstance(store, str | Path):
        store = ActivationStore.open(store, limits)
    return write_index_file(store.rows(), store.origin, store.path)
