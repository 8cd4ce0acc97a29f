"""How far two subspaces, or several directions, agree: principal angles, mean overlap against chance, cosines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float

from hooks.site import Site
from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions


@dataclass(frozen=True)
class Overlap:
    """Mean squared cosine of the principal angles (0 orthogonal, 1 contained) beside that of random subspaces."""

    value: float
    chance: float

    def __str__(self) -> str:
        return f"{self.value:.3f} (chance {self.chance:.3f})"


def principal_angles(a: Subspace, b: Subspace) -> dict[Site, Float[np.ndarray, " k"]]:
    """Angles in radians at each shared site, smallest first; as many as the smaller subspace has dimensions.

    Small angles are exact to rounding (they come from sines, not from the arc cosine of nearly 1). Raises ValueError
    when no site is shared or the widths differ. Source: Knyazev & Argentati 2002, doi:10.1137/S1064827500377332.
    """
    return {
        site: np.sort(scipy.linalg.subspace_angles(a[site].basis[0].T, b[site].basis[0].T)) for site in _shared(a, b)
    }


def mean_overlap(a: Subspace, b: Subspace) -> dict[Site, Overlap]:
    """Mean cos² of the principal angles at each shared site, with the level of chance: larger k / d_model."""
    chance = max(a.k, b.k) / a.d_model
    return {
        site: Overlap(float(np.mean(np.cos(angles) ** 2)), chance) for site, angles in principal_angles(a, b).items()
    }


def cosine_matrix(directions: Sequence[Directions], site: Site | str | int) -> Float[np.ndarray, "n n"]:
    """Cosines of all pairs at one site; a direction of norm 0 there has cosine 0 with all, itself included.

    Raises ValueError when widths or roles differ: the angle between a write and a read vector means nothing.
    """
    if len({(v.d_model, v.role) for v in directions}) != 1:
        found = ", ".join(f"{v.kind}: d_model {v.d_model}, {v.role}" for v in directions)
        raise ValueError(f"cosine_matrix: expected directions of one width and role; {found or 'none'} came.")
    units = np.stack([v[site].unit[0] for v in directions])
    return units @ units.T


def _shared(a: Subspace, b: Subspace) -> list[Site]:
    if a.d_model != b.d_model:
        raise ValueError(
            f"subspaces of widths {a.d_model} and {b.d_model} lie in different spaces: expected one model's; "
            "wb.fit_transfer maps directions."
        )
    both = [site for site in a.sites if site in b.sites]
    if not both:
        raise ValueError(f"no site in common: {', '.join(map(str, a.sites))} against {', '.join(map(str, b.sites))}.")
    return both
