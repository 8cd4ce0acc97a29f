"""p values of several tests, adjusted for their number."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from workbench.statistics.values import finite


def holm(p: ArrayLike) -> Float[np.ndarray, " test"]:
    """Adjusted p: reject those below a, and the chance of even one false rejection is at most a, however dependent.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    p = _probabilities(p)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return _back(adjusted, order)


def benjamini_hochberg(p: ArrayLike) -> Float[np.ndarray, " test"]:
    """Adjusted p: reject those below a, and on average at most a share a of the rejections is false.

    For independent or positively dependent tests. Source: Benjamini & Hochberg 1995,
    doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    p = _probabilities(p)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    return _back(np.minimum.accumulate(scaled[::-1])[::-1], order)


def _back(adjusted: Float[np.ndarray, " test"], order: np.ndarray) -> Float[np.ndarray, " test"]:
    out = np.empty_like(adjusted)
    out[order] = np.minimum(adjusted, 1.0)
    return out


def _probabilities(p: ArrayLike) -> Float[np.ndarray, " test"]:
    p = finite(p, "p")
    if np.any((p < 0) | (p > 1)):
        raise ValueError(f"expected p values from 0 to 1: {p.min():.3g} .. {p.max():.3g} came.")
    return p
