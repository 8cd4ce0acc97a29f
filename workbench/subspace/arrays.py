"""ArrayRows: activations that are already in memory, read like a view of a store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from workbench.subspace.rows import site_range


class ArrayRows:
    """Rows of activations held as arrays, with the interface of a store's view: for your own arrays, and for tests.

    `values` maps a site to [row, d_model]; every site has the same rows. `prompt_ids` (default "0", "1", ...),
    `variants`, `labels` and each of `tags` have one entry a row; `matched` is the number of pairs of rows that are
    differences. Raises ValueError when lengths differ or a value is not finite.
    """

    def __init__(
        self,
        values: Mapping[Any, Float[np.ndarray, "row _"]],
        prompt_ids: Sequence[str] | None = None,
        *,
        variants: Sequence[str] | str = "base",
        labels: Sequence[str | None] | None = None,
        positions: Sequence[int] | None = None,
        tags: Mapping[str, Sequence[Any]] | None = None,
        info: Mapping[str, Any] | None = None,
        matched: int | None = None,
    ) -> None:
        if not values:
            raise ValueError("ArrayRows needs at least one site: values={Site(3): array [row, d_model]}.")
        self._values = {str(Site.parse(site)): np.asarray(array) for site, array in values.items()}
        n = len(next(iter(self._values.values())))
        self.sites = tuple(self._values)
        self.prompt_ids = [str(i) for i in range(n)] if prompt_ids is None else list(prompt_ids)
        self.variants = [variants] * n if isinstance(variants, str) else list(variants)
        self.labels = [None] * n if labels is None else list(labels)
        self.positions = np.full(n, -1) if positions is None else np.asarray(positions)
        self.info = dict(info or {})
        self.matched = matched
        self._tags = {name: list(column) for name, column in (tags or {}).items()}
        columns = {"prompt_ids": self.prompt_ids, "variants": self.variants, "labels": self.labels, **self._tags}
        for name, column in {**self._values, **columns, "positions": self.positions}.items():
            if len(column) != n:
                raise ValueError(f"{name} has {len(column)} entries: expected one a row, {n}.")
        for name, array in self._values.items():
            if array.ndim != 2 or not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite values of shape [row, d_model]; {array.shape} came.")

    def __repr__(self) -> str:
        sites = site_range([Site.parse(site) for site in self.sites])
        variants = ", ".join(dict.fromkeys(self.variants))
        return f"ArrayRows({len(self)} rows, {sites}; variants {variants}, in memory)"

    def __len__(self) -> int:
        return len(self.prompt_ids)

    def values(self, site: Any, dtype: Any = np.float32) -> Float[np.ndarray, "row d_model"]:
        """The rows at one site; `site` is its name or anything whose str() is."""
        if str(site) not in self._values:
            raise ValueError(f"site {site!s} is not here: expected one of {', '.join(self.sites)}.")
        return self._values[str(site)].astype(dtype)

    def batches(self, site: Any, size: int = 4096) -> Iterator[Float[np.ndarray, "row d_model"]]:
        """The same rows in pieces of `size`, in the dtype they came in."""
        rows = self._values[str(site)]
        yield from (rows[start : start + size] for start in range(0, len(rows), size))

    def d_model(self, site: Any) -> int:
        """Width of one site."""
        return self._values[str(site)].shape[1]

    def tag(self, name: str) -> list[Any]:
        """The column of one tag."""
        if name not in self._tags:
            raise ValueError(f"tag {name!r} is not here: expected one of {', '.join(self._tags) or 'no tags'}.")
        return self._tags[name]

    def where(self, **conditions: Any) -> ArrayRows:
        """The rows for which all conditions hold: variant=, label=, prompt_id=, position= or a tag; a value, a
        collection or a predicate."""
        own = {"variant": self.variants, "label": self.labels, "prompt_id": self.prompt_ids}
        own["position"] = self.positions.tolist()
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in conditions.items():
            column = own[name] if name in own else self.tag(name)
            keep &= np.array([_holds(value, wanted) for value in column], dtype=bool)
        if not keep.any():
            raise ValueError(f"no row matches {conditions}: labels are {sorted(map(str, set(self.labels)))}.")
        index = np.flatnonzero(keep)
        return ArrayRows(
            {site: rows[index] for site, rows in self._values.items()},
            [self.prompt_ids[i] for i in index],
            variants=[self.variants[i] for i in index],
            labels=[self.labels[i] for i in index],
            positions=self.positions[index].tolist(),
            tags={name: [column[i] for i in index] for name, column in self._tags.items()},
            info=self.info,
            matched=None if self.matched is None else len(index),
        )


def _holds(value: Any, wanted: Any) -> bool:
    if callable(wanted):
        return bool(wanted(value))
    if isinstance(wanted, Collection) and not isinstance(wanted, str):
        return value in wanted
    return bool(value == wanted)
