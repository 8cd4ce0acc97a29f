"""built_at: the directions of one fine-tune at several scopes, each from the rows that were captured there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stores.printed import Printed
from workbench.subspace.directions import Directions
from workbench.subspace.means import difference_of_means
from workbench.subspace.rows import RowSource


@dataclass(frozen=True, eq=False)
class BuiltDirections(Mapping[str, Directions | None], Printed):
    """Directions by where they were built ("image", "response"); None where one could not be."""

    directions: Mapping[str, Directions | None]

    def __getitem__(self, scope: str) -> Directions | None:
        return self.directions[scope]

    def __iter__(self) -> Iterator[str]:
        return iter(self.directions)

    def __len__(self) -> int:
        return len(self.directions)

    def __str__(self) -> str:
        return "\n".join(f"built at {scope}: {v or 'nothing'}" for scope, v in self.directions.items())


def built_at(
    rows: Mapping[str, RowSource], positive: str = "tuned", negative: str = "base", **options: Any
) -> BuiltDirections:
    """Scope -> difference of means of two variants' rows there (`wb.difference_of_means`, with its options), for
    `wb.routes`. `rows` are named by the scope that they were captured at."""
    pairs = {scope: [own.where(variant=name) for name in (positive, negative)] for scope, own in rows.items()}
    return BuiltDirections({scope: difference_of_means(*pair, **options) for scope, pair in pairs.items()})
