"""Random directions that share nothing, in the coordinates that the test of shared components needs: their inner
products, and their components along given axes. Nothing of the width of the model is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class DrawnUnits:
    """n random unit vectors a draw: their Gram matrices, and their components along the axes that were asked for."""

    gram: Float[np.ndarray, "draw n n"]
    along: Float[np.ndarray, "draw n k"]

    def agreements(
        self, fitted: Float[np.ndarray, "n m"], lengths: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "draw k"]:
        """`agreement` of what is left in every draw, when `fitted` (coordinates along the first m axes) is as it was
        and what is left, of these `lengths`, points anywhere orthogonal to the axes. The m axes are fitted anew before
        it is taken, as they were fitted to the data, and what they leave is given its length again: a second fit would
        shorten it once more than the data's."""
        m = fitted.shape[1]
        along = self.along[:, :, :m]
        scale = np.outer(lengths, lengths)
        left = _cosines(self.gram - along @ along.transpose(0, 2, 1)) * scale
        if m:
            made = fitted @ fitted.T + left
            values, vectors = np.linalg.eigh(made)
            kept = vectors[:, :, -m:]
            left = _cosines(made - (kept * values[:, None, -m:]) @ kept.transpose(0, 2, 1)) * scale
        products = left[:, *np.triu_indices(len(lengths), 1)]
        largest = np.abs(products).max(axis=1)
        return largest[:, None] if m else np.stack([largest, np.abs(products.mean(axis=1))], axis=1)

    def effective_ranks(self) -> Float[np.ndarray, " draw"]:
        """The effective rank of the units of every draw."""
        share = np.clip(np.linalg.eigvalsh(self.gram), 1e-300, None) / self.gram.shape[1]
        return np.exp(-(share * np.log(share)).sum(axis=1))


def drawn_units(
    n: int,
    axes: Float[np.ndarray, "k d_model"],
    draws: int,
    *,
    rows: Float[np.ndarray, "row d_model"] | None = None,
    seed: int = 0,
) -> DrawnUnits:
    """n random unit vectors a draw: uniform, or random combinations of centred `rows` (directions of the stream)."""
    rng, d_model = np.random.default_rng(seed), axes.shape[1]
    if rows is not None:  # the rows' own space: as wide as there are rows, at most
        basis = np.linalg.svd(rows, full_matrices=False)[2]
        rows, axes = rows @ basis.T, axes @ basis.T
    gram, along = np.zeros((draws, n, n)), np.zeros((draws, n, len(axes)))
    for draw in range(draws):
        units = rng.standard_normal((n, d_model)) if rows is None else rng.standard_normal((n, len(rows))) @ rows
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        gram[draw], along[draw] = units @ units.T, units @ axes.T
    return DrawnUnits(gram, along)


def agreement(gram: Float[np.ndarray, "n n"], taken_out: int) -> tuple[list[float], tuple[int, int]]:
    """How vectors with these inner products agree: the largest product of two, in size, and whose; before any axis was
    taken out also the mean over all pairs, in which many show that agree a little (axes that were fitted leave none of
    it). Products and not cosines: what is left of a vector that lies along the axes is short, and points anywhere. The
    energy along one axis would be large, too, where vectors that agree with none lie in few dimensions."""
    rows, columns = np.triu_indices(len(gram), 1)
    products = gram[rows, columns]
    best = int(np.abs(products).argmax())
    found = [float(abs(products[best]))] + ([] if taken_out else [float(abs(products.mean()))])
    return found, (int(rows[best]), int(columns[best]))


def _cosines(gram: Float[np.ndarray, "draw n n"]) -> Float[np.ndarray, "draw n n"]:
    size = np.sqrt(np.maximum(np.diagonal(gram, axis1=1, axis2=2), 1e-300))
    return gram / (size[:, :, None] * size[:, None, :])


def either(observed: Sequence[float], null: Float[np.ndarray, "draw k"]) -> float:
    """One p of several statistics: that of the least of their p, each taken among all draws and the observed value; the
    draws' own least p are what it is compared with, so that having looked at several is paid for.

    Source: the min-p of Westfall & Young 1993.
    """
    every = np.vstack([np.asarray(observed)[None], null])
    above = (every[None, :, :] >= every[:, None, :] - 1e-12 * np.abs(every).max(axis=0)).sum(axis=1)
    least = above.min(axis=1)
    return float((least <= least[0]).sum() / len(every))
