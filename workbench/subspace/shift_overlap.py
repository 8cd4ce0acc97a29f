"""How far two shifts of one stream agree: their subspaces and their means, each beside what chance gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float

from hooks.site import Site
from stores.printed import Printed
from workbench.statistics import p_value
from workbench.subspace.overlap import principal_angles
from workbench.subspace.shift_result import ShiftPCA


@dataclass(frozen=True, eq=False)
class SiteOverlap(Printed):
    """One site. `overlap` is the mean cos² of the principal `angles` (radians), `chance` its expectation for random
    subspaces of as many dimensions, `null` the 5 % and 95 % quantile of random frames (uniform on the Grassmannian),
    `p` that of so large an overlap. `cosine` is that of the mean shifts, within `cosine_null` for 90 of 100 pairs of
    random directions, `cosine_p` two-sided (all None where a mean shift is zero)."""

    angles: Float[np.ndarray, " k"]
    overlap: float
    chance: float
    null: tuple[float, float]
    p: float
    cosine: float | None
    cosine_null: tuple[float, float] | None
    cosine_p: float | None


@dataclass(frozen=True, eq=False)
class ShiftOverlap(Printed):
    """What `wb.shift_overlap` found at each site that both shifts have. `k` are the dimensions of the two subspaces,
    `n` the rows of the smaller matrix, `names` what is compared."""

    sites: Mapping[Site, SiteOverlap]
    k: tuple[int, int]
    n: int
    d_model: int
    draws: int
    names: tuple[str, str]

    def rows(self) -> list[dict[str, Any]]:
        """One dict a site, for a table."""
        names = ("overlap", "chance", "null", "p", "cosine", "cosine_null", "cosine_p")
        return [
            {"site": str(site), "k": self.k, "n": self.n, **{name: getattr(found, name) for name in names}}
            for site, found in self.sites.items()
        ]


def shift_overlap(
    a: ShiftPCA,
    b: ShiftPCA,
    k: int | None = None,
    *,
    names: tuple[str, str] = ("a", "b"),
    draws: int = 99,
    seed: int = 0,
) -> ShiftOverlap:
    """The overlap of the first k components (default: all) of two shifts at each shared site, and the cosine of their
    mean shifts, each with its null.

    Both must be of one stream of one model, under scale "none": image positions against text positions of the language
    model, or one fine-tune against another. A vision tower and a language model share no space, so that no angle
    between them means anything: no shared site, ValueError. The nulls are isotropic, and no stream is: two shifts of
    one model share its loud axes. Set the same comparison of a benign fine-tune beside it.
    """
    first, second = (one.subspace if k is None else one.subspace.first(min(k, one.k)) for one in (a, b))
    angles = principal_angles(first, second)
    rng = np.random.default_rng(seed)
    d, frames = first.d_model, []
    for _ in range(draws):
        frames.append(np.linalg.qr(rng.standard_normal((d, second.k)))[0].T)
    found = {}
    for site, here in angles.items():
        basis = first[site].basis[0]
        least = min(first.k, second.k)
        shares = np.array([((frame @ basis.T) ** 2).sum() / least for frame in frames])
        value = float(np.mean(np.cos(here) ** 2))
        low, high = (float(end) for end in np.quantile(shares, [0.05, 0.95]))
        chance = max(first.k, second.k) / d
        means = _cosine(a[site].shift[0], b[site].shift[0])
        found[site] = SiteOverlap(here, value, chance, (low, high), p_value(value, shares, "greater"), *means)
    return ShiftOverlap(found, (first.k, second.k), min(a.n, b.n), d, draws, names)


def _cosine(
    a: Float[np.ndarray, " d_model"], b: Float[np.ndarray, " d_model"]
) -> tuple[float | None, tuple[float, float] | None, float | None]:
    """The cosine, the middle 90 % of random pairs, and the two-sided p: cos² of those follows a beta law, exactly."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    if lengths == 0:
        return None, None, None
    cosine, law = float(a @ b) / lengths, scipy.stats.beta(0.5, (len(a) - 1) / 2)
    wide = float(np.sqrt(law.ppf(0.9)))
    return cosine, (-wide, wide), float(law.sf(min(1.0, cosine**2)))
