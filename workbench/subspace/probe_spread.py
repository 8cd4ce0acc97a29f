"""Spread: the covariance of rows by its axes, so that thousands of dimensions and hundreds of rows stay cheap.

With fewer rows than dimensions everything comes from the n x n Gram matrix; no [d_model, d_model] array is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

DEPENDENT = 1e-12  # below this share of the largest variance an axis is rounding


@dataclass(frozen=True, eq=False)
class Spread:
    """Σ = axesᵀ diag(variance) axes, the covariance of `n` centred rows divided by n, largest variance first. `fourth`
    is the mean of ‖row‖⁴, which the estimate of the shrinkage needs."""

    axes: Float[np.ndarray, "k d_model"]
    variance: Float[np.ndarray, " k"]
    fourth: float
    n: int

    @classmethod
    def of(cls, centred: Float[np.ndarray, "row d_model"]) -> Spread:
        """Of rows whose mean (or whose class means) were taken off. Cost: min(n, d_model)³, and n·d_model·min."""
        n, d = centred.shape
        if n < d:
            values, vectors = np.linalg.eigh(centred @ centred.T / n)
        else:
            values, vectors = np.linalg.eigh(centred.T @ centred / n)
        values, vectors = values[::-1], vectors[:, ::-1]
        kept = values > DEPENDENT * max(float(values[0]), 0.0)
        values, vectors = values[kept], vectors[:, kept]
        axes = (vectors.T @ centred) / np.sqrt(n * values)[:, None] if n < d else np.ascontiguousarray(vectors.T)
        return cls(axes, values, float(((centred**2).sum(axis=1) ** 2).mean()), n)

    @property
    def d_model(self) -> int:
        return self.axes.shape[1]

    @property
    def middle(self) -> float:
        """Mean variance of a coordinate, trace Σ / d_model."""
        return float(self.variance.sum()) / self.d_model

    def ledoit_wolf(self) -> float:
        """The shrinkage s of (1 - s) Σ + s·middle·I that Ledoit and Wolf estimate to be nearest the true covariance.

        Source: Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4.
        """
        square = float((self.variance**2).sum())
        away = square / self.d_model - self.middle**2
        noise = (self.fourth - square) / (self.n * self.d_model)
        return 0.0 if away <= 0 else min(1.0, max(0.0, noise / away))

    def shrunk_inverse(
        self, vectors: Float[np.ndarray, "m d_model"], shrinkage: float | int
    ) -> Float[np.ndarray, "m d_model"]:
        """((1 - s) Σ + s·middle·I)⁻¹ times each vector. Raises ValueError where that has no inverse."""
        if not 0 <= shrinkage <= 1:
            raise ValueError(
                f"shrinkage={shrinkage}: expected 0 (the sample's covariance) to 1 (a multiple of identity)."
            )
        if shrinkage == 0 or not len(self.variance):
            if len(self.variance) < self.d_model:
                raise ValueError(
                    f"the covariance of {self.n} rows of width {self.d_model} has {len(self.variance)} axes, no "
                    f"inverse at shrinkage={shrinkage}. Leave shrinkage out (Ledoit-Wolf), or give more rows."
                )
            return self._on_axes(vectors, 1 / self.variance)
        floor = shrinkage * self.middle
        # The axes of little variance are known badly, and get a factor of almost 0 this way.
        return vectors / floor + self._on_axes(vectors, 1 / ((1 - shrinkage) * self.variance + floor) - 1 / floor)

    def pseudo_inverse(
        self, vectors: Float[np.ndarray, "m d_model"], cutoff: float | int
    ) -> Float[np.ndarray, "m d_model"]:
        """Σ⁺ times each vector, from the axes with more than `cutoff` times the mean variance of a coordinate."""
        return self._on_axes(vectors, np.where(self.variance > cutoff * self.middle, 1 / self.variance, 0.0))

    def _on_axes(
        self, vectors: Float[np.ndarray, "m d_model"], factors: Float[np.ndarray, " k"]
    ) -> Float[np.ndarray, "m d_model"]:
        return ((vectors @ self.axes.T) * factors) @ self.axes
