"""Rows as others name them: an xarray Dataset with dimensions and coordinates, a pandas frame of their owners."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from stores import frames, schema
from stores.one_file import LABEL, TAG
from stores.view import Rows

if TYPE_CHECKING:
    import pandas
    import xarray


def dataset_of(rows: Rows, stream: str | None = None, dtype: DTypeLike = np.float32) -> xarray.Dataset:
    """`values` [layer, row, d_model] of one stream (the only one, when none is named), all in memory, with the
    coordinates layer, prompt_id, variant, position, token_id, label, and each tag as `tag_<name>`.

    Raises ImportError, with the install command, where xarray is missing; ValueError when there are several streams.
    """
    try:
        import xarray
    except ImportError as error:
        raise ImportError(
            "to_xarray() needs xarray: pip install xarray. Without it, values(site) gives arrays, export_store a file."
        ) from error
    if stream is None:
        if len(rows.streams) > 1:
            raise ValueError(f"to_xarray(): expected one stream; name one of {', '.join(rows.streams)}.")
        stream = next(iter(rows.streams))
    chosen = rows.at(stream)
    layout = chosen.part(stream).table.stream
    coordinates = {
        schema.PROMPT_ID: np.array(chosen.prompt_ids, dtype=object),
        schema.VARIANT: np.array(chosen.variants, dtype=object),
        schema.POSITION: chosen.positions,
        schema.TOKEN_ID: chosen.token_ids,
        LABEL: np.array(chosen.labels, dtype=object),
        **{f"{TAG}{tag}": np.array(chosen.tag(tag), dtype=object) for tag in chosen.tags},
    }
    values = np.stack([chosen.values(site, dtype) for site in layout.sites])
    return xarray.Dataset(
        {schema.VALUES: ((schema.LAYER, schema.ROW, schema.D_MODEL), values)},
        coords={
            schema.LAYER: list(layout.layers),
            **{name: (schema.ROW, column) for name, column in coordinates.items()},
        },
        attrs={"stream": stream, "stored_dtype": layout.dtype, **{k: str(v) for k, v in chosen.info.items()}},
    )


def frame_of(rows: Rows, stream: str | None = None) -> pandas.DataFrame:
    """Prompt id, variant, label, position, token id and each tag as `tag_<name>`, one line a row, without values.

    Raises ImportError, with the install command, where pandas is missing; StoreError when there are several streams
    with rows of their own and none is named.
    """
    chosen = rows if stream is None else rows.at(stream)
    columns = {
        schema.PROMPT_ID: chosen.prompt_ids,
        schema.VARIANT: chosen.variants,
        LABEL: chosen.labels,
        schema.POSITION: chosen.positions.tolist(),
        schema.TOKEN_ID: chosen.token_ids.tolist(),
        **{f"{TAG}{tag}": chosen.tag(tag) for tag in chosen.tags},
    }
    lines = [dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)]
    return frames.data_frame(lines, list(columns))
