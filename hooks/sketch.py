"""Frequent directions: a few rows that stand for a long stream of rows, with a bound on the error that is counted as it
grows.

The sketch B of rows A keeps 0 <= AᵀA - BᵀB <= slack · 1, whatever the data and their order; slack is the sum of what
was taken off at each shrinking, and at most ‖A - A_k‖² / (rank + 1 - k) for every k. Sources: Liberty 2013,
arXiv:1206.0594; Ghashami, Liberty, Phillips & Woodruff 2016, arXiv:1501.01711.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class Sketch:
    """At most 2 · rank rows of width `d_model`, float64, shrunk to `rank` rows when they are full."""

    def __init__(self, rank: int, d_model: int, device: torch.device | str = "cpu") -> None:
        if rank < 1:
            raise ValueError(f"rank={rank}: a sketch needs at least 1 row.")
        self.rank, self.filled = rank, 0
        self._rows = torch.zeros(2 * rank, d_model, dtype=torch.float64, device=device)
        self.slack = torch.zeros((), dtype=torch.float64, device=device)

    @property
    def rows(self) -> Float[Tensor, "k d_model"]:
        """The rows B so far."""
        return self._rows[: self.filled]

    @property
    def padded(self) -> Float[Tensor, "k d_model"]:
        """B with what lies behind it, always 2 · rank rows."""
        return self._rows

    def add(self, rows: Float[Tensor, "row d_model"]) -> Sketch:
        """Takes rows in. Cost a row: about 8 · rank · d_model operations, and a share of an eigendecomposition of side
        2 · rank (for which the host waits for the device)."""
        start = 0
        while start < len(rows):
            if self.filled == 2 * self.rank:
                self._shrink()
            taken = rows[start : start + 2 * self.rank - self.filled]
            self._rows[self.filled : self.filled + len(taken)] = taken
            self.filled += len(taken)
            start += len(taken)
        return self

    def merge(self, other: Sketch) -> Sketch:
        """Takes in another sketch of the same width: the slacks add up, and the bound holds for all the rows."""
        self.slack += other.slack.to(self.slack.device)
        return self.add(other.rows.to(self._rows.device))

    def restore(self, rows: Float[Tensor, "k d_model"], slack: float) -> Sketch:
        """Goes on from rows and slack as they were."""
        self.filled = len(rows)
        self._rows[: self.filled] = rows
        self.slack.fill_(slack)
        return self

    def _shrink(self) -> None:
        # Through the Gram matrix: its side is 2 · rank, where d_model may be 8192. float64, since it squares the scale.
        values, vectors = torch.linalg.eigh(self._rows @ self._rows.T)
        taken_off = values[self.rank - 1].clamp_min(0)
        top, vectors = values[self.rank :], vectors[:, self.rank :]
        left = (top - taken_off).clamp_min(0)
        scale = torch.where(top > 0, left / top.clamp_min(torch.finfo(top.dtype).tiny), 0).sqrt()
        self._rows[: self.rank] = (vectors * scale).T @ self._rows
        self.slack += taken_off
        self.filled = self.rank
