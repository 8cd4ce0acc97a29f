"""A stream with a planted shift of known rank, and a behaviour behind it, for tests of the causal curve."""

from __future__ import annotations

import numpy as np

from hooks.site import Site
from workbench.interventions.top_k import KeepDimensions
from workbench.subspace.arrays import ArrayRows

SITE = Site(1)
N, D = 120, 40
IDS = [f"p{i}" for i in range(N)]


class LinearModel:
    """What is behind the stream, planted: the behaviour is the mean of `rank` equal read-outs of the shift, each of
    which falls silent when its dimension is taken out."""

    def __init__(self, rank: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.axes = np.linalg.qr(rng.standard_normal((D, rank + 8)))[0].T
        self.read, loud = self.axes[:rank], self.axes[rank:]
        self.base = rng.standard_normal((N, D)) * 0.3 + 30 * rng.standard_normal((N, 8)) @ loud + 2.0
        # Uncorrelated and unequally spread, so that the components are the read-outs and no mixtures of them.
        amounts = rng.standard_normal((N, rank))
        amounts = 6 + np.linalg.qr(amounts - amounts.mean(0))[0] * np.linspace(1.0, 0.6, rank) * np.sqrt(N)
        self.tuned = self.base + amounts @ self.read + 0.02 * rng.standard_normal((N, D))
        self.middle = self.base.mean(0)

    def score(self, resid: np.ndarray) -> np.ndarray:
        """The share of the read-outs that are on."""
        return ((resid - self.middle) @ self.read.T > 1.5).mean(axis=1)

    def table(self, cells, twins=None) -> list[dict]:
        """What wb.sweep writes, with every edit done by hand."""
        listed = [(None, None, None), *((cell, None, None) for cell in cells)]
        listed += [(twin, kind, i) for kind, own in (twins or {}).items() for i, twin in enumerate(own)]
        rows = []
        for number, (cell, control, draw) in enumerate(listed):
            facts = {"intervention": "none"} if cell is None else cell.describe()
            scores = self.score(self.tuned if cell is None else self.edited(cell))
            rows += [
                {"cell": number, **facts, "control": control, "draw": draw, "prompt": name, "score": score}
                for name, score in zip(IDS, scores, strict=True)
            ]
        return rows

    def edited(self, cell) -> np.ndarray:
        found = cell.subspace if isinstance(cell, KeepDimensions) else cell.direction
        away = self.tuned - found.origin[0]
        inside = away @ found.basis[0].T @ found.basis[0]
        return found.origin[0] + inside if isinstance(cell, KeepDimensions) else self.tuned - inside

    def rows(self, values: np.ndarray) -> ArrayRows:
        return ArrayRows({SITE: values}, IDS)
