"""Random directions to compare a direction with: same length, same sites, no meaning.

For steering the fair control is isotropic. For ablation it is matched in energy: projection ignores length, and an
isotropic direction holds only 1/d_model of the energy, so taking it out changes next to nothing whatever it means.
Within one draw every site uses the same Gaussian numbers, as a real direction is one thing seen at many layers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions, mean_of
from workbench.subspace.rows import RowSource, chosen_sites, narrowed


def isotropic(v: Directions, n: int = 20, seed: int = 0) -> list[Directions]:
    """n random directions, uniform on the sphere, of exactly the norm of `v` at each site."""
    return _drawn(v, n, seed, "isotropic", lambda rng: np.tile(rng.standard_normal(v.d_model), (len(v.sites), 1)))


def orthogonal(v: Directions, n: int = 20, seed: int = 0) -> list[Directions]:
    """n random directions orthogonal to `v`, of the norm of `v` at each site."""

    def away(rng: np.random.Generator) -> Float[np.ndarray, "site d_model"]:
        random = np.tile(rng.standard_normal(v.d_model), (len(v.sites), 1))
        for _ in range(2):  # the second pass takes off what rounding left of the first
            random -= np.einsum("sd,sd->s", random, v.unit)[:, None] * v.unit
        return random

    return _drawn(v, n, seed, "orthogonal", away)


def energy_matched(v: Directions, rows: RowSource, n: int = 20, seed: int = 0) -> list[Directions]:
    """n random combinations unit(sum_i g_i (h_i - mean)) of the captured rows, g Gaussian, of the norm of `v`.

    These follow the covariance of the rows, so taking one out removes energy as a direction found in the data does.
    Raises ValueError when a site of `v` was not captured, the width differs, or the rows do not vary there.
    """
    rows = narrowed(rows, v.sites)
    weights = np.random.default_rng(seed).standard_normal((n, len(rows)))
    # Centring the weights centres the rows: sum (g_i - mean g) h_i = sum g_i (h_i - mean), in one pass over the data.
    weights -= weights.mean(axis=1, keepdims=True)
    combined = np.zeros((n, len(v.sites), v.d_model))
    for index, site in enumerate(chosen_sites(rows, list(v.sites))):
        _refuse_width(v, rows.d_model(site), str(site))
        start, first = 0, None
        for batch in rows.batches(site):
            part = np.asarray(batch, np.float64)
            first = part[0] if first is None else first
            # Any fixed point may be taken off first; without it a large mean would cancel badly.
            combined[:, index] += weights[:, start : start + len(part)] @ (part - first)
            start += len(part)
    draws = iter(combined)
    return _drawn(v, n, seed, "energy matched", lambda _: next(draws))


def energy_share(v: Directions | Subspace, rows: RowSource) -> Float[np.ndarray, " site"]:
    """Share of sum ‖h - mean‖² that ablation of `v` (or of the subspace) to the mean would remove, a site (0 to 1)."""
    shares = []
    for index, site in enumerate(chosen_sites(rows, list(v.sites))):
        basis = v.unit[index][None] if isinstance(v, Directions) else v.basis[index]
        mean, held, total = mean_of(rows, site), 0.0, 0.0
        _refuse_width(v, len(mean), str(site))
        for batch in rows.batches(site):
            centred = np.asarray(batch, np.float64) - mean
            held += float(((centred @ basis.T) ** 2).sum())
            total += float((centred**2).sum())
        shares.append(held / total if total > 0 else 0.0)
    return np.array(shares)


def _drawn(
    v: Directions, n: int, seed: int, kind: str, draw: Callable[[np.random.Generator], np.ndarray]
) -> list[Directions]:
    if n < 1:
        raise ValueError(f"n={n} controls: expected at least 1 (20 for a figure, 99 for a printed p).")
    rng = np.random.default_rng(seed)
    controls = []
    for number in range(n):
        random = draw(rng)
        length = np.linalg.norm(random, axis=1)
        moved = v.norm > 0
        if np.any(length[moved] == 0):
            site = v.sites[int(np.flatnonzero(moved & (length == 0))[0])]
            raise ValueError(f"{kind} control at {site} has no length: the rows do not vary there. Leave the site out.")
        unit = np.where(moved[:, None], random / np.where(length > 0, length, 1.0)[:, None], 0.0)
        # Where v does not move (norm 0) neither does its control; elsewhere the lengths agree to rounding.
        assert np.allclose(np.linalg.norm(unit * v.norm[:, None], axis=1), v.norm, rtol=1e-9, atol=0.0)
        controls.append(
            v.replace(unit=unit, kind=f"{kind} control {number}", reliability=None, positive_mean=None, matched=None)
        )
    return controls


def _refuse_width(v: Directions | Subspace, width: int, site: str) -> None:
    if width != v.d_model:
        raise ValueError(
            f"the directions have width {v.d_model} and the rows {width} at {site}: these are different models. "
            "Pass rows captured from the model the directions are for."
        )
