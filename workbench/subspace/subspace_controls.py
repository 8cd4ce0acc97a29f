"""Random subspaces to compare a subspace with: as many dimensions, the same sites, no meaning.

Taking k dimensions out does harm by itself, and the more so the more of the rows' energy they hold: an isotropic frame
of a wide stream holds k/d_model of it, which is next to nothing. For an ablation, and for keeping only a subspace, the
honest control holds exactly the energy that the subspace does. Within one draw every site, and every k, starts from the
same Gaussian numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from workbench.subspace.basis import Subspace
from workbench.subspace.controls import STEPS
from workbench.subspace.directions import mean_of
from workbench.subspace.rows import RowSource, chosen_sites, narrowed

NEAR = 1e-10  # relative: where the energies agree to this, the search ends
FRAME_KINDS = ("isotropic", "orthogonal", "energy_matched")


def isotropic_frames(subspace: Subspace, n: int = 20, seed: int = 0) -> list[Subspace]:
    """n random orthonormal frames of the dimension of `subspace`, uniform over all such; one frame for all sites."""
    frames = [_orthonormal(gaussian) for gaussian in _gaussians(subspace, n, seed)]
    return [
        _control(subspace, np.tile(frame, (len(subspace.sites), 1, 1)), "isotropic", i)
        for i, frame in enumerate(frames)
    ]


def orthogonal_frames(subspace: Subspace, n: int = 20, seed: int = 0) -> list[Subspace]:
    """n random orthonormal frames of its dimension, every one orthogonal to `subspace` at its site.

    Raises ValueError when 2k exceeds d_model: there is no room beside it.
    """
    if 2 * subspace.k > subspace.d_model:
        raise ValueError(
            f"{subspace.k} dimensions orthogonal to {subspace.k} others do not fit into d_model {subspace.d_model}: "
            "use a smaller k, or another kind of control."
        )
    out = []
    for draw, gaussian in enumerate(_gaussians(subspace, n, seed)):
        frames = []
        for basis in subspace.basis:
            away = gaussian
            for _ in range(2):  # the second pass takes off what rounding left of the first
                away = _orthonormal(away - away @ basis.T @ basis)
            frames.append(away)
        out.append(_control(subspace, np.stack(frames), "orthogonal", draw))
    return out


def energy_matched_frames(subspace: Subspace, rows: RowSource, n: int = 20, seed: int = 0) -> list[Subspace]:
    """n random orthonormal frames that hold exactly as much of the rows' energy as `subspace` does, at each site.

    Energy is sum ‖P (h - origin)‖² around the origin of `subspace` (the rows' own mean where it has none). Each draw
    turns the span of k random combinations of the rows towards an isotropic frame until its energy is right; a span
    that holds too little is first multiplied by the rows' second moment, and a frame that holds too much by its
    inverse, until they hold enough and little enough. Nothing keeps a frame away from `subspace`: where that holds
    nearly all the energy that k dimensions can, every matched frame is close to it (`wb.principal_angles` tells), and
    the comparison is conservative. Capture the rows at the positions that are edited. Position 0 is left out, as for
    `controls.energy_matched`. Cost a site: the eigenvectors of [d_model, d_model], and a draw some 50
    QR of [d_model, k]. Raises ValueError when the width differs or the rows do not vary.
    """
    rows = narrowed(rows, subspace.sites)
    positions = np.asarray(rows.positions)
    if (positions == 0).any() and (positions > 0).any():
        rows = rows.where(position=lambda position: position > 0)
    isotropic = _gaussians(subspace, n, seed)
    weights = np.stack([_numbers(seed, draw, 1, (subspace.k, len(rows))) for draw in range(n)])
    found = np.zeros((n, *subspace.basis.shape))
    for index, site in enumerate(chosen_sites(rows, list(subspace.sites))):
        if rows.d_model(site) != subspace.d_model:
            raise ValueError(
                f"the subspace has width {subspace.d_model} and the rows {rows.d_model(site)} at {site}: pass rows of "
                "the model that the subspace is for."
            )
        origin = mean_of(rows, site) if subspace.origin is None else subspace.origin[index]
        moment, start = np.zeros((subspace.d_model, subspace.d_model)), 0
        combined = np.zeros((n, subspace.k, subspace.d_model))
        for batch in rows.batches(site):
            part = np.asarray(batch, np.float64) - origin
            moment += part.T @ part
            combined += weights[:, :, start : start + len(part)] @ part
            start += len(part)
        if not moment.any():
            raise ValueError(f"energy-matched frames at {site} need rows that vary: these do not. Leave the site out.")
        axes = np.linalg.eigh(moment)
        for draw in range(n):
            found[draw, index] = _with_energy_of(subspace.basis[index], axes, combined[draw], isotropic[draw])
    return [_control(subspace, found[draw], "energy matched", draw) for draw in range(n)]


def _with_energy_of(
    basis: Float[np.ndarray, "k d_model"],
    axes: tuple[Float[np.ndarray, " d_model"], Float[np.ndarray, "d_model d_model"]],
    high: Float[np.ndarray, "k d_model"],
    low: Float[np.ndarray, "k d_model"],
) -> Float[np.ndarray, "k d_model"]:
    """The frame between the spans of `high` and `low` that holds the energy of `basis`; `axes` are the eigenvalues
    (rising) and eigenvectors of the rows' second moment."""
    values, vectors = np.clip(axes[0], 0.0, None), axes[1]

    def energy(frame: np.ndarray) -> float:
        return float(((frame @ vectors) ** 2 @ values).sum())

    wanted, k, least = energy(basis), len(basis), 1e-12 * values[-1]
    # Rows of fewer dimensions than k span too little; a trace of isotropic noise makes any combination a whole frame.
    noise = 1e-3 * np.linalg.norm(high) / np.linalg.norm(low)
    high, low = _orthonormal(high + noise * low), _orthonormal(low)
    for _ in range(STEPS):
        if short := energy(high) < wanted:
            high = _orthonormal(high @ (vectors * (values + least)) @ vectors.T)
        if over := energy(low) > wanted:
            low = _orthonormal(low @ (vectors / (values + least)) @ vectors.T)
        if not short and not over:
            break
    # Steps that come near the most, or the least, that k dimensions hold, end there.
    high = high if energy(high) >= wanted else vectors[:, -k:].T
    low = low if energy(low) <= wanted else vectors[:, :k].T
    if energy(high) <= wanted or energy(low) >= wanted:
        return high if energy(high) <= wanted else low
    within, without = 0.0, 1.0  # share of `low`: the energy is that of `basis` somewhere between
    for _ in range(STEPS):
        half = (within + without) / 2
        frame = _orthonormal((1 - half) * high + half * low)
        held = energy(frame)
        if abs(held - wanted) <= NEAR * wanted:
            return frame
        within, without = (half, without) if held > wanted else (within, half)
    return _orthonormal((1 - within) * high + within * low)


def _gaussians(subspace: Subspace, n: int, seed: int) -> list[Float[np.ndarray, "k d_model"]]:
    """The numbers of each draw; those of a smaller k are the first rows of those of a larger one."""
    if n < 1:
        raise ValueError(f"n={n} controls: expected at least 1 (20 for a figure, 99 for a printed p).")
    return [_numbers(seed, draw, 0, (subspace.k, subspace.d_model)) for draw in range(n)]


def _numbers(seed: int, draw: int, purpose: int, shape: tuple[int, int]) -> Float[np.ndarray, "k _"]:
    return np.random.default_rng([seed, draw, purpose]).standard_normal(shape)


def _orthonormal(frame: Float[np.ndarray, "k d_model"]) -> Float[np.ndarray, "k d_model"]:
    return np.linalg.qr(frame.T)[0].T


def _control(subspace: Subspace, basis: Float[np.ndarray, "site k d_model"], kind: str, draw: int) -> Subspace:
    """The same sites, origin and model around another basis. Nothing was measured along it: variance 0, and no null."""
    variance = np.zeros((len(subspace.sites), subspace.k))
    return subspace.replace(
        basis=basis, variance=variance, null=None, null_p=None, null_kind=f"none: {kind} control {draw}", draws=0
    )


def frames(subspace: Subspace, kind: str, n: int, seed: int, rows: RowSource | None) -> Sequence[Subspace]:
    """The n controls of one kind; "energy_matched" needs `rows`. Raises ValueError for an unknown kind."""
    if kind not in FRAME_KINDS:
        raise ValueError(f"control kind {kind!r} is unknown: expected among {', '.join(FRAME_KINDS)}.")
    if kind == "energy_matched":
        if rows is None:
            raise ValueError(
                "energy-matched frames are combinations of captured activations: give them, rows=store.where(...)."
            )
        return energy_matched_frames(subspace, rows, n, seed)
    return isotropic_frames(subspace, n, seed) if kind == "isotropic" else orthogonal_frames(subspace, n, seed)
