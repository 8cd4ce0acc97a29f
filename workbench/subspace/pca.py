"""PCA of captured rows, a site at a time, with a null band that can tell structure from noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import scipy.linalg
from jaxtyping import Float

from hooks.site import Site
from workbench.subspace.basis import CONSTANT, UNCHANGED, Subspace, refuse_skipped, signed, too_few
from workbench.subspace.moments import NO_NULL, Moments
from workbench.subspace.rows import RowSource, Sites, chosen_sites, listed, narrowed, one_width, site_among
from workbench.subspace.streamed import StreamedMoments
from workbench.subspace.streamed_pca import pca_of_sums

NULLS = {"signs": "entrywise random signs", "columns": "columns permuted independently"}
LEAST_DRAWS = 99


def pca(
    rows: RowSource | Mapping[Any, Moments] | StreamedMoments,
    k: int = 10,
    *,
    center: bool = True,
    null: Literal["signs", "columns"] | None = "signs",
    draws: int = 99,
    seed: int = 0,
    sites: Sites = None,
) -> Subspace:
    """The k leading principal components a site, their whole spectrum, and the band the spectrum of noise would lie in.

    For a shift give it `store.difference("tuned", "base")`: center=True (the default) then describes how the shift
    *varies* from prompt to prompt and leaves out the mean shift; center=False keeps it, mostly as component 0.
    `null="signs"` flips the sign of every entry at random, `"columns"` permutes every column on its own; both keep the
    size of each coordinate, run on the centred rows, are centred again, and destroy what coordinates share. (Flipping
    whole rows or permuting labels leaves the spectrum exactly as it was and is no null for it.) After a strong first
    component the band is wide for the later ones, so it errs on the side of too few components.
    `rows` may also be what `wb.moments` gave, or map sites to `Moments`; these carry no rows, so null must be None.
    From a sketch the result states the `bound` of its variances.

    With sites=None, sites that cannot be decomposed (all rows zero, or constant, or fewer than k components) are left
    out and named in `.skipped`; a site that was asked for by name is refused instead.
    Signs: the coordinate of largest size is positive; `.oriented(v)` fixes them by a contrast.
    Cost a site: one thin SVD, and `draws` Gram matrices of side min(n, d_model) with their top eigenvalues, float64; at
    1966 x 2560 on one core 3 s and 70 s for 99 draws.
    """
    if isinstance(rows, Mapping | StreamedMoments):
        if null is not None:
            raise ValueError(
                f"null={null!r} needs rows, and Moments keep none ({NO_NULL}): pass null=None and report the spectrum "
                "without a band, or give pca the rows."
            )
        if isinstance(rows, StreamedMoments):
            return pca_of_sums(rows, k, center=center, sites=sites)
        return _of_moments(rows, k, center, sites)
    if null is not None and null not in NULLS:
        raise ValueError(f"null={null!r} is unknown: expected 'signs', 'columns' or None.")
    if null is not None and not center:
        raise ValueError("center=False has no null: signs and permutations destroy the mean it keeps. Pass null=None.")
    if null is not None and draws < LEAST_DRAWS:
        raise ValueError(
            f"draws={draws} is too few for a 5 % to 95 % band: expected at least {LEAST_DRAWS}, or null=None."
        )
    wanted = chosen_sites(rows, sites)
    one_width(rows, wanted)
    rows = narrowed(rows, wanted)
    parts: dict[Site, dict[str, np.ndarray]] = {}
    skipped: dict[Site, str] = {}
    for index, site in enumerate(wanted):
        values = np.asarray(rows.values(site, np.float64), np.float64)
        reason = UNCHANGED if not values.any() else CONSTANT if center and np.all(values == values[0]) else None
        part, centred = ({}, values) if reason else _decomposed(values, k, center)
        if reason := reason or too_few(part["variance"], k):
            skipped[site] = reason
            continue
        if null is not None:
            part |= _null(
                centred, part["variance"][:k] / part["total"], null, draws, np.random.default_rng([seed, index])
            )
        parts[site] = part
    refuse_skipped(skipped, asked=sites is not None, left=len(parts))
    stacked = {name: np.stack([part[name] for part in parts.values()]) for name in next(iter(parts.values()))}
    return Subspace(
        sites=tuple(parts),
        n=len(rows),
        origin=None if rows.matched is not None else stacked["mean"],
        null_kind="none" if null is None else NULLS[null],
        draws=0 if null is None else draws,
        centred=center,
        model=str(rows.info.get("model", "")),
        scope=str(rows.info.get("scope", "")),
        skipped=skipped,
        **stacked,
    )


def _decomposed(
    values: Float[np.ndarray, "row d_model"], k: int, center: bool
) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "row d_model"]]:
    mean = values.mean(axis=0)
    centred = values - mean if center else values
    freedom = len(values) - 1 if center else len(values)
    _, scales, right = scipy.linalg.svd(centred, full_matrices=False, lapack_driver="gesdd", check_finite=False)
    variance = scales[: min(freedom, values.shape[1])] ** 2 / freedom
    total = np.array((scales**2).sum() / freedom)
    return {"basis": signed(right[:k]), "variance": variance, "mean": mean, "total": total}, centred


def _null(
    centred: Float[np.ndarray, "row d_model"], observed: np.ndarray, kind: str, draws: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    k = len(observed)
    shares = np.empty((draws, k))
    for draw in range(draws):
        broken = with_random_signs(centred, rng) if kind == "signs" else rng.permuted(centred, axis=0)
        broken -= broken.mean(axis=0)
        shares[draw] = top_shares(broken, k)
    band = np.quantile(shares, [0.05, 0.95], axis=0).T
    return {"null": band, "null_p": (1 + (shares >= observed).sum(axis=0)) / (1 + draws)}


def with_random_signs(
    values: Float[np.ndarray, "row d_model"], rng: np.random.Generator
) -> Float[np.ndarray, "row d_model"]:
    """The same entries, each with a random sign of its own; one random bit an entry."""
    bits = np.unpackbits(np.frombuffer(rng.bytes(-(-values.size // 8)), np.uint8), count=values.size)
    return values * (bits.reshape(values.shape) * 2.0 - 1.0)


def top_shares(values: Float[np.ndarray, "row d_model"], k: int) -> Float[np.ndarray, " k"]:
    """Shares of the total energy in the k leading components, through the smaller Gram matrix; no vectors."""
    gram = values @ values.T if len(values) <= values.shape[1] else values.T @ values
    side = len(gram)
    top = scipy.linalg.eigh(gram, eigvals_only=True, subset_by_index=[side - k, side - 1], check_finite=False)
    return np.clip(top[::-1], 0.0, None) / np.trace(gram)


def _of_moments(
    moments: Mapping[Any, Moments],
    k: int,
    center: bool,
    sites: Sites,
) -> Subspace:
    named = {Site.parse(site): one for site, one in moments.items()}
    there = tuple(named)
    wanted = there if sites is None else tuple(site_among(there, one) for one in listed(sites))
    if len({(named[site].count, named[site].d_model) for site in wanted}) > 1:
        raise ValueError(
            "these Moments saw different numbers of rows, or widths: one result holds one of each. Pass sites=."
        )
    skipped = {site: reason for site in wanted if (reason := named[site].refusal(k, center=center))}
    refuse_skipped(skipped, asked=sites is not None, left=len(wanted) - len(skipped))
    parts = [named[site].pca(k, center=center, site=site) for site in wanted if site not in skipped]
    joint = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("basis", "variance", "mean", "total")
    }
    return Subspace(
        sites=tuple(site for site in wanted if site not in skipped),
        basis=joint["basis"],
        variance=joint["variance"],
        mean=joint["mean"],
        total=joint["total"],
        n=parts[0].n,
        origin=joint["mean"],
        null_kind=NO_NULL,
        centred=center,
        skipped=skipped,
    )
