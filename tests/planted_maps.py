"""Rows of two models whose map is known: rotations, rows of one site, and a direction that some prompts never show."""

from __future__ import annotations

import numpy as np

from hooks.site import Site
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.directions import Directions

SITE = Site(0)
N = 160


def frame(rows: int, columns: int, seed: int) -> np.ndarray:
    """A random [rows, columns] matrix with orthonormal rows (or columns, if rows > columns)."""
    if rows > columns:
        return frame(columns, rows, seed).T
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((columns, rows)))[0].T


def rows_of(values: np.ndarray | dict[Site, np.ndarray], ids: list[str] | None = None, **more) -> ArrayRows:
    values = values if isinstance(values, dict) else {SITE: values}
    ids = [f"p{i}" for i in range(len(next(iter(values.values()))))] if ids is None else ids
    return ArrayRows(values, ids, **more)


def normal(n: int, d: int, seed: int) -> np.ndarray:
    """Rows with unequal axes and a mean far from zero."""
    return np.random.default_rng(seed).standard_normal((n, d)) * np.linspace(0.5, 3, d) + 20.0


def along(vector: np.ndarray, **facts) -> Directions:
    return Directions.of([SITE], vector, **facts)


class Two:
    """A source of width 12 and a target of width 16 that share eleven large axes through one rotation, and a twelfth,
    `v`, which the target turns into `own`. Behaviour rows vary along it by classes, neutral rows do not."""

    def __init__(self, seed: int = 0) -> None:
        self.turn = frame(12, 16, seed + 100)
        self.v, self.own = along(np.eye(12)[11]), along(self.turn[11])

    def rows(self, n: int, seed: int, *, shown: float, name: str = "p") -> tuple[ArrayRows, ArrayRows]:
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((n, 12)) * np.r_[np.linspace(4.0, 2.0, 11), 0.0]
        labels = ["on" if i % 2 else "off" for i in range(n)]
        x[:, 11] = shown * (np.array([1.0 if label == "on" else -1.0 for label in labels]) + rng.standard_normal(n) / 2)
        y = x @ self.turn + 0.05 * rng.standard_normal((n, 16)) + 3.0
        ids = [f"{name}{i}" for i in range(n)]
        return rows_of(x, ids, labels=labels), rows_of(y, ids, labels=labels)
