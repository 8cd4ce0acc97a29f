"""Linear maps between two residual spaces, fitted on paired rows of one site: Procrustes, ridge, low rank, identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
from jaxtyping import Float

from stores.printed import Printed

Method = Literal["identity", "procrustes", "ridge", "low_rank"]

# Singular values of a map below this share of the largest count as zero in its pseudo-inverse.
PSEUDO_INVERSE_CUT = 1e-6


@dataclass(frozen=True, eq=False)
class Reduced(Printed):
    """Centred rows as `left` [n, r] · diag(`scales`) · `right` [r, d_model], a thin SVD cut at the numerical rank r."""

    mean: Float[np.ndarray, " d_model"]
    left: Float[np.ndarray, "n r"]
    scales: Float[np.ndarray, " r"]
    right: Float[np.ndarray, "r d_model"]

    @classmethod
    def of(cls, rows: Float[np.ndarray, "n d_model"]) -> Reduced:
        """The reduction of these rows; r is 0 when they do not vary."""
        mean = rows.mean(axis=0)
        left, scales, right = scipy.linalg.svd(rows - mean, full_matrices=False, check_finite=False)
        size = np.linalg.norm(rows)  # against the rows, not the largest scale: constant rows leave only rounding behind
        r = int(np.count_nonzero(scales > size * max(rows.shape) * np.finfo(np.float64).eps))
        return cls(mean, left[:, :r], scales[:r], right[:r])

    @property
    def rows(self) -> Float[np.ndarray, "n r"]:
        """The centred rows in the coordinates of `right`: no fit and no error differs there, and r is at most n."""
        return self.left * self.scales


@dataclass(frozen=True, eq=False)
class SiteMap(Printed):
    """y = target_mean + (x - source_mean) M with M = `left` · `core` · `right`, [d_source, d_target], float64.

    `left` has orthonormal columns and `right` orthonormal rows, the spaces that the fitting rows span (a map of low
    rank: what it reaches of the target's): what lies outside is not identified by the data and maps to zero. Kept in
    three factors since shuffled refits differ in `core` and never hold a [d_source, d_target] array.
    """

    source_mean: Float[np.ndarray, " d_source"]
    target_mean: Float[np.ndarray, " d_target"]
    left: Float[np.ndarray, "d_source p"]
    core: Float[np.ndarray, "p q"]
    right: Float[np.ndarray, "q d_target"]

    @property
    def matrix(self) -> Float[np.ndarray, "d_source d_target"]:
        return self.left @ self.core @ self.right

    @property
    def rank(self) -> int:
        return int(np.linalg.matrix_rank(self.core, tol=PSEUDO_INVERSE_CUT * np.linalg.norm(self.core, 2)))

    def write(self, vectors: Float[np.ndarray, "*rows d_source"]) -> Float[np.ndarray, "*rows d_target"]:
        """Mᵀ v: where a vector that is added to the source stream points in the target stream."""
        return vectors @ self.left @ self.core @ self.right

    def read(self, vectors: Float[np.ndarray, "*rows d_source"]) -> Float[np.ndarray, "*rows d_target"]:
        """pinv(M) v: the vector whose dot product with a mapped activation is that of v with the activation."""
        back = np.linalg.pinv(self.core, rcond=PSEUDO_INVERSE_CUT)
        return vectors @ self.left @ back.T @ self.right

    def point(self, points: Float[np.ndarray, "*rows d_source"]) -> Float[np.ndarray, "*rows d_target"]:
        """The affine image of activations."""
        return self.target_mean + self.write(points - self.source_mean)


class IdentityMap(SiteMap):
    """y = x, with nothing fitted: the baseline for fine-tunes of one base model."""

    def __init__(self, d_model: int) -> None:
        nothing = np.zeros((d_model, 0))
        super().__init__(np.zeros(d_model), np.zeros(d_model), nothing, np.zeros((0, 0)), nothing.T)

    @property
    def matrix(self) -> Float[np.ndarray, "d_source d_target"]:
        return np.eye(len(self.source_mean))

    @property
    def rank(self) -> int:
        return len(self.source_mean)

    def write(self, vectors: Float[np.ndarray, "*rows d_source"]) -> Float[np.ndarray, "*rows d_target"]:
        return np.array(vectors, np.float64)

    def read(self, vectors: Float[np.ndarray, "*rows d_source"]) -> Float[np.ndarray, "*rows d_target"]:
        return np.array(vectors, np.float64)


def fitted(
    source: Reduced,
    target: Reduced,
    method: Method,
    *,
    ridge: float | int,
    scaled: bool,
    rank: int | None = None,
    order: np.ndarray | None = None,
) -> tuple[SiteMap, float]:
    """The map of one site and its least-squares scale; row i of the source goes with row `order[i]` of the target.

    procrustes: M = A Bᵀ of the SVD A Σ Bᵀ = XᵀY. For d_source <= d_target it minimises ‖X M - Y‖ over matrices with
    orthonormal rows (Schönemann 1966, doi:10.1007/BF02289451). For d_source > d_target that problem has no closed form;
    the same M is then the transpose of the exact minimiser of the reverse problem ‖Y Mᵀ - X‖.
    ridge: M = (XᵀX + a I)⁻¹ XᵀY, a = `ridge` times the mean squared singular value of X.
    low_rank: among matrices of at most `rank` (None: any) the one that minimises ‖X M - Y‖² + a ‖M‖², which is the
    ridge map, projected onto the first right singular vectors V of its fitted values, the penalty's rows included
    (Izenman 1975, doi:10.1016/0047-259X(75)90042-1; with ridge Mukherjee & Zhu 2011, doi:10.1002/sam.10138).
    The scale is <X M, Y> / ‖X M‖²: how much shorter or longer the target's rows are than the mapped ones; it multiplies
    M only if `scaled`. Cost: one SVD of min(n, d_source) x min(n, d_target); ridge none.
    """
    paired = target.left if order is None else target.left[order]
    agreement = source.left.T @ paired
    actual, right = paired * target.scales, target.right
    if method == "procrustes":
        a, sizes, b = scipy.linalg.svd(source.scales[:, None] * agreement * target.scales, full_matrices=False)
        kept = sizes > sizes[0] * max(agreement.shape) * np.finfo(np.float64).eps
        core = a[:, kept] @ b[kept]
    else:
        shrink = shrinkage(source, ridge)
        core = (shrink**2 / source.scales)[:, None] * agreement * target.scales
        if method == "low_rank":
            reached = reached_axes(shrink[:, None] * agreement * target.scales)[:rank]
            core, actual, right = core @ reached.T, actual @ reached.T, reached @ right
    mapped = source.rows @ core
    scale = float((mapped * actual).sum() / (mapped**2).sum())
    return SiteMap(source.mean, target.mean, source.right.T, core * scale if scaled else core, right), scale


def shrinkage(source: Reduced, ridge: float | int) -> Float[np.ndarray, " r"]:
    """s / √(s² + a) for each singular value s of the source rows: the square root of what ridge leaves of that axis."""
    return source.scales / np.sqrt(source.scales**2 + ridge * np.mean(source.scales**2))


def reached_axes(fits: Float[np.ndarray, "p q"]) -> Float[np.ndarray, "k q"]:
    """Axes of the target by how much of the fitted values lies along them, the most first. `fits` are those values with
    the penalty's rows, in a basis of the source: diag(s / √(s² + a)) Uᵀ Y."""
    return scipy.linalg.svd(fits, full_matrices=False, check_finite=False)[2]
