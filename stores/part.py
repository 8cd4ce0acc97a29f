"""Part: the rows of a view in one stream, as stored or as differences, and how rows of two variants pair."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int64

from stores.rows_on_disk import StreamTable


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of a view in one stream: `plus`, or the differences `plus - minus`, as row numbers of the table."""

    table: StreamTable
    plus: Int64[np.ndarray, " n"]
    minus: Int64[np.ndarray, " n"] | None = None
    variant: str | None = None
    """the name of a difference, "tuned-base"; None: each row has its own"""

    def __len__(self) -> int:
        return len(self.plus)

    @property
    def variants(self) -> list[str]:
        if self.variant is not None:
            return [self.variant] * len(self)
        return [self.table.variants[code] for code in self.table.variant[self.plus]]

    def kept(self, mask: Bool[np.ndarray, " n"]) -> Part:
        minus = None if self.minus is None else self.minus[mask]
        return replace(self, plus=self.plus[mask], minus=minus)

    def values(self, layer: int, dtype: np.dtype) -> Float[np.ndarray, "n d_model"]:
        if self.minus is None:
            return self.table.read(layer, self.plus, dtype)
        wide = np.dtype(np.promote_types(dtype, np.float32))  # a difference in float16 would round twice
        out = self.table.read(layer, self.plus, wide)
        out -= self.table.read(layer, self.minus, wide)
        return out.astype(dtype, copy=False)


def same_rows(a: Part, b: Part) -> bool:
    """Whether row i is of the same prompt, variant, position and token in both."""
    return (
        len(a) == len(b)
        and all(
            np.array_equal(getattr(a.table, name)[a.plus], getattr(b.table, name)[b.plus])
            for name in ("prompt", "position", "token_id")
        )
        and a.variants == b.variants
    )


def paired(
    table: StreamTable, left: Int64[np.ndarray, " a"], right: Int64[np.ndarray, " b"], stream: str
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Rows of `left` and their partners in `right`, by (prompt, position)."""
    keys = []
    for rows in (left, right):
        found = list(zip(table.prompt[rows].tolist(), table.position[rows].tolist(), strict=True))
        if len(set(found)) != len(found):
            raise ValueError(
                f"A variant has several rows of one prompt and position in {stream}: pairs would be arbitrary. "
                "Mend: narrow the view with where(...) first."
            )
        keys.append(found)
    partner = dict(zip(keys[1], right.tolist(), strict=True))
    kept = [(row, partner[key]) for key, row in zip(keys[0], left.tolist(), strict=True) if key in partner]
    first, second = (np.array([pair[i] for pair in kept], dtype=np.int64) for i in (0, 1))
    return first, second
