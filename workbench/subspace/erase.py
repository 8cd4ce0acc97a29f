"""LEACE: the smallest affine change of rows after which no linear read-out tells the classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from hooks.site import Site
from stores.printed import Printed
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.directions import Directions
from workbench.subspace.probe_spread import Spread
from workbench.subspace.rows import RowSource, Sites, chosen_sites, narrowed, one_width, site_among, site_range

ROUNDING = 1e-11  # class means closer than this share of the rows' length are equal up to float64 rounding
TINY = 1e-10  # relative; directions of the class means beyond their number are rounding


@dataclass(frozen=True, eq=False)
class Eraser(Printed):
    """The map h <- h - Σ_j ((h - mean)·read_j) write_j a site, with read_i·write_j = 1 for i = j, else 0.

    `read` and `write` [site, k, d_model], k one less than the classes; rows beyond `rank` [site] are zero (0: the class
    means are equal there, and nothing is to erase). `mean` [site, d_model] is that of all rows fitted on. read is not
    write: the projection is oblique, and which one is dotted and which one subtracted must not be swapped. `shrinkage`
    [site] is the weight of the identity in the covariance.
    """

    sites: tuple[Site, ...]
    read: Float[np.ndarray, "site k d_model"]
    write: Float[np.ndarray, "site k d_model"]
    mean: Float[np.ndarray, "site d_model"]
    rank: Int[np.ndarray, " site"]
    shrinkage: Float[np.ndarray, " site"]
    n: tuple[int, ...] = ()
    model: str = ""
    scope: str = ""

    def __post_init__(self) -> None:
        for name in ("read", "write", "mean", "rank", "shrinkage"):
            value = np.array(getattr(self, name))
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def d_model(self) -> int:
        return self.read.shape[2]

    def at(self, site: Site | str | int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(read [rank, d_model], write [rank, d_model], mean [d_model]) of one site."""
        place = self.sites.index(site_among(self.sites, site))
        rank = int(self.rank[place])
        return self.read[place, :rank], self.write[place, :rank], self.mean[place]

    def apply(
        self, values: Float[np.ndarray, "row d_model"], site: Site | str | int
    ) -> Float[np.ndarray, "row d_model"]:
        """The rows of one site without what tells the classes apart, float64."""
        read, write, mean = self.at(site)
        rows = np.asarray(values, np.float64)
        if rows.shape[1] != self.d_model:
            raise ValueError(
                f"the eraser has width {self.d_model} and the rows {rows.shape[1]} at {site}: it was fitted on "
                f"{self.model or 'another model'}. Fit one on this model's rows."
            )
        return rows - ((rows - mean) @ read.T) @ write

    def erased(self, rows: RowSource) -> ArrayRows:
        """The same rows after erasure at every site of the eraser, in memory, with their ids, labels and variants."""
        rows = narrowed(rows, self.sites)
        sites = chosen_sites(rows, list(self.sites))
        return ArrayRows(
            {site: self.apply(np.asarray(rows.values(site, np.float64)), site) for site in sites},
            list(rows.prompt_ids),
            variants=list(rows.variants),
            labels=list(rows.labels),
            positions=np.asarray(rows.positions).tolist(),
            info=rows.info,
            matched=rows.matched,
        )

    def read_out(self, index: int = 0) -> Directions:
        """Read-out `index` of each site, role "read"; norm 0 where nothing is erased."""
        return self._directions(self.read, index, "read")

    def written(self, index: int = 0) -> Directions:
        """What is subtracted for read-out `index` of each site, role "write"; for two classes it lies along their
        difference of means."""
        return self._directions(self.write, index, "write")

    def _directions(self, vectors: np.ndarray, index: int, role: str) -> Directions:
        facts = {"origin": self.mean, "role": role, "model": self.model, "scope": self.scope}
        return Directions.of(self.sites, vectors[:, index], kind=f"LEACE {role}", **facts)

    def rows(self) -> list[dict[str, Any]]:
        """One dict a site: rank, shrinkage."""
        return [
            {"site": str(site), "layer": site.layer, "rank": int(rank), "shrinkage": float(shrinkage)}
            for site, rank, shrinkage in zip(self.sites, self.rank, self.shrinkage, strict=True)
        ]

    def _brief(self) -> str:
        return f"LEACE at {site_range(self.sites)}"

    def __repr__(self) -> str:
        return (
            f"Eraser(LEACE, {site_range(self.sites)}, rank {self.rank.min()}..{self.rank.max()}, d_model "
            f"{self.d_model}, n {' + '.join(map(str, self.n))}, shrinkage {self.shrinkage.min():.2g}.."
            f"{self.shrinkage.max():.2g})"
        )


