"""fit_transfer: joins the rows of two models by prompt, pairs their layers, and fits a map a site."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from hooks.site import Site
from workbench.interventions.linear_maps import Method, Pair, Reduced, fit_sites
from workbench.interventions.maps import TransferMap
from workbench.subspace.rows import Join, RowSource, chosen_sites, joined, site_among

FEWEST_PROMPTS = 8  # 6 to fit on and 2 to hold out: below that neither the map nor its R² means anything


def fit_transfer(
    source: RowSource,
    target: RowSource,
    *,
    method: Method = "procrustes",
    layers: Literal["depth"] | Mapping[Any, Any] = "depth",
    at: str | None = None,
    held_out: float = 0.25,
    ridge: float | int = 1e-2,
    scaled: bool = False,
    seed: int = 0,
) -> TransferMap:
    """A TransferMap from the source's model to the target's, one map a target site, fitted on rows of the same prompts.

    Rows are joined by prompt id, and by variant where a prompt has several rows; `.matched` says how many were. A share
    `held_out` of the *prompts* is kept from fitting and gives `.r2`. method: "identity" (equal widths, nothing fitted:
    for fine-tunes of one base), "procrustes" (a rotation; lengths stay unless `scaled`), "ridge" (any linear map;
    `ridge` is relative to the mean squared singular value of the source rows). Procrustes from a wider to a narrower
    model has no closed form: it is fitted from target to source and transposed, and the map says so in `.reversed`.
    layers: "depth" gives each target layer the captured source layer at the nearest relative depth, layer / (layers -
    1); a dict says it itself, {target layer: source layer}, as `.layer_of` reads. Layer counts come from
    `info["n_layers"]`, else from the deepest layer captured. `at` is checked against the scope of both sides.

    Raises ValueError when no prompt matches, a prompt has several rows a variant (capture a pooled scope), the scopes
    differ, or a site named in `layers` does not vary; with "depth" such sites are left out and named in `.skipped`.
    Memory: all matched rows of all mapped sites, in float64.
    """
    if method not in get_args(Method):
        raise ValueError(f"method={method!r} is unknown: expected one of {', '.join(get_args(Method))}.")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out={held_out}: expected a share of the prompts between 0 and 1, such as 0.25.")
    scope = _one_scope(source, target, at)
    layer_of = _paired_layers(source, target, layers)
    join = joined(*_keys(source, target), names=("the source", "the target"))
    prompts = [source.prompt_ids[int(i)] for i in join.left]
    held = _held_out(prompts, held_out, np.random.default_rng(seed))

    pairs: dict[Site, Pair] = {}
    skipped: dict[Site, str] = {}
    for there, here in layer_of.items():
        pair = _pair(source, target, here, there, join, held)
        constant = [str(site) for site, part in ((here, pair.source), (there, pair.target)) if not len(part.scales)]
        if constant and method != "identity":
            skipped[there] = (
                f"the rows do not vary at {' and '.join(constant)} (of the source and target, in that order)"
            )
        else:
            pairs[there] = pair
    if skipped and (layers != "depth" or not pairs):
        there, reason = next(iter(skipped.items()))
        raise ValueError(f"no map to {there}: {reason}. Leave that layer out of layers=.")
    widths = {(pair.held_source.shape[1], pair.held_target.shape[1]) for pair in pairs.values()}
    if method == "identity" and any(a != b for a, b in widths):
        raise ValueError(f"the identity map needs equal widths; {sorted(widths)} came. Use procrustes or ridge.")
    fits = fit_sites(pairs, method, ridge=ridge, scaled=scaled)
    return TransferMap(
        method=method,
        layer_of={site: layer_of[site] for site in pairs},
        r2=fits.r2,
        scale=fits.scale,
        matched=join.matched,
        prompts=len(set(prompts)),
        only_source=join.only_left,
        only_target=join.only_right,
        n_train=int((~held).sum()),
        n_held_out=int(held.sum()),
        reversed=method == "procrustes" and any(a > b for a, b in widths),
        source_model=str(source.info.get("model", "")),
        target_model=str(target.info.get("model", "")),
        scope=scope,
        ridge=ridge,
        scaled=scaled,
        shuffle="",
        skipped=skipped,
        maps=fits.maps,
        pairs=pairs,
        train_rows=(source, join.left[~held]),
    )


def _pair(source: RowSource, target: RowSource, here: Site, there: Site, join: Join, held: np.ndarray) -> Pair:
    x = np.asarray(source.values(here, np.float64), np.float64)[join.left]
    y = np.asarray(target.values(there, np.float64), np.float64)[join.right]
    return Pair(Reduced.of(x[~held]), Reduced.of(y[~held]), x[held], y[held])


def _keys(source: RowSource, target: RowSource) -> tuple[Sequence[Hashable], Sequence[Hashable]]:
    """Prompt ids where unique on both sides, so that variants of different names still pair; else with variant."""
    both = (source.prompt_ids, target.prompt_ids)
    if all(len(set(ids)) == len(ids) for ids in both):
        return both
    return list(zip(both[0], source.variants, strict=True)), list(zip(both[1], target.variants, strict=True))


def _held_out(prompts: Sequence[str], share: float, rng: np.random.Generator) -> np.ndarray:
    """Mask of the held-out rows; all rows of a prompt fall on the same side."""
    names = sorted(set(prompts))
    if len(names) < FEWEST_PROMPTS:
        raise ValueError(f"{len(names)} prompts match: expected at least {FEWEST_PROMPTS} to fit a map and to test it.")
    count = min(max(2, round(share * len(names))), len(names) - 2)
    held = {names[i] for i in rng.permutation(len(names))[:count]}
    return np.array([prompt in held for prompt in prompts])


def _one_scope(source: RowSource, target: RowSource, at: str | None) -> str:
    scopes = [str(rows.info["scope"]) for rows in (source, target) if rows.info.get("scope")]
    # A store of both towers states a scope for each: "language last, vision image".
    wrong = at is not None and any(at != one and f"language {at}" not in one.split(", ") for one in scopes)
    if len(set(scopes)) > 1 or wrong:
        raise ValueError(
            f"the rows come from the scopes {scopes}{f' and at={at!r} was asked for' if wrong else ''}: a map needs "
            "one scope on both sides. Capture both with the same at=."
        )
    return next(iter(scopes), at or "")


def _paired_layers(
    source: RowSource, target: RowSource, layers: Literal["depth"] | Mapping[Any, Any]
) -> dict[Site, Site]:
    here, there = chosen_sites(source, None), chosen_sites(target, None)
    if isinstance(layers, Mapping):
        if not layers:
            raise ValueError("layers={} maps nothing: expected {target layer: source layer}, such as {5: 4}.")
        return {site_among(there, t): site_among(here, s) for t, s in layers.items()}
    if layers != "depth":
        raise ValueError(f"layers={layers!r} is unknown: expected 'depth' or {{target layer: source layer}}.")
    found: dict[Site, Site] = {}
    for site in there:
        candidates = [one for one in here if one.stream == site.stream]
        if candidates:
            depth = site.layer / max(_n_layers(target, site, there) - 1, 1)
            last = max(_n_layers(source, site, here) - 1, 1)
            found[site] = min(candidates, key=lambda one: (abs(one.layer / last - depth), one.layer))
    if not found:
        raise ValueError(
            f"no stream in common: {', '.join(source.sites)} against {', '.join(target.sites)}. Use layers={{...}}."
        )
    return found


def _n_layers(rows: RowSource, site: Site, captured: Sequence[Site]) -> int:
    stated = rows.info.get("n_layers") if site.tower == "language" else None
    return int(stated) if stated else 1 + max(one.layer for one in captured if one.stream == site.stream)
