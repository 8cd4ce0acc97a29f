"""What every statistic asks of its input: finite numbers, a coverage between 0 and 1, a known tail."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

Tail = Literal["greater", "less", "two-sided"]
Bounds = tuple[float | int, float | int]
"""The ends of a scale."""

TAILS = ("greater", "less", "two-sided")


def finite(values: ArrayLike, name: str) -> Float[np.ndarray, " n"]:
    """The values as one row of float64. Raises ValueError for NaN and infinities: nothing is dropped silently."""
    array = np.asarray(values, np.float64).ravel()
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise ValueError(
            f"{name} holds {bad} values that are NaN or infinite: drop unscored rows first, and say how many."
        )
    return array


def coverage(level: float) -> float:
    """`level`, when it is one."""
    if not 0 < level < 1:
        raise ValueError(f"level={level} is no coverage: expected a number between 0 and 1, such as 0.95.")
    return level


def known_tail(tail: str) -> None:
    if tail not in TAILS:
        raise ValueError(f"tail={tail!r} is unknown: expected 'greater', 'less' or 'two-sided'.")


def alike(values: Float[np.ndarray, " n"]) -> bool:
    """All equal up to rounding: 0.1 averaged over 3 rows and over 7 differs in the last bit."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def midranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1; tied values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[place]
