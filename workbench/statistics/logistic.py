"""Logistic regression with a ridge penalty on few features, many small fits at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import special

STEPS = 60


def logistic_predictions(
    x: Float[np.ndarray, "fit n k"],
    labels: Float[np.ndarray, "fit n"],
    asked: Float[np.ndarray, "fit left k"],
    penalty: float,
) -> Float[np.ndarray, "fit left"]:
    """The log odds of label 1 for `asked`, from one fit of labels 0 and 1 on x for each `fit`.

    Maximises log likelihood - penalty · n / 2 · |slopes|², on features scaled by mean and standard deviation of x; the
    intercept is free, so both labels must occur in every fit. Newton's method, all fits together. Raises ValueError for
    fits of one label, RuntimeError where a fit does not settle. Source: le Cessie & van Houwelingen 1992,
    doi:10.2307/2347628.
    """
    fits, n, k = x.shape
    if not ((labels.min(axis=1) == 0) & (labels.max(axis=1) == 1)).all():
        raise ValueError("logistic_predictions: a fit holds one label only: expected 0 and 1 in each.")
    middle, spread = x.mean(axis=1, keepdims=True), x.std(axis=1, keepdims=True)
    spread = np.where(spread > 1e-12 * np.abs(middle), spread, np.inf)
    ones = np.ones((fits, n, 1))
    z = np.concatenate([ones, (x - middle) / spread], axis=2)
    ridge = np.diag([0.0] + [penalty * n] * k)
    weights = np.zeros((fits, k + 1))
    weights[:, 0] = special.logit(labels.mean(axis=1))
    for _ in range(STEPS):
        chance = special.expit(np.einsum("fnk,fk->fn", z, weights))
        slope = np.einsum("fnk,fn->fk", z, labels - chance) - weights @ ridge
        curve = np.einsum("fnk,fn,fnl->fkl", z, chance * (1 - chance), z) + ridge
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        # A full step can overshoot where the odds are extreme; this length never does with scaled features.
        step /= np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True) / 2)
        weights += step
        if np.abs(step).max() < 1e-9:
            z_asked = (asked - middle) / spread
            return weights[:, :1] + np.einsum("flk,fk->fl", z_asked, weights[:, 1:])
    raise RuntimeError(f"logistic regression did not settle in {STEPS} steps: use a larger penalty than {penalty}.")
