"""Rows: a frozen view of a store. Which rows, whose they are, and their values, read when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy.typing import DTypeLike

from stores import frames
from stores.conditions import matching, nothing_matches
from stores.errors import NoRows, StoreError, UnknownName
from stores.part import Part, paired, same_rows

_COLUMNS = ("variant", "label", "prompt_id", "position", "token_id")

if TYPE_CHECKING:
    import pandas
    import xarray

    cached = property  # a protocol of rows asks for properties, and type checkers take no cached_property for one
else:
    cached = cached_property


class Rows:
    """Rows of a store: ids, labels, tags, positions, and `values(site)` as [n, d_model]. Selecting gives a new view.

    Row i is the same row in every list and at every site. Streams with rows of their own (image patches beside the last
    token) cannot share one list of ids; `at("vision.resid_post")` picks one of them, and only where that matters the
    view asks for it.
    """

    def __init__(
        self, parts: Mapping[str, Part], prompts: Mapping[str, dict[str, Any]], info: Mapping[str, Any]
    ) -> None:
        self._parts = dict(parts)
        self._prompts = prompts
        self._records = list(prompts.values())
        self._info = dict(info)

    # What there is

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams that have rows here: `("resid_post", "vision.resid_post")`."""
        return tuple(self._parts)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites whose values can be read: `("resid_post:0", "resid_post:1", ...)`."""
        return tuple(site for part in self._parts.values() for site in part.table.stream.sites)

    @property
    def info(self) -> dict[str, Any]:
        """The store's spec (model, scope, variants, ...), its path, how many units of the plan are there, and, of a
        difference, how many rows matched. A copy."""
        return dict(self._info)

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the tags that the prompts of the store have, sorted."""
        return tuple(sorted({tag for record in self._records for tag in record["tags"]}))

    def record(self, prompt_id: str) -> dict[str, Any]:
        """The record of a prompt: `{"id", "label", "tags", "sha256"}`."""
        return dict(self._prompts[prompt_id])

    def part(self, stream: str) -> Part:
        """The rows of one stream as the store keeps them, for what writes them elsewhere."""
        return self._parts[stream]

    def d_model(self, site: object) -> int:
        """Width of the residual stream at this site."""
        return self._located(site)[0].table.stream.d_model

    def __len__(self) -> int:
        return len(self._one)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {len(part)}" for name, part in self._parts.items())
        variants = sorted({variant for part in self._parts.values() for variant in set(part.variants)})
        return (
            f"Rows({counts} rows; {len(self.sites)} sites; variants {', '.join(variants)}; {self._info.get('store')})"
        )

    def _repr_html_(self) -> str:
        parts = ((part.table.stream.described(), len(part)) for part in self._parts.values())
        rows = [{**stream, "layers": len(stream["layers"]), "rows": count} for stream, count in parts]
        return frames.html_table(repr(self), rows)

    # Whose rows

    @cached
    def prompt_ids(self) -> list[str]:
        return [self._records[code]["id"] for code in self._codes]

    @cached
    def labels(self) -> list[Any]:
        """Each row's prompt label; None for prompts without one."""
        return [self._records[code]["label"] for code in self._codes]

    @cached
    def variants(self) -> list[str]:
        return self._one.variants

    @cached
    def positions(self) -> Int64[np.ndarray, " n"]:
        """Absolute token positions; -1 for pooled rows."""
        return self._one.table.position[self._one.plus]

    @cached
    def token_ids(self) -> Int64[np.ndarray, " n"]:
        """Token ids at these positions; -1 for pooled rows."""
        return self._one.table.token_id[self._one.plus]

    def tag(self, name: str) -> list[Any]:
        """Each row's value of a prompt tag; None where the prompt lacks it. Raises UnknownName when no prompt
        has it."""
        self._check_tag(name)
        return [self._records[code]["tags"].get(name) for code in self._codes]

    @property
    def matched(self) -> int | None:
        """Of a difference: how many pairs it holds; None for rows as stored. `info["pairs"]` adds what found no
        partner."""
        return len(self) if self._one.minus is not None else None

    # Values

    def values(self, site: object, dtype: DTypeLike = np.float32) -> Float[np.ndarray, "n d_model"]:
        """Residuals of all rows at one site, in row order. Reads from disk each time, and checks each chunk's hash.

        `site` is a name from `sites`, or anything whose str() is one. Raises UnknownName, StoreCorrupted.
        """
        part, layer = self._located(site)
        return part.values(layer, _float_dtype(dtype))

    def batches(
        self, site: object, size: int = 4096, dtype: DTypeLike = np.float32
    ) -> Iterator[Float[np.ndarray, "n d_model"]]:
        """The same rows in pieces of at most `size`, for what must not hold them all at once."""
        if size < 1:
            raise ValueError(f"batches(size={size}): expected at least 1 row a batch.")
        part, layer = self._located(site)
        for start in range(0, len(part), size):
            mask = np.zeros(len(part), dtype=bool)
            mask[start : start + size] = True
            yield part.kept(mask).values(layer, _float_dtype(dtype))

    def to_xarray(self, stream: str | None = None, dtype: DTypeLike = np.float32) -> xarray.Dataset:
        """`values` [layer, row, d_model] of one stream as an xarray Dataset with named dimensions, and whose rows they
        are as coordinates; all in memory. Raises ImportError, with the install command, where xarray is missing."""
        from stores.named_arrays import dataset_of

        return dataset_of(self, stream, dtype)

    def to_pandas(self, stream: str | None = None) -> pandas.DataFrame:
        """Whose rows they are as a data frame, one line a row: prompt id, variant, label, position, token id and tags.
        `stream` chooses one where several have rows of their own. Values: `values`, `to_xarray`."""
        from stores.named_arrays import frame_of

        return frame_of(self, stream)

    # Selecting

    def at(self, name: object) -> Rows:
        """The rows of one stream (`at("vision.resid_post")`, or any of its sites), for lists of ids that belong to
        it."""
        stream = str(name).rpartition(":")[0] if ":" in str(name) else str(name)
        if stream not in self._parts:
            raise UnknownName(f"No stream {stream!r} here: there are {', '.join(self._parts)}.")
        return Rows({stream: self._parts[stream]}, self._prompts, self._info)

    def where(self, **conditions: Any) -> Rows:
        """Rows for which all conditions hold: on `variant`, `label`, `prompt_id`, `position`, `token_id`, or any tag.

        A condition is a value, a collection of allowed values, or a predicate. Raises NoRows, listing what exists, when
        nothing matches, UnknownName for a tag that no prompt has.
        """
        for name in conditions:
            if name not in _COLUMNS:
                self._check_tag(name)
        parts = {}
        for stream, part in self._parts.items():
            mask = np.ones(len(part), dtype=bool)
            for name, condition in conditions.items():
                mask &= self._mask(part, name, condition)
            if mask.any():
                parts[stream] = part.kept(mask)
        if not parts:
            existing = {
                name: [value for part in self._parts.values() for value in self._column(part, name)]
                for name in conditions
            }
            raise nothing_matches(conditions, existing)
        return Rows(parts, self._prompts, self._info)

    def difference(self, minuend: str, subtrahend: str) -> Rows:
        """Rows of variant `minuend` minus those of `subtrahend`, paired by (prompt id, position); order of the first.

        Rows without a partner are left out, and counted in `info["pairs"]`; `matched` says how many pairs there are.
        Raises NoRows when none match, ValueError when a variant has two rows of one prompt and position.
        """
        parts, pairs = {}, {}
        for stream, part in self._parts.items():
            if part.minus is not None:
                raise ValueError(f"These rows are a difference already ({part.variant}): expected rows as stored.")
            left, right = (part.plus[self._mask(part, "variant", name)] for name in (minuend, subtrahend))
            first, second = paired(part.table, left, right, stream)
            token_ids = part.table.token_id
            pairs[stream] = {
                "matched": len(first),
                minuend: len(left),
                subtrahend: len(right),
                "other_token": int(np.count_nonzero(token_ids[first] != token_ids[second])),
            }
            if len(first):
                parts[stream] = Part(part.table, first, second, f"{minuend}-{subtrahend}")
        if not parts:
            existing = sorted({name for part in self._parts.values() for name in part.variants})
            raise NoRows(
                f"difference({minuend!r}, {subtrahend!r}) pairs no rows {pairs}: expected two variants that share "
                "prompts and "
                f"positions. Variants here: {', '.join(map(repr, existing))}."
            )
        return Rows(parts, self._prompts, {**self._info, "pairs": pairs})

    # Inside

    @cached_property
    def _one(self) -> Part:
        """The part that speaks for all streams; an error where they have different rows."""
        first, *others = self._parts.values()
        if not all(same_rows(first, other) for other in others):
            counts = ", ".join(f"{name} {len(part)}" for name, part in self._parts.items())
            raise StoreError(
                f"This view spans streams with rows of their own ({counts}): expected one list of rows. "
                f"Mend: choose a stream, .at({self.streams[0]!r}) or .at({self.streams[-1]!r})."
            )
        return first

    @property
    def _codes(self) -> list[int]:
        return self._one.table.prompt[self._one.plus].tolist()

    def _located(self, site: object) -> tuple[Part, int]:
        stream, _, layer = str(site).rpartition(":")
        if str(site) not in self.sites:
            raise UnknownName(f"No site {str(site)!r} here: there are {', '.join(self.sites)}.")
        return self._parts[stream], int(layer)

    def _check_tag(self, name: str) -> None:
        if name not in self.tags:
            raise UnknownName(f"No tag {name!r}: there are {', '.join(_COLUMNS)}, and the tags {list(self.tags)}.")

    def _column(self, part: Part, name: str) -> list[Any]:
        if name == "variant":
            return part.variants
        if name in ("position", "token_id"):
            return getattr(part.table, name)[part.plus].tolist()
        return [self._of_prompt(code, name) for code in part.table.prompt[part.plus].tolist()]

    def _of_prompt(self, code: int, name: str) -> Any:
        record = self._records[code]
        if name == "prompt_id":
            return record["id"]
        return record["label"] if name == "label" else record["tags"].get(name)

    def _mask(self, part: Part, name: str, condition: Any) -> Bool[np.ndarray, " n"]:
        """Each distinct value is tested once, however many rows share it."""
        holds = matching(condition)
        if name == "variant" and part.variant is not None:
            return np.full(len(part), holds(part.variant))
        column = {"variant": "variant", "position": "position", "token_id": "token_id"}.get(name, "prompt")
        distinct, inverse = np.unique(getattr(part.table, column)[part.plus], return_inverse=True)
        if column == "variant":
            meaning = [part.table.variants[code] for code in distinct.tolist()]
        elif column == "prompt":
            meaning = [self._of_prompt(code, name) for code in distinct.tolist()]
        else:
            meaning = distinct.tolist()
        return np.array([holds(value) for value in meaning], dtype=bool)[inverse]


def _float_dtype(dtype: DTypeLike) -> np.dtype:
    found = np.dtype(dtype)
    if found.kind != "f":
        raise ValueError(f"values(dtype={found}): expected a floating-point dtype, such as float32 or float64.")
    return found
