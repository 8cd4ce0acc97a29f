"""Sums: what was added up at the sites of one stream, group by group, and the means and scatters that follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from hooks.site import Site
from stores.printed import Printed

Groups = Sequence[int]


@dataclass(frozen=True, eq=False)
class Scatter(Printed):
    """A sum of outer products. Exact: `matrix` [d_model, d_model]. From a sketch: `rows` [k, d_model] with a sign each,
    which leave between 0 and `slack` of the true scatter out in every direction. `trace` is exact in both."""

    trace: float
    slack: float = 0.0
    matrix: Float[np.ndarray, "d_model d_model"] | None = None
    rows: Float[np.ndarray, "k d_model"] | None = None
    signs: Float[np.ndarray, " k"] | None = None

    def dense(self) -> Float[np.ndarray, "d_model d_model"]:
        """The scatter as a matrix; from a sketch its lower bound."""
        if self.matrix is not None:
            return self.matrix
        assert self.rows is not None and self.signs is not None
        return (self.rows.T * self.signs) @ self.rows

    def with_row(self, row: Float[np.ndarray, " d_model"]) -> Scatter:
        """With the outer product of one row more."""
        trace = self.trace + float(row @ row)
        if self.matrix is not None:
            return Scatter(trace, self.slack, matrix=self.matrix + np.outer(row, row))
        assert self.rows is not None and self.signs is not None
        return Scatter(trace, self.slack, rows=np.vstack([self.rows, row]), signs=np.append(self.signs, 1.0))

    def eigen(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "k d_model"]]:
        """Eigenvalues from large to small, and their vectors as rows; of a sketch those that it has."""
        if self.matrix is None and self.rows is not None and self.signs is not None and len(self.rows) < _width(self):
            basis, triangle = np.linalg.qr(self.rows.T)
            values, vectors = np.linalg.eigh((triangle * self.signs) @ triangle.T)
            vectors = basis @ vectors
        else:
            values, vectors = np.linalg.eigh(self.dense())
        return np.clip(values[::-1], 0.0, None), vectors[:, ::-1].T


def _width(scatter: Scatter) -> int:
    return 0 if scatter.rows is None else scatter.rows.shape[1]


@dataclass(frozen=True, eq=False)
class Sums(Printed):
    """One stream's sums about the groups' pilots, as `hooks.accumulate.Accumulator.state` describes them, with `counts`
    [group], `half_counts` [group, split] and `rows_of` [prompt, variant], how many rows a prompt gave. `scatter` (or
    `rows`, `filled`, `slack`: sketches) is there where covariances were asked for."""

    sites: tuple[Site, ...]
    counts: Int[np.ndarray, " group"]
    half_counts: Int[np.ndarray, "group split"]
    rows_of: Int[np.ndarray, "prompt variant"]
    pilot: Float[np.ndarray, "site group d_model"]
    sums: Float[np.ndarray, "site group d_model"]
    halves: Float[np.ndarray, "site group split d_model"]
    energy: Float[np.ndarray, "site group"]
    norms: Int[np.ndarray, "site group bin"]
    cells: tuple[int, ...] = ()
    scatter: Float[np.ndarray, "site cell d_model d_model"] | None = None
    rows: Float[np.ndarray, "site cell k d_model"] | None = None
    filled: Int[np.ndarray, "site cell"] | None = None
    slack: Float[np.ndarray, "site cell"] | None = None

    def __post_init__(self) -> None:
        for value in self.arrays().values():
            value.setflags(write=False)

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields that are arrays and are there, by name."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, np.ndarray)}

    @property
    def stream(self) -> str:
        return self.sites[0].stream

    @property
    def d_model(self) -> int:
        return self.pilot.shape[-1]

    @cached_property
    def _offset(self) -> Float[np.ndarray, "site group d_model"]:
        """Each group's mean minus its pilot; 0 for groups without rows."""
        return self.sums / np.maximum(self.counts, 1)[:, None]

    # Means

    def count(self, groups: Groups) -> int:
        return int(self.counts[list(groups)].sum())

    def mean(self, site: int, groups: Groups) -> Float[np.ndarray, " d_model"]:
        """Mean of all rows of these groups."""
        chosen = list(groups)
        total = self.sums[site, chosen] + self.counts[chosen, None] * self.pilot[site, chosen]
        return total.sum(axis=0) / self.count(groups)

    def halves_of(self, site: int, groups: Groups) -> tuple[Float[np.ndarray, "split d_model"], ...]:
        """Means of the first and of the second half of each split; NaN where a half has no rows."""
        chosen = list(groups)
        counts, pilot = self.half_counts[chosen], self.pilot[site, chosen]
        first = self.halves[site, chosen].sum(axis=0) + np.einsum("gs,gd->sd", counts, pilot)
        second = self.mean(site, groups) * self.count(groups) - first
        sizes = counts.sum(axis=0)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            return first / sizes, second / (self.count(groups) - sizes)

    def histogram(self, site: int, groups: Groups) -> Int[np.ndarray, " bin"]:
        """How many rows of these groups have a length of each bin."""
        return self.norms[site, list(groups)].sum(axis=0)

    # Scatters

    def scatter_about(self, site: int, classes: Sequence[Groups]) -> Scatter:
        """The scatter of the rows of each class (a list of groups) about the class's own mean, summed over classes.

        Raises ValueError where the sums do not tell these groups from others. Source: the pilots' share is taken out
        exactly, by the parallel-axis formula of Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115.
        """
        cells = self._cells_of([group for groups in classes for group in groups])
        rows, signs = self._apart(site, classes)
        trace = self.trace_about(site, classes)
        if self.scatter is not None:
            return Scatter(trace, matrix=self.scatter[site, cells].sum(axis=0) + (rows.T * signs) @ rows)
        assert self.rows is not None and self.filled is not None and self.slack is not None
        sketched = [self.rows[site, cell, : self.filled[site, cell]] for cell in cells]
        rows = np.concatenate([*sketched, rows])
        signs = np.concatenate([np.ones(len(rows) - len(signs)), signs])
        return Scatter(trace, float(self.slack[site, cells].sum()), rows=rows, signs=signs)

    def trace_about(self, site: int, classes: Sequence[Groups]) -> float:
        """The trace of `scatter_about`: the squared distances from the classes' means. Known for any groups."""
        chosen = [group for groups in classes for group in groups]
        rows, signs = self._apart(site, classes)
        return float(self.energy[site, chosen].sum() + signs @ np.square(rows).sum(axis=1))

    def _apart(self, site: int, classes: Sequence[Groups]) -> tuple[np.ndarray, np.ndarray]:
        """Signed rows whose outer products lead from scatters about pilots to scatters about the classes' means."""
        rows, signs = [np.zeros((0, self.d_model))], [np.zeros(0)]
        for groups in classes:
            chosen, offset = list(groups), self._offset[site, list(groups)]
            weight = np.sqrt(self.counts[chosen])[:, None]
            apart = self.pilot[site, chosen] + offset - self.mean(site, groups)
            rows += [weight * offset, weight * apart]
            signs += [-np.ones(len(chosen)), np.ones(len(chosen))]
        return np.concatenate(rows), np.concatenate(signs)

    def _cells_of(self, groups: Groups) -> list[int]:
        if not self.cells:
            raise ValueError(
                "these moments hold no covariance: expected wb.moments(..., covariance='within') or 'groups'."
            )
        cells = sorted({self.cells[group] for group in groups})
        members = {group for group, cell in enumerate(self.cells) if cell in cells and self.counts[group]}
        if others := members - set(groups):
            raise ValueError(
                f"the scatter of these groups was added up together with that of {len(others)} others: expected all "
                "classes of a variant, or wb.moments(..., covariance='groups'), which keeps them apart."
            )
        return cells
