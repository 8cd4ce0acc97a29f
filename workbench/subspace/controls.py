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

STEPS = 60  # of power iteration and of bisection: 2^-60 is below the rounding of float64
KINDS = ("isotropic", "energy_matched", "orthogonal")


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
    """n random directions that hold exactly as much of the rows' energy as `v` does, with its norm, at each site.

    Energy is sum ((h - origin)·u)² around the origin of `v` (the point that ablation to the mean goes back to; the
    rows' own mean where `v` has none). Each draw turns a random combination of the rows, sum_i g_i (h_i - origin),
    towards an isotropic direction until its energy is that of `v`; a combination that holds too little is first
    multiplied by the rows' second moment, which raises it. They are not made orthogonal to `v`, which is conservative.
    Capture the rows at the positions that the ablation edits: directions that hold the energy of the last token hold
    little of the others'. Position 0 is left out, whose norm drowns the others in many models.
    Raises ValueError when a site of `v` was not captured, the width differs, or the rows do not vary there.
    """
    rows = narrowed(rows, v.sites)
    positions = np.asarray(rows.positions)
    if (positions == 0).any() and (positions > 0).any():
        rows = rows.where(position=lambda position: position > 0)
    rng = np.random.default_rng(seed)
    weights, isotropic = rng.standard_normal((n, len(rows))), rng.standard_normal((n, v.d_model))
    found = np.zeros((n, len(v.sites), v.d_model))
    for index, site in enumerate(chosen_sites(rows, list(v.sites))):
        _refuse_width(v, rows.d_model(site), str(site))
        origin = mean_of(rows, site) if v.origin is None else v.origin[index]
        moment, combined, start = np.zeros((v.d_model, v.d_model)), np.zeros((n, v.d_model)), 0
        for batch in rows.batches(site):
            part = np.asarray(batch, np.float64) - origin
            moment += part.T @ part
            combined += weights[:, start : start + len(part)] @ part
            start += len(part)
        if not moment.any() and v.norm[index] > 0:
            raise ValueError(
                f"energy-matched controls at {site} need rows that vary: these do not. Leave the site out."
            )
        for draw in range(n):
            found[draw, index] = _with_energy_of(v.unit[index], moment, combined[draw], isotropic[draw])
    draws = iter(found)
    return _drawn(v, n, seed, "energy matched", lambda _: next(draws))


def _with_energy_of(
    unit: Float[np.ndarray, " d_model"],
    moment: Float[np.ndarray, "d_model d_model"],
    high: Float[np.ndarray, " d_model"],
    low: Float[np.ndarray, " d_model"],
) -> Float[np.ndarray, " d_model"]:
    """The direction between `high` and `low` whose energy under `moment` is that of `unit`, to 1e-6 of it."""

    def excess(direction: np.ndarray) -> float:
        return float(direction @ moment @ direction) / max(float(direction @ direction), 1e-300) - wanted

    def normed(direction: np.ndarray) -> np.ndarray:
        return direction / max(float(np.linalg.norm(direction)), 1e-300)

    wanted = float(unit @ moment @ unit)
    ceiling = float(np.trace(moment))
    for _ in range(STEPS):  # multiplying by the moment never lowers the energy, by (ceiling - moment) never raises it
        high = high if excess(high) >= 0 else normed(moment @ high)
        low = low if excess(low) <= 0 else normed(low - moment @ low / ceiling)
    high, low = normed(high), normed(low)
    within, without = 0.0, 1.0  # share of `low`: the energy is that of `unit` somewhere between
    for _ in range(STEPS):
        half = (within + without) / 2
        within, without = (half, without) if excess((1 - half) * high + half * low) >= 0 else (within, half)
    return (1 - within) * high + within * low


def energy_share(v: Directions | Subspace, rows: RowSource) -> Float[np.ndarray, " site"]:
    """Share of sum ‖h - origin‖² that ablation of `v` (or of the subspace) to its origin would remove, a site (0 to 1);
    around the rows' own mean where it has no origin."""
    shares = []
    for index, site in enumerate(chosen_sites(rows, list(v.sites))):
        basis = v.unit[index][None] if isinstance(v, Directions) else v.basis[index]
        mean = mean_of(rows, site) if v.origin is None else v.origin[index]
        held, total = 0.0, 0.0
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
