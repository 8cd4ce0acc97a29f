"""Moments: count, mean and covariance of a stream of rows, exact in float64, for data that do not fit in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from stores.printed import Printed
from workbench.subspace.basis import CONSTANT, UNCHANGED, Subspace, signed, too_few
from workbench.subspace.rows import RowSource

NO_NULL = "none: streamed moments keep no rows, so the spectrum has no null band"


@dataclass
class Moments(Printed):
    """An accumulator of rows of width `d_model`; `update` and `merge` act in place and return it.

    Holds `count`, `mean` [d_model] and `scatter` [d_model, d_model] = sum of (x - mean)(x - mean)ᵀ. Each batch is
    centred on its own mean before it is squared, and merged by Chan's formula: subtracting n·mean·meanᵀ at the end
    instead would lose the small dimensions beside an outlier dimension hundreds of times larger. Source: Chan, Golub &
    LeVeque 1983, doi:10.1080/00031305.1983.10483115.
    """

    d_model: int
    count: int = 0
    mean: Float[np.ndarray, " d_model"] = None  # type: ignore[assignment]  # zeros, once d_model is known
    scatter: Float[np.ndarray, "d_model d_model"] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.mean = np.zeros(self.d_model) if self.mean is None else np.array(self.mean, np.float64)
        shape = (self.d_model, self.d_model)
        self.scatter = np.zeros(shape) if self.scatter is None else np.array(self.scatter, np.float64)
        if self.mean.shape != shape[:1] or self.scatter.shape != shape:
            raise ValueError(
                f"expected mean {shape[:1]} and scatter {shape}; {self.mean.shape} and {self.scatter.shape} came."
            )

    @classmethod
    def of(cls, rows: RowSource, site: Site | str, size: int = 4096) -> Moments:
        """Moments of all rows at one site, read `size` rows at a time."""
        moments = cls(rows.d_model(site))
        for batch in rows.batches(site, size):
            moments.update(batch)
        return moments

    def update(self, batch: Float[np.ndarray, "row d_model"]) -> Moments:
        """Adds rows; raises ValueError for another width or values that are NaN or infinite (one would spoil all)."""
        rows = np.asarray(batch, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.d_model:
            raise ValueError(f"expected rows of shape [row, {self.d_model}]; {rows.shape} came.")
        if not np.isfinite(rows).all():
            raise ValueError(
                f"the batch holds {np.count_nonzero(~np.isfinite(rows))} values that are NaN or infinite: "
                "expected finite rows; leave those out, or find out why the model gave them."
            )
        if len(rows):
            mean = rows.mean(axis=0)
            centred = rows - mean
            self._add(len(rows), mean, centred.T @ centred)
        return self

    def merge(self, other: Moments) -> Moments:
        """Adds the rows that `other` has seen: parts of a corpus counted by several workers."""
        if other.d_model != self.d_model:
            raise ValueError(f"moments of widths {self.d_model} and {other.d_model} do not merge: one site a Moments.")
        self._add(other.count, other.mean, other.scatter)
        return self

    def _add(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        both = self.count + count
        if both == 0:
            return
        apart = mean - self.mean
        self.scatter += scatter + np.outer(apart, apart) * (self.count * count / both)
        self.mean = self.mean + apart * (count / both)
        self.count = both

    @property
    def covariance(self) -> Float[np.ndarray, "d_model d_model"]:
        """scatter / (count - 1), in squared activation units; raises ValueError for fewer than 2 rows."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 rows: {self.count} came.")
        return self.scatter / (self.count - 1)

    def pca(self, k: int = 10, *, center: bool = True, site: Site | str = "resid_post:0") -> Subspace:
        """The k leading components of the rows seen so far, a Subspace of the one `site`; without a null band.

        center=False decomposes the second moment (mean shift included). Raises ValueError when nothing varies or fewer
        than k components exist. Cost: one symmetric eigendecomposition of d_model x d_model.
        """
        if reason := self.refusal(k, center=center):
            raise ValueError(f"{site} cannot be decomposed: {reason}.")
        values, vectors, total = self._eigen(center)
        return Subspace(
            (Site.parse(site),),
            signed(vectors[:k])[None],
            values[None],
            self.mean[None],
            np.array([total]),
            n=self.count,
            origin=self.mean[None],
            null_kind=NO_NULL,
            centred=center,
        )

    def refusal(self, k: int, *, center: bool = True) -> str | None:
        """Why these rows have no k components, or None when they have."""
        if not self.scatter.any() and not self.mean.any():
            return UNCHANGED
        if center and not self.scatter.any():
            return CONSTANT
        return too_few(self._eigen(center)[0], k)

    def _eigen(self, center: bool) -> tuple[np.ndarray, np.ndarray, float]:
        """Eigenvalues [m] from large to small, eigenvectors as rows [m, d_model], and the trace."""
        second = self.scatter if center else self.scatter + self.count * np.outer(self.mean, self.mean)
        freedom = self.count - 1 if center else self.count
        values, vectors = np.linalg.eigh(second / freedom)
        m = min(freedom, self.d_model)
        return np.clip(values[::-1][:m], 0.0, None), vectors[:, ::-1][:, :m].T, float(np.trace(second) / freedom)
