"""Scales of a decomposition (as it is, standardised, whitened), and the way from a read-out to what writes it.

A component u of rows that were multiplied by a matrix A is read from the stream as h·(A u): A u is a *read-out* vector.
Added to the stream it is the wrong vector: it points where the rows vary least. What the stream does when the read-out
rises is the covariance times the read-out, Σ A u (Haufe et al. 2014, doi:10.1016/j.neuroimage.2013.10.067, there called
the activation pattern); under whitening, where A = Σ^(-1/2), it is Σ^(1/2) u.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from workbench.subspace.directions import Directions
from workbench.subspace.rows import RowSource, chosen_sites, narrowed

Scale = Literal["none", "std", "whiten"]
SCALES = ("none", "std", "whiten")


@dataclass(frozen=True, eq=False)
class Scaling:
    """The symmetric matrix A that rows are multiplied by, [d_model] where it is diagonal, and the covariance behind it
    (None for scale "none"). `shrinkage` is the weight of the identity in that covariance."""

    kind: str
    factor: Float[np.ndarray, " d_model"] | Float[np.ndarray, "d_model d_model"] | None = None
    covariance: Float[np.ndarray, "d_model d_model"] | None = None
    shrinkage: float = 0.0

    def apply(self, rows: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, "row d_model"]:
        """Rows, or a component's way back to a read-out: A is symmetric."""
        if self.factor is None:
            return rows
        return rows * self.factor if self.factor.ndim == 1 else rows @ self.factor

    def writes(self, reads: Float[np.ndarray, "k d_model"]) -> Float[np.ndarray, "k d_model"]:
        """The write vector of each read-out: Σ r / sqrt(rᵀ Σ r), which moves it by one standard deviation of the
        rows."""
        if self.covariance is None:
            return reads
        patterns = reads @ self.covariance
        deviation = np.sqrt(np.einsum("kd,kd->k", patterns, reads))
        return patterns / deviation[:, None]


def scaling_of(
    reference: Float[np.ndarray, "row d_model"], kind: str, shrinkage: float | int | None, site: Site
) -> Scaling:
    """The scaling by the spread of the `reference` rows. "std": A = 1 / standard deviation of each coordinate.
    "whiten": A = Σ^(-1/2), with Σ shrunk (see `shrunk_covariance`). Raises ValueError for a Σ without inverse."""
    if kind == "none":
        return Scaling("none")
    if len(reference) < 2:
        raise ValueError(f"scale={kind!r} at {site} needs 2 rows or more to see any spread: {len(reference)} came.")
    centred = reference - reference.mean(axis=0)
    if kind == "std":
        deviation = np.sqrt((centred**2).sum(axis=0) / (len(centred) - 1))
        factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        return Scaling("std", factor, centred.T @ centred / (len(centred) - 1))
    covariance, weight = shrunk_covariance(reference, shrinkage)
    values, vectors = np.linalg.eigh(covariance)
    if values[0] <= values[-1] * len(values) * np.finfo(np.float64).eps:
        raise ValueError(
            f"scale='whiten' at {site}: the covariance of {len(reference)} rows of width {len(values)} cannot be "
            f"inverted at shrinkage={weight:.3g}. Leave shrinkage out (Ledoit-Wolf), or give more rows."
        )
    return Scaling("whiten", (vectors / np.sqrt(values)) @ vectors.T, covariance, weight)


def refuse_dead(scaling: Scaling, rows: Float[np.ndarray, "row d_model"], site: Site) -> None:
    """Raises ValueError when a coordinate that never varies in the reference rows varies, or differs, in these."""
    if scaling.factor is not None and scaling.factor.ndim == 1:
        lost = np.flatnonzero((scaling.factor == 0) & rows.any(axis=0))
        if len(lost):
            raise ValueError(
                f"scale='std' at {site}: {len(lost)} coordinates (first: {lost[0]}) are constant in the reference rows "
                "and not in what is decomposed, so they have no unit. Use scale='none', or more base rows."
            )


def shrunk_covariance(
    rows: Float[np.ndarray, "row d_model"], shrinkage: float | int | None = None
) -> tuple[Float[np.ndarray, "d_model d_model"], float]:
    """(1 - s) S + s (trace S / d) I with S the covariance of the rows (divided by their number), and s.

    s is `shrinkage`, 0 to 1, or by default what Ledoit and Wolf estimate to be nearest the true covariance; with fewer
    rows than d_model S alone has no inverse. Source: Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4.
    """
    centred = rows - rows.mean(axis=0)
    n, d = centred.shape
    plain = centred.T @ centred / n
    middle = np.trace(plain) / d
    if shrinkage is None:
        away = float((plain**2).sum() / d - middle**2)
        noise = float((((centred**2).sum(axis=1) ** 2).mean() - (plain**2).sum()) / (n * d))
        shrinkage = 0.0 if away <= 0 else min(1.0, max(0.0, noise / away))
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage={shrinkage}: expected 0 (the sample's covariance) to 1 (a multiple of identity).")
    return (1 - shrinkage) * plain + shrinkage * middle * np.eye(d), float(shrinkage)


def write_from_read(read: Directions, rows: RowSource) -> Directions:
    """The write vector of a read-out, a site: Σ r / sqrt(rᵀ Σ r), with Σ the covariance of `rows` (divided by n - 1).

    Adding it moves the read-out h·r by one standard deviation of the rows, along the line on which the rows themselves
    move with it. Of all vectors that do so this is the likeliest under Gaussian rows; r is not. The origin stays.
    Raises ValueError for a write vector, for other widths, and where the rows do not vary along r.
    Source: Haufe et al. 2014, doi:10.1016/j.neuroimage.2013.10.067.
    """
    if read.role != "read":
        raise ValueError("write_from_read was given a write vector: expected a read-out, such as shift.read_out(0).")
    rows = narrowed(rows, read.sites)
    found = np.zeros_like(read.vectors)
    for index, site in enumerate(chosen_sites(rows, list(read.sites))):
        values = np.asarray(rows.values(site, np.float64), np.float64)
        if values.shape[1] != read.d_model:
            raise ValueError(
                f"expected one width: the read-out has {read.d_model} and the rows {values.shape[1]} at {site}."
            )
        centred = values - values.mean(axis=0)
        along = centred @ read.vectors[index]
        variance = float(along @ along) / (len(values) - 1)
        if variance == 0:
            raise ValueError(f"the rows do not vary along the read-out at {site}: it has no write vector there.")
        found[index] = along @ centred / (len(values) - 1) / np.sqrt(variance)
    kept = {name: getattr(read, name) for name in ("origin", "model", "scope", "residual_norm")}
    return Directions.of(read.sites, found, role="write", kind=f"what moves with {read.kind}", **kept)
