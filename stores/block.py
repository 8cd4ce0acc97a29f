"""Block: what one unit gave for one stream, checked before a byte of it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, Shaped

from stores.errors import NotFinite
from stores.plan import Stream, Unit
from stores.schema import DTYPES

_MAX_TEXT_BYTES = 4096


@dataclass(frozen=True, eq=False)
class Block:
    """Residuals of one unit at the sites of one stream, with the row index: row -> (prompt id, variant, position,
    token id).

    `values` holds float32, float16, or the raw bits of bfloat16 as uint16. `position` is the absolute token position,
    and `token_id` the token there; pooled rows use -1 for what they do not have. No rows at all is legal (text
    prompts have no image tokens).
    """

    values: Shaped[np.ndarray, "layer row d_model"]
    prompt_id: Sequence[str]
    variant: Sequence[str]
    position: Integer[np.ndarray, " row"] | Sequence[int]
    token_id: Integer[np.ndarray, " row"] | Sequence[int]


def checked(block: Block, stream: Stream, unit: Unit, allow_nonfinite: bool) -> Block:
    """The block with its columns as arrays. Raises ValueError for wrong shapes, dtypes or prompts, NotFinite for NaN
    or Inf."""
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
    if not allow_nonfinite:
        _refuse_nonfinite(values, stored.bits, stored.exponent, stream, where)
    return Block(
        np.ascontiguousarray(values, dtype=stored.raw),
        list(block.prompt_id),
        list(block.variant),
        whole_numbers(block.position, f"{where}: position"),
        whole_numbers(block.token_id, f"{where}: token_id"),
    )


def _refuse_nonfinite(values: np.ndarray, bits: np.dtype, exponent: int, stream: Stream, where: str) -> None:
    """NaN and infinity are the codes whose exponent bits are all set: integer work, the same for all three formats."""
    for layer, plane in zip(stream.layers, np.ascontiguousarray(values), strict=True):
        bad = int(np.count_nonzero((plane.view(bits) & exponent) == exponent))
        if bad:
            raise NotFinite(
                f"{where}, layer {layer}: {bad} of {plane.size} values are NaN or infinite, expected none. A "
                "float16 overflow "
                "or a broken forward pass is usual; store in bfloat16 or float32, or put allow_nonfinite=True into "
                "the spec."
            )


def whole_numbers(column: np.ndarray | Sequence[int], name: str) -> Integer[np.ndarray, " row"]:
    """The column as 64-bit integers. Raises ValueError for anything else: a rounded position would be another token."""
    array = np.asarray(column)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {array.dtype}: expected whole numbers.")
    return array.astype("<i8")
