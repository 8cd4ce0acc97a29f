"""The general and the narrow part of a domain's direction, and how near it lies to directions that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from stores.printed import Printed
from workbench.statistics import p_value
from workbench.subspace.convergence import unit_rows
from workbench.subspace.convergence_null import drawn_units
from workbench.subspace.directions import Directions
from workbench.subspace.grassmann import ISOTROPIC, STREAM, stream_rows
from workbench.subspace.rows import RowSource


@dataclass(frozen=True, eq=False)
class Parts(Printed):
    """A domain's direction `own` (mean of its fine-tunings) = `general` + `narrow`, as vectors of their own lengths:
    the part along `common` (unit length: the mean of the other domains' unit vectors), and what is left. `share` [site]
    is ‖general‖² / ‖own‖², `null` [site, 2] its 5 to 95 % for random directions of the `kind`, `p` [site] that of so
    large a share."""

    own: Directions
    common: Directions
    general: Directions
    narrow: Directions
    share: Float[np.ndarray, " site"]
    null: Float[np.ndarray, "site 2"]
    p: Float[np.ndarray, " site"]
    kind: str
    draws: int

    def of_one_length(self) -> dict[str, Directions]:
        """The whole, what the others have in common, and the narrow part as directions of the length of the whole: what
        is compared when they are added. A narrow part that is nothing at some site is left out."""
        found = {"own": self.own, "general": self.common.replace(norm=self.own.norm)}
        if self.narrow.norm.all():
            found["narrow"] = self.narrow.replace(norm=self.own.norm)
        return found


def general_and_narrow(
    directions: Mapping[str, Sequence[Directions]],
    rows: RowSource | None = None,
    *,
    draws: int = 499,
    seed: int = 0,
) -> dict[str, Parts]:
    """Every domain's direction in its part along the mean of the *other* domains' unit vectors, and the rest. Without
    its own domain nothing is shared by construction. Null: random directions, of the stream where `rows` are given.

    Raises ValueError for fewer than 3 domains. Source of the distinction: arXiv 2602.07852 (narrow solutions exist and
    are less stable); there the parts are trained, here they are taken apart.
    """
    if len(directions) < 3:
        raise ValueError(f"general_and_narrow of {len(directions)} domains: expected at least 3.")
    units = {name: unit_rows(np.mean([one.unit for one in own], axis=0)) for name, own in directions.items()}
    out = {}
    for name, own in directions.items():
        whole = Directions.of(own[0].sites, np.mean([one.vectors for one in own], axis=0), **_facts(own))
        shared = unit_rows(np.mean([unit for other, unit in units.items() if other != name], axis=0))
        amount = np.einsum("sd,sd->s", whole.vectors, shared)
        along = Directions.of(whole.sites, amount[:, None] * shared, **_facts(own))
        common = Directions.of(whole.sites, shared, **_facts(own)).replace(kind="common to the other domains")
        general = along.replace(kind="general part")
        narrow = Directions.of(whole.sites, whole.vectors - along.vectors, **_facts(own)).replace(kind="narrow part")
        share = np.divide(amount**2, whole.norm**2, out=np.zeros(len(amount)), where=whole.norm > 0)
        null = np.stack([_cos2(shared[i], rows, site, draws, seed) for i, site in enumerate(whole.sites)])
        p = np.array([p_value(value, drawn) for value, drawn in zip(share, null, strict=True)])
        ends = np.quantile(null, [0.05, 0.95], axis=1).T
        out[name] = Parts(whole, common, general, narrow, share, ends, p, ISOTROPIC if rows is None else STREAM, draws)
    return out


@dataclass(frozen=True, eq=False)
class Landmark(Printed):
    """How near each domain's direction lies to a known one: `cosine` [domain, site], its 5 to 95 % for random
    directions of the `kind`, `null` [site, 2], and `p` [domain, site], two-sided, familywise over the domains."""

    domains: tuple[str, ...]
    sites: tuple[Site, ...]
    cosine: Float[np.ndarray, "domain site"]
    null: Float[np.ndarray, "site 2"]
    p: Float[np.ndarray, "domain site"]
    kind: str
    draws: int


def near_landmarks(
    directions: Mapping[str, Sequence[Directions]],
    landmarks: Mapping[str, Directions],
    rows: RowSource | None = None,
    *,
    draws: int = 499,
    seed: int = 0,
) -> dict[str, Landmark]:
    """Landmark -> the cosines of every domain's direction with it. A landmark is any direction of the same model and
    sites: what a persona's system prompt moves, or one that was published."""
    sites = next(iter(directions.values()))[0].sites
    units = np.stack([unit_rows(np.mean([one.unit for one in own], axis=0)) for own in directions.values()])
    out = {}
    for name, mark in landmarks.items():
        known = mark[list(sites)].unit
        cosine = np.einsum("nsd,sd->ns", units, known)
        drawn = [_along(known[i], rows, site, draws, seed, len(units)) for i, site in enumerate(sites)]
        largest = [np.abs(one).max(axis=1) for one in drawn]
        p = [[p_value(abs(value), largest[i]) for i, value in enumerate(row)] for row in cosine]
        ends = np.stack([np.quantile(one, [0.05, 0.95]) for one in drawn])
        kind = ISOTROPIC if rows is None else STREAM
        out[name] = Landmark(tuple(directions), sites, cosine, ends, np.array(p), kind, draws)
    return out


def _facts(own: Sequence[Directions]) -> dict[str, Any]:
    first = own[0]
    return {"origin": first.origin, "model": first.model, "scope": first.scope, "residual_norm": first.residual_norm,
            "kind": first.kind, "n_positive": first.n_positive, "n_negative": first.n_negative}  # fmt: skip


def _along(
    unit: Float[np.ndarray, " d_model"], rows: RowSource | None, site: Site, draws: int, seed: int, n: int = 1
) -> Float[np.ndarray, "draw n"]:
    stream = None if rows is None else stream_rows(rows, site)
    return drawn_units(n, unit[None], draws, rows=stream, seed=seed).along[:, :, 0]


def _cos2(
    unit: Float[np.ndarray, " d_model"], rows: RowSource | None, site: Site, draws: int, seed: int
) -> Float[np.ndarray, " draw"]:
    return _along(unit, rows, site, draws, seed)[:, 0] ** 2
