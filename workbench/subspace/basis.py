"""Subspace: an orthonormal basis a site with its spectrum, the result of every decomposition in this room."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from hooks.site import Site
from stores.printed import Printed
from workbench.subspace.directions import Directions
from workbench.subspace.rows import listed, site_among, site_range

UNCHANGED = "unchanged: every row is exactly zero"
CONSTANT = "constant: the rows do not vary"

_PER_SITE = ("basis", "variance", "mean", "total", "origin", "null", "null_p", "bound")


@dataclass(frozen=True, eq=False)
class Subspace(Printed):
    """Principal components a site: `basis` [site, k, d_model] with orthonormal rows, largest variance first, float64.

    `variance` [site, m] holds all m eigenvalues of the covariance (in squared activation units; divided by n - 1, by n
    if not `centred`), `total` [site] their sum; `mean` [site, d_model] is that of the rows, taken off them first if
    `centred`. `origin` is the point ablation to the mean returns to: that same mean for rows of activations, None for
    rows of differences, whose mean is a shift and no point. `null` [site, k, 2] is the 5 % and 95 % quantile of the
    explained share in data without structure (`null_kind`), `null_p` [site, k] the p of each component, in order; both
    None for a spectrum without a null. `bound` [site] is None for an exact spectrum; from a sketch, every eigenvalue
    (and the variance in any direction) lies between the one given and that plus `bound`, while `mean` and `total` are
    exact: what lies below the bound is not resolved. `skipped` names the sites that were not decomposed, with the
    reason: a frozen tower is "unchanged", not a spectrum of rounding errors.
    """

    sites: tuple[Site, ...]
    basis: Float[np.ndarray, "site k d_model"]
    variance: Float[np.ndarray, "site m"]
    mean: Float[np.ndarray, "site d_model"]
    total: Float[np.ndarray, " site"]
    n: int
    origin: Float[np.ndarray, "site d_model"] | None = None
    null: Float[np.ndarray, "site k 2"] | None = None
    null_p: Float[np.ndarray, "site k"] | None = None
    null_kind: str = "none"
    draws: int = 0
    centred: bool = True
    model: str = ""
    scope: str = ""
    skipped: Mapping[Site, str] = field(default_factory=dict)
    bound: Float[np.ndarray, " site"] | None = None

    def __post_init__(self) -> None:
        for name in _PER_SITE:
            value = getattr(self, name)
            if value is None:
                continue
            value = np.array(value, np.float64)
            if len(value) != len(self.sites) or not np.isfinite(value).all():
                raise ValueError(f"{name}: expected one finite row a site ({len(self.sites)}); {value.shape} came.")
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        off = np.abs(self.basis @ self.basis.swapaxes(1, 2) - np.eye(self.k)).max(initial=0.0)
        if off > 1e-6:
            raise ValueError(
                f"expected orthonormal rows in basis; they are off by {off:.2g}. Orthonormalise with QR first."
            )

    @property
    def k(self) -> int:
        return self.basis.shape[1]

    @property
    def d_model(self) -> int:
        return self.basis.shape[2]

    @property
    def unchanged(self) -> tuple[Site, ...]:
        """Sites at which every row was exactly zero: nothing moved there."""
        return tuple(site for site, reason in self.skipped.items() if reason == UNCHANGED)

    @property
    def explained(self) -> Float[np.ndarray, "site m"]:
        """Share of the total variance in each component, over all that exist."""
        return self.variance / self.total[:, None]

    @property
    def effective_rank(self) -> Float[np.ndarray, " site"]:
        """exp of the entropy of `explained`: 1 for one direction, m for m equal ones; too small for a sketch, which
        lacks the tail. Source: Roy & Vetterli 2007."""
        share = self.explained
        logs = np.log(share, out=np.zeros_like(share), where=share > 0)
        return np.exp(-(share * logs).sum(axis=1))

    @property
    def participation_ratio(self) -> Float[np.ndarray, " site"]:
        """(sum of eigenvalues)² / sum of their squares: as effective rank, but less swayed by a long tail."""
        return 1.0 / (self.explained**2).sum(axis=1)

    def k_for(self, share: float | int) -> Int[np.ndarray, " site"]:
        """The smallest number of components that explains at least `share` (0 to 1) of the variance, a site."""
        if not 0 < share <= 1:
            raise ValueError(f"k_for({share}): expected a share between 0 and 1, such as 0.9.")
        reached = np.cumsum(self.explained, axis=1)
        if self.bound is not None and (reached[:, -1] < share - 1e-12).any():
            raise ValueError(
                f"k_for({share}): the sketch resolves only {reached[:, -1].min():.3f} of the variance. Ask for a "
                "smaller share, or take a sketch of higher rank."
            )
        return (reached < share - 1e-12).sum(axis=1) + 1

    @property
    def above_null(self) -> Bool[np.ndarray, "site k"] | None:
        """Which of the k components explain more than 95 % of the null draws do; None when there is no null."""
        return None if self.null is None else self.explained[:, : self.k] > self.null[..., 1]

    def __getitem__(self, site: Site | str | int | Sequence[Site | str | int]) -> Subspace:
        """The subspace of one site or layer, or of several."""
        index = [self.sites.index(site_among(self.sites, one)) for one in listed(site)]
        rows = {name: value[index] for name in _PER_SITE if (value := getattr(self, name)) is not None}
        return dataclasses.replace(self, sites=tuple(self.sites[i] for i in index), skipped={}, **rows)

    def replace(self, **changes: Any) -> Subspace:
        """The same with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def first(self, k: int) -> Subspace:
        """The subspace of the first k components; the spectrum stays whole."""
        if not 1 <= k <= self.k:
            raise ValueError(f"first({k}): this subspace holds {self.k} components; decompose again with a larger k.")
        cut = {name: value[:, :k] for name in ("basis", "null", "null_p") if (value := getattr(self, name)) is not None}
        return self.replace(**cut)

    def rows(self) -> list[dict[str, Any]]:
        """One dict a site and component (from 1): share of variance, the null's upper end, and the effective rank."""
        return [
            {
                "site": str(site),
                "layer": site.layer,
                "component": j + 1,
                "explained": float(self.explained[i, j]),
                "null_high": None if self.null is None else float(self.null[i, j, 1]),
                "effective_rank": float(self.effective_rank[i]),
            }
            for i, site in enumerate(self.sites)
            for j in range(self.k)
        ]

    def numpy(self) -> Float[np.ndarray, "site k d_model"]:
        """The basis, orthonormal rows a site."""
        return self.basis

    def _brief(self) -> str:
        return f"k {self.k} at {site_range(self.sites)}"

    def component(self, index: int) -> Directions:
        """One component (from 0) as write directions; the norm is the standard deviation of the rows along it."""
        if not 0 <= index < self.k:
            raise ValueError(f"component({index}): expected 0..{self.k - 1} (components count from 0).")
        return Directions(
            self.sites,
            self.basis[:, index],
            np.sqrt(self.variance[:, index]),
            origin=self.origin,
            model=self.model,
            scope=self.scope,
            kind=f"principal component {index}",
            n_positive=self.n,
        )

    def oriented(self, v: Directions) -> Subspace:
        """The same, each component turned so that its dot product with `v` is not negative: signs by a contrast."""
        units = v[list(self.sites)].unit
        signs = np.where(np.einsum("skd,sd->sk", self.basis, units) < 0, -1.0, 1.0)
        return self.replace(basis=self.basis * signs[..., None])

    def __repr__(self) -> str:
        shares = self.explained[:, : self.k].sum(axis=1)
        null = "no null" if self.null is None else f"null {self.null_kind} x{self.draws}"
        left_out = f", {len(self.skipped)} sites skipped" if self.skipped else ""
        null += "" if self.bound is None else f", sketched: variances exact to {self.bound.max():.3g}"
        return (
            f"Subspace(k {self.k}, {site_range(self.sites)}{left_out}, d_model {self.d_model}, n {self.n}, explained "
            f"{shares.min():.2f}..{shares.max():.2f}, {null}; model {self.model or 'unknown'!r}, scope {self.scope!r})"
        )