def leace(*classes: RowSource, sites: Sites = None, shrinkage: float | int | None = None) -> Eraser:
    """The eraser of what tells two (or more) classes of rows apart, a site, in float64.

    Afterwards the class means of these rows are equal, so no linear probe fitted on them does better than a constant.
    Of all affine maps with that property it changes the rows least, measured in any norm, under the covariance Σ of all
    rows: x - S M⁺ Sᵀ Σ⁻¹ (x - mean) with S the class means less the mean, M = Sᵀ Σ⁻¹ S. Σ is shrunk by Ledoit and
    Wolf's estimate, or by `shrinkage` (0: the covariance as it is, its pseudo-inverse with fewer rows than d_model).
    Equality of the means is exact whatever the shrinkage; only "least" is then meant for the shrunk Σ. It is that of
    the rows fitted on: of other rows of the same distribution part of the difference stays, the more the fewer rows
    there were for each dimension (most of it, with fewer rows than d_model).

    Raises ValueError for fewer than two classes, an empty one, or other widths.
    Source: Belrose et al. 2023, arXiv:2306.03819, theorem 4.2 (there by way of a whitening).
    """
    if len(classes) < 2:
        raise ValueError(f"leace needs the rows of two classes or more: {len(classes)} came.")
    wanted = chosen_sites(classes[0], sites)
    views = [narrowed(rows, wanted) for rows in classes]
    width = one_width(views[0], wanted)
    for number, rows in enumerate(views):
        chosen_sites(rows, wanted)
        if not len(rows) or one_width(rows, wanted) != width:
            raise ValueError(
                f"class {number} has {len(rows)} rows of width {one_width(rows, wanted)}: expected rows, of {width}."
            )
    parts = [leace_of([np.asarray(rows.values(site, np.float64)) for rows in views], shrinkage) for site in wanted]
    return joined_erasers(
        wanted,
        parts,
        n=tuple(len(rows) for rows in views),
        model=str(views[0].info.get("model", "")),
        scope=str(views[0].info.get("scope", "")),
    )


@dataclass(frozen=True, eq=False)
class SiteEraser:
    """The eraser of one site."""

    read: Float[np.ndarray, "rank d_model"]
    write: Float[np.ndarray, "rank d_model"]
    mean: Float[np.ndarray, " d_model"]
    shrinkage: float


def leace_of(classes: Sequence[Float[np.ndarray, "_ d_model"]], shrinkage: float | int | None = None) -> SiteEraser:
    """LEACE of one site, from the rows of each class (see `leace`)."""
    rows = np.concatenate([np.asarray(one, np.float64) for one in classes])
    mean = rows.mean(axis=0)
    means = np.stack([np.asarray(one, np.float64).mean(axis=0) for one in classes]) - mean
    weights = np.sqrt(np.array([len(one) for one in classes]) / len(rows))
    means = means * weights[:, None]  # the columns of S; any multiples span the same
    length = np.sqrt((rows**2).sum(axis=1).mean())
    if np.linalg.norm(means, axis=1).max() <= ROUNDING * length:
        nothing = np.zeros((0, rows.shape[1]))
        return SiteEraser(nothing, nothing, mean, 0.0)
    spread = Spread.of(rows - mean)
    weight = spread.ledoit_wolf() if shrinkage is None else float(shrinkage)
    solved = spread.pseudo_inverse(means, 0.0) if weight == 0 else spread.shrunk_inverse(means, weight)
    values, vectors = np.linalg.eigh(means @ solved.T)
    kept = values > TINY * values[-1]
    turn = vectors[:, kept] / np.sqrt(values[kept])
    read, write = turn.T @ solved, turn.T @ means
    size = np.linalg.norm(read, axis=1, keepdims=True)
    return SiteEraser(read / size, write * size, mean, weight)


def joined_erasers(
    sites: Sequence[Site], parts: Sequence[SiteEraser], *, n: tuple[int, ...], model: str, scope: str
) -> Eraser:
    """One Eraser of the sites' own; those of lower rank are filled up with zeros."""
    k = max([1, *(len(one.read) for one in parts)])

    def filled(name: str) -> np.ndarray:
        whole = np.zeros((len(parts), k, len(parts[0].mean)))
        for place, one in enumerate(parts):
            whole[place, : len(one.read)] = getattr(one, name)
        return whole

    return Eraser(
        tuple(sites),
        filled("read"),
        filled("write"),
        np.stack([one.mean for one in parts]),
        np.array([len(one.read) for one in parts]),
        np.array([one.shrinkage for one in parts]),
        n,
        model,
        scope,
    )
