"""Probes of two classes of rows: one read-out vector and a threshold, by four methods.

With θ the difference of the class means and Σ the covariance within the classes (pooled, divided by the rows):

    difference_of_means   θ
    mass_mean             Σ⁺θ: the pseudo-inverse leaves out axes of little variance (Marks & Tegmark, arXiv:2310.06824)
    lda                   Σ⁻¹θ, with Σ shrunk towards a multiple of the identity (Fisher's discriminant)
    logistic              the weights of a logistic regression, L2 penalty, both classes weighing the same

Where Σ is well conditioned, mass_mean and lda without shrinkage are the same direction. All are read-outs: dotted with
the stream, never added to it (`wb.write_from_read` gives what may be added).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from workbench.subspace.probe_spread import Spread

ProbeMethod = Literal["difference_of_means", "mass_mean", "lda", "logistic"]
PROBE_METHODS: tuple[str, ...] = get_args(ProbeMethod)
ProbeScale = Literal["none", "std"]

CUTOFF = 1e-3  # of the mean variance of a coordinate; the released code cuts at 1e-3 in whatever units the rows have
# Class means that differ by less than this share of the rows' length are equal: what is left is rounding, and a probe
# of rounding would have some AUROC.
ROUNDING = 1e-11
FEW = 1000  # coordinates up to which Newton's method beats a quasi-Newton one


@dataclass(frozen=True)
class ProbeSettings:
    """How a probe is fitted. `shrinkage` (lda): None is Ledoit and Wolf's estimate. `strength` (logistic) is C, the
    inverse of the penalty, with rows in units of their mean deviation of a coordinate. `scale="std"`: coordinates are
    divided by their standard deviation first, and the vector is given for rows as they are."""

    method: ProbeMethod = "lda"
    scale: ProbeScale = "none"
    shrinkage: float | int | None = None
    strength: float | int = 1.0

    def __post_init__(self) -> None:
        if self.method not in PROBE_METHODS:
            raise ValueError(f"method={self.method!r} is unknown: expected one of {', '.join(PROBE_METHODS)}.")
        if self.scale not in get_args(ProbeScale):
            raise ValueError(f"scale={self.scale!r} is unknown: expected 'none' or 'std'.")
        if self.shrinkage is not None and self.method != "lda":
            raise ValueError(f"shrinkage is for method='lda'; {self.method} takes none: expected shrinkage=None.")
        if not self.strength > 0:
            raise ValueError(f"strength={self.strength}: expected more than 0, such as 1.")


@dataclass(frozen=True, eq=False)
class ReadOutVector:
    """Rows are called positive where row · vector > threshold. A vector of zeros: the class means are equal, so that no
    linear read-out tells the classes apart. `shrinkage` is the weight of the identity, None where there is none."""

    vector: Float[np.ndarray, " d_model"]
    threshold: float
    shrinkage: float | None


def read_out_vector(
    rows: Float[np.ndarray, "row d_model"], positive: Bool[np.ndarray, " row"], settings: ProbeSettings
) -> ReadOutVector:
    """The probe of one site. The threshold is half way between the class means along the vector, which supposes both
    classes equally frequent; for `logistic` it is where the odds are even. Raises ValueError for an empty class."""
    if positive.all() or not positive.any():
        raise ValueError(f"a probe needs two classes: {positive.sum()} positive of {len(rows)} rows came.")
    factor = _factor(rows) if settings.scale == "std" else None
    scaled = rows if factor is None else rows * factor
    means = np.stack([scaled[positive].mean(axis=0), scaled[~positive].mean(axis=0)])
    difference = means[0] - means[1]
    if np.linalg.norm(difference) <= ROUNDING * np.sqrt((scaled**2).sum(axis=1).mean()):
        return ReadOutVector(np.zeros(rows.shape[1]), 0.0, None)
    if settings.method == "logistic":
        vector, threshold = _logistic(scaled, positive, settings.strength)
        shrinkage = None
    else:
        within = scaled - means[np.where(positive, 0, 1)]
        vector, shrinkage = _of_means(difference, within, settings)
        threshold = float(means.mean(axis=0) @ vector)
    return ReadOutVector(vector if factor is None else vector * factor, threshold, shrinkage)


def _factor(rows: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, " d_model"]:
    """1 / standard deviation of each coordinate; 0 where it is constant, and says nothing of the classes."""
    deviation = rows.std(axis=0)
    varies = deviation > ROUNDING * np.abs(rows).max(axis=0)
    return np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)


def _of_means(
    difference: Float[np.ndarray, " d_model"], within: Float[np.ndarray, "row d_model"], settings: ProbeSettings
) -> tuple[Float[np.ndarray, " d_model"], float | None]:
    if settings.method == "difference_of_means":
        return difference, None
    spread = Spread.of(within)
    if settings.method == "mass_mean":
        found = spread.pseudo_inverse(difference[None], CUTOFF)[0]
        return found, None
    shrinkage = spread.ledoit_wolf() if settings.shrinkage is None else float(settings.shrinkage)
    return spread.shrunk_inverse(difference[None], shrinkage)[0], shrinkage


def _logistic(
    rows: Float[np.ndarray, "row d_model"], positive: Bool[np.ndarray, " row"], strength: float | int
) -> tuple[Float[np.ndarray, " d_model"], float]:
    """Weights and threshold. An L2 penalty keeps the weights within the span of the centred rows, so the fit runs in
    coordinates along their axes: at most n of them, and the same optimum."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean = rows.mean(axis=0)
    spread = Spread.of(rows - mean)
    unit = np.sqrt(spread.middle)
    coordinates = (rows - mean) @ spread.axes.T / unit
    solver = "newton-cholesky" if len(spread.axes) <= FEW else "lbfgs"
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = LogisticRegression(C=float(strength), class_weight="balanced", solver=solver, tol=1e-8, max_iter=20_000)
        try:
            fitted = model.fit(coordinates, positive)
        except ConvergenceWarning as error:
            raise RuntimeError(
                f"the logistic probe of {len(rows)} rows of width {rows.shape[1]} did not converge: expected a "
                f"stronger penalty than strength={strength}, or scale='std'."
            ) from error
    vector = fitted.coef_[0] @ spread.axes / unit
    return vector, float(mean @ vector - fitted.intercept_[0])
