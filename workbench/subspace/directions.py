"""Directions: one vector a site, with its length, its role and the point it was measured from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from hooks.site import Site
from stores.printed import Printed
from workbench.subspace.rows import RowSource, chosen_sites, listed, narrowed, site_among, site_range

Role = Literal["write", "read"]


@dataclass(frozen=True, eq=False)
class Directions(Printed):
    """One direction a site: `unit` [site, d_model] times `norm` [site], all float64.

    A *write* vector is added to the stream, a *read* vector is dotted with it; a map between models treats them
    differently, so the role travels along. `origin` [site, d_model] is the mean of the negative class, the point that
    ablation to the mean goes back to; None when unknown (an imported vector). `reliability` [site] is the mean cosine
    of the two halves of the data over random splits, 0 where nothing moved. A site where nothing moved at all (a frozen
    tower) has norm 0 and unit 0. `matched` counts the prompts that paired the classes, None when they were not paired.
    `residual_norm` [site] is the median length of the negative rows, the unit in which models are compared.
    """

    sites: tuple[Site, ...]
    unit: Float[np.ndarray, "site d_model"]
    norm: Float[np.ndarray, " site"]
    origin: Float[np.ndarray, "site d_model"] | None = None
    role: Role = "write"
    model: str = ""
    scope: str = ""
    kind: str = "imported"
    n_positive: int = 0
    n_negative: int = 0
    reliability: Float[np.ndarray, " site"] | None = None
    positive_mean: Float[np.ndarray, "site d_model"] | None = None
    matched: int | None = None
    residual_norm: Float[np.ndarray, " site"] | None = None

    def __post_init__(self) -> None:
        if self.role not in ("write", "read"):
            raise ValueError(f"role={self.role!r} is unknown: expected 'write' (added) or 'read' (dotted).")
        object.__setattr__(self, "sites", tuple(Site.parse(site) for site in self.sites))
        if not self.sites or len(set(self.sites)) != len(self.sites):
            raise ValueError(f"expected one or more different sites; {[str(site) for site in self.sites]} came.")
        shape = (len(self.sites), np.shape(self.unit)[-1])
        for name in ("unit", "origin", "positive_mean"):
            _freeze(self, name, shape)
        for name in ("norm", "reliability", "residual_norm"):
            _freeze(self, name, shape[:1])
        length = np.linalg.norm(self.unit, axis=1)
        wrong = (self.norm < 0) | ((np.abs(length - 1) > 1e-6) & ((length != 0) | (self.norm != 0)))
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"expected unit rows of length 1 (0 where norm is 0) and no negative norm; at {self.sites[i]} came "
                f"length {length[i]:.6g}, norm {self.norm[i]:.6g}. For plain vectors use Directions.of(sites, vectors)."
            )

    @classmethod
    def of(cls, sites: Sequence[Site | str], vectors: ArrayLike, **facts: Any) -> Directions:
        """Directions of plain vectors, [site, d_model] or [d_model] for one site; `facts` are the other fields."""
        vectors = np.atleast_2d(np.asarray(vectors, np.float64))
        norm = np.linalg.norm(vectors, axis=1)
        unit = np.divide(vectors, norm[:, None], out=np.zeros_like(vectors), where=norm[:, None] > 0)
        return cls(tuple(Site.parse(site) for site in sites), unit, norm, **facts)

    @property
    def d_model(self) -> int:
        return self.unit.shape[1]

    @property
    def offset(self) -> Float[np.ndarray, " site"] | None:
        """origin · unit, the coordinate that ablation to the mean writes back; None without an origin."""
        return None if self.origin is None else np.einsum("sd,sd->s", self.origin, self.unit)

    @property
    def vectors(self) -> Float[np.ndarray, "site d_model"]:
        """unit x norm: the vectors as measured."""
        return self.unit * self.norm[:, None]

    def vector(self, site: Site | str | int) -> Float[np.ndarray, " d_model"]:
        """unit x norm at one site."""
        return self.vectors[self.sites.index(site_among(self.sites, site))]

    def __getitem__(self, site: Site | str | int | Sequence[Site | str | int]) -> Directions:
        """The directions of one site or layer, or of several, with everything that belongs to them."""
        index = [self.sites.index(site_among(self.sites, one)) for one in listed(site)]
        rows = {
            name: value[index]
            for name in ("unit", "norm", "origin", "reliability", "positive_mean", "residual_norm")
            if (value := getattr(self, name)) is not None
        }
        return dataclasses.replace(self, sites=tuple(self.sites[i] for i in index), **rows)

    def replace(self, **changes: Any) -> Directions:
        """The same with some fields changed, checked again; a new unit keeps the old `kind`, so change that too."""
        return dataclasses.replace(self, **changes)

    def concentration(self, k: int = 1) -> Float[np.ndarray, " site"]:
        """Share of the squared length in the k largest coordinates; near 1 at k = 1: one outlier dimension rules."""
        return np.sort(self.unit**2, axis=1)[:, -k:].sum(axis=1)

    def __mul__(self, factor: float | int) -> Directions:
        return self.replace(unit=self.unit * (-1.0 if factor < 0 else 1.0), norm=self.norm * abs(factor))

    __rmul__ = __mul__

    def __neg__(self) -> Directions:
        return self * -1.0

    def __add__(self, other: Directions) -> Directions:
        return self._combined(other, 1.0)

    def __sub__(self, other: Directions) -> Directions:
        return self._combined(other, -1.0)

    def _combined(self, other: Directions, sign: float) -> Directions:
        for name in ("sites", "role", "model", "d_model"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"directions of different {name} do not add up: {mine} and {theirs} came.")
        # Two origins are two points; only one that both share is the origin of the sum.
        same = self.origin is not None and other.origin is not None and np.array_equal(self.origin, other.origin)
        kind = f"{self.kind} {'+' if sign > 0 else '-'} {other.kind}"
        return Directions.of(
            self.sites,
            self.vectors + sign * other.vectors,
            origin=self.origin if same else None,
            role=self.role,
            model=self.model,
            scope=self.scope,
            kind=kind,
            residual_norm=self.residual_norm,
        )

    def __repr__(self) -> str:
        trust = (
            ""
            if self.reliability is None
            else f", split-half {self.reliability.min():.2f}..{self.reliability.max():.2f}"
        )
        return (
            f"Directions({self.kind}, {self.role}, {site_range(self.sites)}, d_model {self.d_model}, "
            f"norm {self.norm.min():.3g}..{self.norm.max():.3g}, n {self.n_positive} - {self.n_negative}{trust}"
            f"{'' if self.origin is not None else ', no origin'}; model {self.model or '?'}, scope {self.scope or '?'})"
        )

    def rows(self) -> list[dict[str, Any]]:
        """One dict a site: norm, split-half reliability, median residual norm; None for what was not measured."""
        measured = {"norm": self.norm, "reliability": self.reliability, "residual_norm": self.residual_norm}
        return [
            {
                "site": str(site),
                "layer": site.layer,
                **{name: None if values is None else float(values[i]) for name, values in measured.items()},
            }
            for i, site in enumerate(self.sites)
        ]

    def numpy(self) -> Float[np.ndarray, "site d_model"]:
        """The vectors as measured, `vectors`."""
        return self.vectors

    def _brief(self) -> str:
        return f"{self.kind} at {site_range(self.sites)}"


def with_mean(v: Directions, rows: RowSource) -> Directions:
    """The same directions with the mean of `rows` as origin: for imported vectors to be ablated to the mean."""
    return v.replace(origin=np.stack([mean_of(rows, site) for site in chosen_sites(rows, list(v.sites))]))


def mean_of(rows: RowSource, site: Site) -> Float[np.ndarray, " d_model"]:
    """Mean over rows at one site, accumulated in float64."""
    if hasattr(rows, "parts"):  # streamed sums
        return rows.mean(site)  # pyright: ignore[reportAttributeAccessIssue]
    mine = narrowed(rows, [site])
    return np.sum([np.asarray(part, np.float64).sum(axis=0) for part in mine.batches(site)], axis=0) / len(mine)


def _freeze(result: Any, name: str, shape: tuple[int, ...]) -> None:
    value = getattr(result, name)
    if value is None:
        return
    value = np.array(value, np.float64)
    if value.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, one row a site; {value.shape} came.")
    if not np.isfinite(value).all():
        raise ValueError(
            f"{name} holds {np.count_nonzero(~np.isfinite(value))} values that are NaN or infinite: expected "
            "finite numbers."
        )
    value.setflags(write=False)
    object.__setattr__(result, name, value)
