"""StreamedMoments: means, scatters and split halves of prompts that were never stored, by variant and class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from hooks.site import Site
from stores import NoRows
from stores.conditions import matching
from stores.printed import Printed
from workbench.subspace.moments import Moments
from workbench.subspace.rows import site_among
from workbench.subspace.sums import Scatter, Sums

OCTAVES, STEPS = 80, 128  # as in hooks.accumulate, which needs torch


@dataclass(frozen=True, eq=False)
class StreamedMoments(Printed):
    """What `wb.moments` gives: no rows, but sums over them, for every group (a variant and a class of prompts).

    `where(variant=..., label=...)` chooses groups, `at("vision.resid_post")` one stream. `wb.difference_of_means` and
    `wb.pca` take it in place of a store. Rows weigh the same, so under a scope of many positions a long prompt weighs
    more; under the scope `all` position 0 is left out. `classes` are the values that tell the classes apart, `info`
    says how the sums came about; `matched` is not None when rows are differences of two variants.
    """

    variants: tuple[str, ...]
    classes: tuple[Mapping[str, Any], ...]
    prompts: tuple[str, ...]
    class_of: Int[np.ndarray, " prompt"]
    half: Bool[np.ndarray, "prompt split"]
    groups: tuple[tuple[int, int], ...]  # (variant, class) of each group
    parts: tuple[Sums, ...]  # one a stream
    info: Mapping[str, Any]
    chosen: tuple[int, ...]

    # What there is

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(part.stream for part in self.parts)

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(site for part in self.parts for site in part.sites)

    @property
    def names(self) -> list[dict[str, Any]]:
        """Each chosen group as `{"variant": ..., "label": ...}`, in the order of `counts` and `means`."""
        return [{"variant": self.variants[v], **self.classes[c]} for v, c in self._distinct]

    @property
    def counts(self) -> Int[np.ndarray, " group"]:
        """Rows of each chosen group: one a prompt for pooled scopes, one a position for the others."""
        return np.array([self._one.count(self._members[key]) for key in self._distinct])

    @property
    def matched(self) -> int | None:
        """How many rows there are, when they are differences of two variants; else None."""
        return len(self) if self.info.get("minus") is not None else None

    @property
    def prompt_ids(self) -> list[str]:
        """The prompts that gave rows to the chosen groups."""
        given = np.zeros(len(self.prompts), bool)
        for v, c in self._distinct:
            given |= (self._one.rows_of[:, v] > 0) & (self.class_of == c)
        return [self.prompts[i] for i in np.flatnonzero(given)]

    def __len__(self) -> int:
        return int(self.counts.sum())

    def d_model(self, site: Site | str | int) -> int:
        return self._at(site)[0].d_model

    def __repr__(self) -> str:
        named = [" ".join(str(value) for value in name.values()) for name in self.names]
        shown = ", ".join(f"{name} {count}" for name, count in zip(named[:6], self.counts, strict=False))
        exact = self.info.get("covariance") or "none"
        sketch = f", sketch of rank {self.info['sketch']}" if self.info.get("sketch") else ""
        return (
            f"StreamedMoments({len(self.sites)} sites, {len(named)} groups: {shown}{' ...' if len(named) > 6 else ''}; "
            f"covariance {exact}{sketch}; model {self.info.get('model')}, scope {self.info.get('scope')})"
        )

    def rows(self) -> list[dict[str, Any]]:
        """One dict a group: what it is, and how many rows are summed in it."""
        return [{**name, "rows": int(count)} for name, count in zip(self.names, self.counts, strict=True)]

    # Choosing

    def where(self, **conditions: Any) -> StreamedMoments:
        """The groups for which all conditions hold: on `variant` and on what the classes are told apart by; a value, a
        collection or a predicate. Raises NoRows, listing what exists, when no group with rows is left."""
        names = ["variant", *self.classes[0]]
        if strange := conditions.keys() - set(names):
            raise ValueError(
                f"{', '.join(sorted(strange))} does not tell these sums apart: expected {', '.join(names)}. What is to "
                "be chosen by later must be named in wb.moments(..., by=...)."
            )
        tests = {name: matching(condition) for name, condition in conditions.items()}

        def holds(group: int) -> bool:
            v, c = self.groups[group]
            named = {"variant": self.variants[v], **self.classes[c]}
            filled = any(part.counts[group] for part in self.parts)
            return filled and all(test(named[name]) for name, test in tests.items())

        chosen = tuple(group for group in self.chosen if holds(group))
        if not chosen:
            asked = ", ".join(f"{name}={condition!r}" for name, condition in conditions.items())
            there = "; ".join(", ".join(f"{name}={value!r}" for name, value in group.items()) for group in self.names)
            raise NoRows(f"No group with rows has {asked}. There are: {there}.")
        return dataclasses.replace(self, chosen=chosen)

    def at(self, name: object) -> StreamedMoments:
        """The sums of one stream (`at("vision.resid_post")`, or any of its sites)."""
        stream = str(name).rpartition(":")[0] if ":" in str(name) else str(name)
        parts = tuple(part for part in self.parts if part.stream == stream)
        if not parts:
            raise ValueError(f"stream {stream!r} is not here: expected one of {', '.join(self.streams)}.")
        return dataclasses.replace(self, parts=parts)

    # Means and scatters of the chosen groups

    @property
    def means(self) -> Float[np.ndarray, "site group d_model"]:
        """Mean of each chosen group with rows at each site, float64."""
        part = self._one
        return np.stack([[part.mean(i, self._members[key]) for key in self._distinct] for i in range(len(part.sites))])

    def mean(self, site: Site | str | int) -> Float[np.ndarray, " d_model"]:
        """Mean of all chosen rows at one site."""
        part, index = self._at(site)
        return part.mean(index, self._filled(part))

    def total(self, site: Site | str | int) -> Scatter:
        """Scatter of all chosen rows about their mean: within + between."""
        part, index = self._at(site)
        return part.scatter_about(index, [self._filled(part)])

    def within(self, site: Site | str | int) -> Scatter:
        """Scatter of the rows about the means of their own groups."""
        part, index = self._at(site)
        return part.scatter_about(index, self._groupings(part))

    def between(self, site: Site | str | int) -> Scatter:
        """Scatter of the group means about the mean of all, each times its rows; exact, and of rank groups - 1."""
        part, index = self._at(site)
        mean = self.mean(site)
        groupings = self._groupings(part)
        apart = np.stack([np.sqrt(part.count(one)) * (part.mean(index, one) - mean) for one in groupings])
        return Scatter(float(np.square(apart).sum()), rows=apart, signs=np.ones(len(apart)))

    @property
    def separation(self) -> Float[np.ndarray, " site"]:
        """Trace of between / trace of within, a site: how far apart the groups are, beside their spread. Needs no
        covariance; infinite where nothing varies within, NaN where nothing varies at all."""
        out = []
        for part in self.parts:
            for index in range(len(part.sites)):
                within = part.trace_about(index, self._groupings(part))
                out.append((part.trace_about(index, [self._filled(part)]) - within, within))
        between, within = np.array(out).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.maximum(between, 0) / within

    def moments(self, site: Site | str | int) -> Moments:
        """Count, mean and scatter of all chosen rows at one site, as `wb.Moments`; refused for a sketch."""
        part, _ = self._at(site)
        total = self.total(site)
        if total.matrix is None:
            raise ValueError("a sketch has no exact scatter: expected covariance sums without sketch=.")
        return Moments(part.d_model, part.count(self._filled(part)), self.mean(site), total.matrix)

    def error_bound(self, site: Site | str | int) -> float:
        """The most by which a sketch's scatter is below the true one in any direction; 0 when it is exact."""
        return self.total(site).slack

    def median_norm(self, site: Site | str | int) -> float:
        """Median length of the chosen rows, to 0.3 %: the middle of its bin in a histogram of steps of 0.54 %."""
        part, index = self._at(site)
        histogram = part.histogram(index, self._filled(part))
        place = int(np.searchsorted(np.cumsum(histogram), (histogram.sum() + 1) / 2))
        return 0.0 if place == 0 else float(2.0 ** ((place + 0.5) / STEPS - OCTAVES / 2))

    def halves(self, site: Site | str | int) -> tuple[Float[np.ndarray, "split d_model"], ...]:
        """Means of the two halves of the prompts in each split; NaN where a half has no rows."""
        part, index = self._at(site)
        return part.halves_of(index, self._filled(part))

    # Joining and keeping

    def merge(self, other: StreamedMoments) -> StreamedMoments:
        """These sums and those of other prompts (of another worker, or a later day), exactly; sketches merge with the
        sum of their bounds. Raises ValueError when the two were not made alike or share a prompt."""
        from workbench.subspace.streamed_merge import merged

        return merged(self, other)

    def save(self, path: str | Path) -> Path:
        """Writes one HDF5 file, replacing what is there; `load` gives back the same, bit for bit."""
        from workbench.subspace.streamed_file import save_moments

        return save_moments(self, path)

    @staticmethod
    def load(path: str | Path) -> StreamedMoments:
        """What `save`, or `wb.moments(..., to=path)`, wrote. Raises ValueError for a run that is not finished."""
        from workbench.subspace.streamed_file import load_moments

        return load_moments(path)

    # Inside

    @property
    def _members(self) -> dict[tuple[int, int], list[int]]:
        """The chosen groups of each (variant, class); several after a merge."""
        out: dict[tuple[int, int], list[int]] = {}
        for group in self.chosen:
            out.setdefault(self.groups[group], []).append(group)
        return out

    @property
    def _distinct(self) -> list[tuple[int, int]]:
        return [key for key, members in self._members.items() if any(p.count(members) for p in self.parts)]

    def _groupings(self, part: Sums) -> list[list[int]]:
        return [members for members in self._members.values() if part.count(members)]

    def _filled(self, part: Sums) -> Sequence[int]:
        groups = [group for group in self.chosen if part.counts[group]]
        if not groups:
            raise ValueError(
                f"the chosen groups have no rows at {part.stream}: text has none in a vision "
                "tower. Choose groups with pictures, or the language stream."
            )
        return groups

    @property
    def _one(self) -> Sums:
        first, *others = self.parts
        if others:
            raise ValueError(
                f"these sums span streams with rows of their own ({', '.join(self.streams)}): choose one, as in "
                f".at({self.streams[0]!r})."
            )
        return first

    def _at(self, site: Site | str | int) -> tuple[Sums, int]:
        found = site_among(self.sites, site)
        part = next(part for part in self.parts if found in part.sites)
        return part, part.sites.index(found)