def signed(basis: Float[np.ndarray, "k d_model"]) -> Float[np.ndarray, "k d_model"]:
    """The convention of signs: the coordinate of largest size is positive in every component; arbitrary, stable."""
    largest = np.abs(basis).argmax(axis=1)
    return basis * np.where(basis[np.arange(len(basis)), largest] < 0, -1.0, 1.0)[:, None]


def too_few(variance: Float[np.ndarray, " m"], k: int) -> str | None:
    """Why this spectrum has no k components, or None; a variance at float64 rounding of the first is no component."""
    exist = (
        int(np.count_nonzero(variance > variance[0] * len(variance) * np.finfo(np.float64).eps)) if len(variance) else 0
    )
    return None if 1 <= k <= exist else f"k={k} components asked for, {exist} exist"


def refuse_skipped(skipped: Mapping[Site, str], *, asked: bool, left: int) -> None:
    """Raises ValueError when a site that was asked for by name cannot be decomposed, or none is left."""
    if skipped and (asked or not left):
        site, reason = next(iter(skipped.items()))
        raise ValueError(
            f"{site} cannot be decomposed: {reason}{f' ({len(skipped)} sites in all)' if len(skipped) > 1 else ''}. "
            "Leave such sites out, or pass a smaller k or more rows."
        )
    if not left:
        raise ValueError("there are no sites to decompose: the rows hold none.")
