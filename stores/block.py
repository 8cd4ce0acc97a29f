"""Block: what one unit gave for one stream, checked before a byte of it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, Shaped

from stores.plan import Stream, Unit
from stores.schema import DTYPES, StoredDtype

_MAX_TEXT_BYTES = 4096


@dataclass(frozen=True, eq=False)
class Block:
    """Residuals of one unit at the sites of one stream, with the row index: row -> (prompt id, variant, position,
    token id).

    `values` holds float32, float16, or the raw bits of bfloat16 as uint16; a view into a larger buffer is never copied
    as long as the rows of each layer lie one behind the other. `position` is the absolute token position, and
    `token_id` the token there; pooled rows use -1 for what they do not have. No rows at all is legal (text prompts have
    no image tokens).
    """

    values: Shaped[np.ndarray, "layer row d_model"]
    prompt_id: Sequence[str]
    variant: Sequence[str]
    position: Integer[np.ndarray, " row"] | Sequence[int]
    token_id: Integer[np.ndarray, " row"] | Sequence[int]
    finite: bool = False
    """whether the caller has looked for NaN and infinity, on the device that made the values; else the store looks"""


def checked(block: Block, stream: Stream, unit: Unit) -> Block:
    """The block with its columns as arrays, its values as they came: they are looked at once, while they are written.

    Raises ValueError for wrong shapes, dtypes or prompts.
    """
    where = f"Unit {unit.key!r}, stream {stream.name!r}"
    values, stored = np.asarray(block.values), DTYPES[stream.dtype]
    if values.dtype.newbyteorder("<") != stored.raw:
        raw = "uint16 (raw bits)" if stream.dtype == "bfloat16" else stream.dtype
        raise ValueError(
            f"{where}: values are {values.dtype}, expected {raw} for dtype {stream.dtype}; nothing is converted."
        )
    if values.ndim != 3 or (values.shape[0], values.shape[2]) != (len(stream.layers), stream.d_model):
        raise ValueError(
            f"{where}: values have shape {values.shape}, expected [layer={len(stream.layers)}, row, "
            f"d_model={stream.d_model}]."
        )
    rows = values.shape[1]
    columns = {
        "prompt_id": block.prompt_id,
        "variant": block.variant,
        "position": block.position,
        "token_id": block.token_id,
    }
    for name, column in columns.items():
        if len(column) != rows:
            raise ValueError(f"{where}: {name} has {len(column)} entries, expected one a row, {rows}.")
    if strange := sorted(set(block.prompt_id) - set(unit.prompt_ids)):
        raise ValueError(
            f"{where}: rows of prompt {strange[0]!r}, expected only prompts of the unit {unit.prompt_ids[:3]}..."
        )
    for text in (*unit.prompt_ids, *set(block.variant)):
        if not text or "\0" in text or len(text.encode("utf-8", "surrogatepass")) > _MAX_TEXT_BYTES:
            raise ValueError(
                f"{where}: {text[:40]!r} as prompt id or variant: expected 1 to {_MAX_TEXT_BYTES} bytes, no NUL."
            )
    return Block(
        values,
        list(block.prompt_id),
        list(block.variant),
        whole_numbers(block.position, f"{where}: position"),
        whole_numbers(block.token_id, f"{where}: token_id"),
        block.finite,
    )


class Codes:
    """The bits of some values, to be looked at for NaN and infinity; in all three formats alike, those are the codes
    whose exponent bits are all set."""

    def __init__(self, values: Shaped[np.ndarray, " n"], stored: StoredDtype) -> None:
        self._stored = stored
        self._signed, self._unsigned = values.view(stored.signed), values.view(stored.bits)

    def finite(self, start: int, stop: int) -> bool:
        """Whether none of these values is NaN or infinite. Those codes are the largest there are: as signed integers
        with a positive sign, as unsigned ones with a negative sign. Two maxima, and nothing is allocated."""
        return bool(
            np.maximum.reduce(self._signed[start:stop]) < self._stored.exponent
            and np.maximum.reduce(self._unsigned[start:stop]) < self._stored.exponent + self._stored.sign
        )


def whole_numbers(column: np.ndarray | Sequence[int], name: str) -> Integer[np.ndarray, " row"]:
    """The column as 64-bit integers. Raises ValueError for anything else: a rounded position would be another token."""
    array = np.asarray(column)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {array.dtype}: expected whole numbers.")
    return array.astype("<i8")
