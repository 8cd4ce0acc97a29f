"""AllRows: what a view of rows offers, offered for all rows by whatever has them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import DTypeLike

from stores.view import Rows

if TYPE_CHECKING:
    import pandas
    import xarray


class AllRows(ABC):
    """Each method and property of `Rows`, of `rows()`."""

    @abstractmethod
    def rows(self) -> Rows:
        """All rows that are there now."""

    def where(self, **conditions: Any) -> Rows:
        """See `Rows.where`."""
        return self.rows().where(**conditions)

    def difference(self, minuend: str, subtrahend: str) -> Rows:
        """See `Rows.difference`."""
        return self.rows().difference(minuend, subtrahend)

    def at(self, name: object) -> Rows:
        """See `Rows.at`."""
        return self.rows().at(name)

    def values(self, site: object, dtype: DTypeLike = np.float32) -> Float[np.ndarray, "n d_model"]:
        """See `Rows.values`."""
        return self.rows().values(site, dtype)

    def batches(
        self, site: object, size: int = 4096, dtype: DTypeLike = np.float32
    ) -> Iterator[Float[np.ndarray, "n d_model"]]:
        """See `Rows.batches`."""
        return self.rows().batches(site, size, dtype)

    def to_xarray(self, stream: str | None = None, dtype: DTypeLike = np.float32) -> xarray.Dataset:
        """See `Rows.to_xarray`."""
        return self.rows().to_xarray(stream, dtype)

    def to_pandas(self, stream: str | None = None) -> pandas.DataFrame:
        """See `Rows.to_pandas`."""
        return self.rows().to_pandas(stream)

    def tag(self, name: str) -> list[Any]:
        """See `Rows.tag`."""
        return self.rows().tag(name)

    def d_model(self, site: object) -> int:
        """See `Rows.d_model`."""
        return self.rows().d_model(site)

    def __len__(self) -> int:
        return len(self.rows())

    @property
    def info(self) -> dict[str, Any]:
        return self.rows().info

    @property
    def prompt_ids(self) -> list[str]:
        return self.rows().prompt_ids

    @property
    def variants(self) -> list[str]:
        return self.rows().variants

    @property
    def labels(self) -> list[Any]:
        return self.rows().labels

    @property
    def positions(self) -> Int64[np.ndarray, " n"]:
        return self.rows().positions

    @property
    def token_ids(self) -> Int64[np.ndarray, " n"]:
        return self.rows().token_ids

    @property
    def matched(self) -> None:
        """Rows as stored are no pairs; see `Rows.matched`."""
        return None
