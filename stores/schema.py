"""The layout on disk and its version. The only file that spells the names of groups, datasets, attributes and folders.

A store is a folder:

    store.json                             what it is: spec, streams, provenance; written once, with its own digest
    plan/<number>.json                     prompts and units, one file an append, each naming the digest of the last
    shards/<key[:2]>/<key>.h5              sealed HDF5 files, never modified
    commits/<host>.<pid>.<random>.jsonl    one log per writer; rebuildable from the shards
    tmp/                                   files under construction
    quarantine/                            damaged shards that `repair` took out of the way
    index.h5                               virtual datasets over the shards for outside tools; can be made anew

An activation shard has one group a stream, so that xarray opens it whole, coordinates included
(`xr.open_dataset(shard, engine="h5netcdf", group="activations/resid_post")`):

    /activations/<stream>/values           [layer, row, d_model], chunks (1, up to 128, d_model), no filter, and
                                           one behind the other (files of the first version: anywhere)
    /activations/<stream>/{prompt_id, variant, position, token_id}    [row]
    /activations/<stream>/{layer, row, d_model}                       dimension scales
    /chunk_xxh3_128/<stream>               [layer, chunk, 16], the hash of each chunk's stored bytes

A result shard has one 1-D dataset a column (text: UTF-8 bytes, with offsets beside it), and a mask of the Nones:

    /columns/<name>    /offsets/<name>    /null/<name>
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from h5py import h5t

FORMAT = "misalignment-workbench-store"
FORMAT_VERSION = 2
"""of the folder: the first version had prompts and plan inside store.json, without a digest"""
SHARD_VERSION = 1
"""of the files in it"""

# Folder
MANIFEST = "store.json"
PLAN, SHARDS, COMMITS, TMP, QUARANTINE = "plan", "shards", "commits", "tmp", "quarantine"
FOLDERS = (PLAN, SHARDS, COMMITS, TMP)
SHARD_SUFFIX = ".h5"
INDEX = "index.h5"
KIND_ACTIVATIONS, KIND_RESULTS = "activations", "results"
KINDS = (KIND_ACTIVATIONS, KIND_RESULTS)

# Root attributes of every shard
A_FORMAT, A_VERSION, A_KIND = "format", "format_version", "kind"
A_CONTENT_KEY, A_UNIT, A_UNIT_PROMPTS, A_NOTE = "content_key", "unit", "unit_prompts", "note"
A_SPEC, A_PROVENANCE = "spec", "provenance"

# Attributes of any object
A_ENCODING, A_ENCODING_VERSION = "encoding-type", "encoding-version"
A_TORCH_DTYPE = "torch_dtype"
A_INDEX_HASH = "index_xxh3_128"

# Activation shards
ACTIVATIONS = "activations"
VALUES, CHUNK_HASHES = "values", "chunk_xxh3_128"
PROMPT_ID, VARIANT, POSITION, TOKEN_ID = "prompt_id", "variant", "position", "token_id"
LAYER, ROW, D_MODEL = "layer", "row", "d_model"
HASH_BYTES = 16
CHUNK_ROWS = 128

# Result shards
COLUMNS, OFFSETS, NULL = "columns", "offsets", "null"
COLUMN_ORDER = "column_order"

# netCDF's own words for "a dimension without coordinates"; h5netcdf, xarray and the netCDF library look for them.
DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable. {size:9d}"


def bfloat16_type() -> h5t.TypeFloatID:
    """HDF5's native bfloat16 (equal to H5T_FLOAT_BFLOAT16LE of HDF5 2.0, which h5py does not export by name).

    Sign bit 15, 8 exponent bits from bit 7 with bias 127, 7 mantissa bits: any HDF5 tool converts it by these fields.
    """
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


@dataclass(frozen=True)
class StoredDtype:
    """How one float format is stored: `raw` is the NumPy dtype of its bits, `exponent` masks its exponent."""

    raw: np.dtype
    bits: np.dtype
    exponent: int

    @property
    def sign(self) -> int:
        return 1 << (8 * self.bits.itemsize - 1)

    @cached_property
    def signed(self) -> np.dtype:
        return np.dtype(self.bits.str.replace("u", "i"))

    @property
    def file_type(self) -> h5t.TypeID:
        return bfloat16_type() if self.raw.kind == "u" else h5t.py_create(self.raw)


DTYPES = {
    "float32": StoredDtype(np.dtype("<f4"), np.dtype("<u4"), 0x7F800000),
    "float16": StoredDtype(np.dtype("<f2"), np.dtype("<u2"), 0x7C00),
    "bfloat16": StoredDtype(np.dtype("<u2"), np.dtype("<u2"), 0x7F80),
}


def chunk_rows(rows: int) -> int:
    """At most 128, and chunks of nearly equal height, so that the padding of the last one stays below their number."""
    chunks = max(1, -(-rows // CHUNK_ROWS))
    return max(1, -(-rows // chunks))
