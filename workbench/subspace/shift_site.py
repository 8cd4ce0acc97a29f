"""One site of a decomposition: its rows, the matrix of the variant, the spectrum and the null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float

from hooks.site import Site
from workbench.statistics import Significance
from workbench.subspace.basis import CONSTANT, UNCHANGED, signed, too_few
from workbench.subspace.means import ROUNDING
from workbench.subspace.rows import RowSource
from workbench.subspace.shift_null import class_means, group_test, mean_test, null_shares, swapped_shares
from workbench.subspace.shift_rows import VARIANTS, Pairs, class_names
from workbench.subspace.shift_scale import Scaling, refuse_dead, scaling_of


@dataclass(frozen=True)
class Asked:
    """The options of one decomposition, as `shift_pca` describes them."""

    variant: str
    k: int
    scale: str
    shrinkage: float | int | None
    null: str | None
    draws: int
    seed: int
    classes: str | None


class SiteRows:
    """The arrays of one site: all base rows, the tuned rows that were chosen, and the pairs among them."""

    def __init__(self, base: RowSource, tuned: RowSource, pairs: Pairs, site: Site, classes: str | None) -> None:
        self.site, self.prompts = site, pairs.prompts
        self.classes = class_names(pairs, base, classes)
        self.left, self.right = pairs.values(base, tuned, site)
        self.base = np.asarray(base.values(site, np.float64), np.float64)
        self.tuned, self.names = self.right, (list(base.prompt_ids), list(pairs.prompts))
        if pairs.joins is None:
            self.tuned = np.asarray(tuned.values(site, np.float64), np.float64)[pairs.tuned]
            self.names = (self.names[0], [str(tuned.prompt_ids[int(row)]) for row in pairs.tuned])

    def matrix(self, variant: str) -> Float[np.ndarray, "row d_model"]:
        if variant == "stacked":
            return np.vstack([self.left, self.right])
        if variant == "between_class":
            return class_means(self.left, self.right, self.classes)
        if variant == "harmful_only":
            return self.tuned
        return self.tuned - self.base.mean(axis=0) if variant == "unpaired" else self.right - self.left

    @property
    def shift(self) -> Float[np.ndarray, " d_model"]:
        """The mean over the pairs; of the groups where there are none."""
        if len(self.left):
            return (self.right - self.left).mean(axis=0)
        return self.tuned.mean(axis=0) - self.base.mean(axis=0)

    def shift_test(self, scaling: Scaling, draws: int, seed: int) -> Significance:
        if len(self.left):
            return mean_test(scaling.apply(self.right - self.left), self.prompts, draws, seed)
        return group_test(scaling.apply(self.base), scaling.apply(self.tuned), self.names, draws, seed)


def at_site(rows: SiteRows, asked: Asked, rng: np.random.Generator) -> dict[str, Any] | str:
    """The arrays of one site, or the reason why it has none."""
    variant, null, draws = asked.variant, asked.null, asked.draws
    if len(rows.left) and np.array_equal(rows.left, rows.right):
        return UNCHANGED
    mean, between = VARIANTS[variant].mean, variant == "between_class"
    raw = rows.matrix(variant)
    if not mean and np.ptp(raw, axis=0).max() <= ROUNDING * max(np.abs(rows.base).max(), np.abs(rows.tuned).max()):
        return CONSTANT
    both = np.vstack([rows.left, rows.right]) if between else rows.base
    scaling = scaling_of(both, asked.scale, asked.shrinkage, rows.site)
    # Of differences the mean counts as well; rows of activations are only read around a mean.
    refuse_dead(scaling, raw if mean or variant.startswith("paired") else raw - raw.mean(axis=0), rows.site)
    values = scaling.apply(raw)
    middle = np.zeros(values.shape[1]) if between else values.mean(axis=0)
    freedom = len(both) - 1 if between else len(values) if mean else len(values) - 1
    basis, variance, total = _spectrum(
        values if mean else values - middle, freedom, len(values) - (between or not mean)
    )
    exist = next((kept for kept in range(min(asked.k, len(variance)), 0, -1) if too_few(variance, kept) is None), 0)
    if not exist:
        return too_few(variance, 1) or CONSTANT
    part: dict[str, Any] = {"basis": signed(basis[:exist]), "variance": variance, "total": total}
    part |= {"mean": middle, "shift": rows.shift, "origin": rows.base.mean(axis=0)}
    part |= {"scaled_shift": scaling.apply(rows.shift[None])[0], "shrinkage": np.array(scaling.shrinkage)}
    part["reads"] = scaling.apply(part["basis"])
    part["writes"] = scaling.writes(part["reads"])
    if between:
        around = scaling.apply(both - both.mean(axis=0))
        part["between"] = total * freedom / (around**2).sum()
    if null is not None:
        if between:
            left, right = scaling.apply(rows.left), scaling.apply(rows.right)
            shares = swapped_shares(left, right, rows.prompts, rows.classes, exist, draws, rng)
            together = np.cumsum(shares, axis=1)
        else:
            shares, together = null_shares(values, exist, null, draws, rng, mean=mean)
        part["null"] = np.quantile(shares, [0.05, 0.95], axis=0).T
        observed = variance[:exist] / total * (1 - 1e-12)  # a tie must never make p smaller
        part["null_p"] = (1 + (shares >= observed).sum(axis=0)) / (1 + draws)
        part["together"] = np.quantile(together, [0.05, 0.95], axis=0).T
        together_p = (together >= np.cumsum(observed)).sum(axis=0)
        part["together_p"] = (1 + together_p) / (1 + draws)
        part["test"] = rows.shift_test(scaling, draws, asked.seed)
    return part


def _spectrum(
    values: Float[np.ndarray, "row d_model"], freedom: int, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right singular vectors, eigenvalues (at most `most`) and their sum."""
    _, scales, right = scipy.linalg.svd(values, full_matrices=False, lapack_driver="gesdd", check_finite=False)
    variance = scales[: min(most, values.shape[1])] ** 2 / freedom
    return right, variance, np.array((scales**2).sum() / freedom)
