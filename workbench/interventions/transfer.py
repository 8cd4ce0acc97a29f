"""fit_transfer: joins the rows of two models, pairs their layers, and fits a map a site; fit_transfers: several kinds
of map on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_args

import numpy as np

from hooks.site import Site
from workbench.interventions.linear_maps import Method, Reduced
from workbench.interventions.maps import TransferMap
from workbench.interventions.maps_fitted import fit_sites
from workbench.interventions.maps_folds import cuts, folded_r2, folds_of, unbiased_cka
from workbench.interventions.maps_tested import Pair
from workbench.interventions.transfer_layers import RULES, Layers, Scores, by_depth, scored_layers, told_layers
from workbench.interventions.transfer_rows import PairBy, held_out_mask, matched_rows, one_scope
from workbench.subspace.rows import RowSource

METHODS: tuple[Method, ...] = get_args(Method)


def fit_transfer(
    source: RowSource,
    target: RowSource,
    *,
    method: Method = "procrustes",
    layers: Layers = "depth",
    pair_by: PairBy = "prompt",
    at: str | None = None,
    held_out: float = 0.25,
    family: str | None = None,
    ridge: float | int = 1e-2,
    rank: int | None = None,
    scaled: bool = False,
    seed: int = 0,
) -> TransferMap:
    """A TransferMap from the source's model to the target's, one map a target site, fitted on rows of the same prompts.

    Rows are joined by prompt id, and by variant where a prompt has several rows; `.matched` says how many were. A share
    `held_out` of the *prompts* is kept from fitting and gives `.r2`; prompts with one value of the tag `family` (one
    question under several personas, say) are kept out together, and count as one in intervals. method: "identity"
    (equal widths, nothing fitted: for fine-tunes of one base), "procrustes" (a rotation; lengths stay unless `scaled`),
    "ridge" (any linear map; `ridge` is relative to the mean squared singular value of the source rows), "low_rank" (a
    ridge map through at most `rank` dimensions; None chooses by folds of the training prompts, anew in every shuffled
    refit). Procrustes from a wider to a narrower model has no closed form: it is fitted from target to source and
    transposed, and the map says so in `.reversed`.

    layers: "depth" gives each target layer the captured source layer at the nearest relative depth, layer / (layers -
    1); "cka" the one whose training rows are most alike (debiased linear CKA); "r2" the one that a map of this method
    predicts it from best, over folds of the training prompts (three fits for each pair of layers); a dict says it
    itself, {target layer: source layer}, as `.layer_of` reads. Layer counts come from `info["n_layers"]`, else from the
    deepest layer captured. No choice looks at the held-out prompts; `.layer_scores` keeps what was compared.

    pair_by: "token" pairs the tokens of models with one tokenizer (same prompt, position and token id),
    `wb.token_pairs(...)` those of two tokenizers. `at` is checked against the scope of both sides. `seed` is the
    split's.

    Raises ValueError when no prompt matches, a prompt has several rows a variant (capture a pooled scope, or pair by
    token), the scopes differ, or a site named in `layers` does not vary; by rule such sites are left out and named in
    `.skipped`. Memory: all matched rows of all mapped sites, in float64.
    """
    same: dict[str, Any] = {"layers": layers, "pair_by": pair_by, "at": at, "held_out": held_out, "seed": seed}
    same |= {"ridge": ridge, "rank": rank, "scaled": scaled, "family": family}
    fitted = fit_transfers(source, target, methods=[method], **same)
    return fitted[method]


def fit_transfers(
    source: RowSource,
    target: RowSource,
    *,
    methods: Sequence[Method] | None = None,
    layers: Layers = "depth",
    pair_by: PairBy = "prompt",
    at: str | None = None,
    held_out: float = 0.25,
    family: str | None = None,
    ridge: float | int = 1e-2,
    rank: int | None = None,
    scaled: bool = False,
    seed: int = 0,
) -> dict[Method, TransferMap]:
    """A TransferMap for each method (default: all that the widths allow), all fitted and tested on the same rows.

    See `wb.fit_transfer`; rows are read and decomposed once for all of them.
    """
    wanted = tuple(METHODS if methods is None else methods)
    if unknown := [one for one in wanted if one not in METHODS]:
        raise ValueError(f"method={unknown[0]!r} is unknown: expected one of {', '.join(METHODS)}.")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out={held_out}: expected a share of the prompts between 0 and 1, such as 0.25.")
    if rank is not None and rank < 1:
        raise ValueError(f"rank={rank}: expected 1 or more dimensions, or None to choose by folds.")
    if not isinstance(layers, Mapping) and layers not in RULES:
        raise ValueError(
            f"layers={layers!r} is unknown: expected {', '.join(RULES)} or {{target layer: source layer}}."
        )
    work = _Work(source, target, one_scope(source, target, at), pair_by, family)
    work.split(held_out, seed)
    facts = {"ridge": ridge, "rank_asked": rank, "scaled": scaled}
    found: dict[Method, TransferMap] = {}
    for method in wanted:
        layer_of, scores, skipped = work.layers(layers, method, ridge, rank)
        pairs = {site: work.pair(site, one) for site, one in layer_of.items()}
        widths = {(pair.held_source.shape[1], pair.held_target.shape[1]) for pair in pairs.values()}
        if method == "identity" and any(a != b for a, b in widths):
            if methods is None:
                continue
            raise ValueError(f"the identity map needs equal widths; {sorted(widths)} came. Use procrustes or ridge.")
        fits = fit_sites(pairs, method, ridge=ridge, scaled=scaled, rank=rank)
        found[method] = TransferMap(
            method=method,
            layer_of=layer_of,
            r2=fits.r2,
            scale=fits.scale,
            maps=fits.maps,
            pairs=pairs,
            skipped=skipped,
            layers="given" if isinstance(layers, Mapping) else layers,
            layer_scores=scores,
            reversed=method == "procrustes" and any(a > b for a, b in widths),
            **facts,
            **work.facts(),
        )
    return found


class _Work:
    """The joined rows of two models and their decompositions, each site read once."""

    def __init__(self, source: RowSource, target: RowSource, scope: str, pair_by: PairBy, family: str | None) -> None:
        self.source, self.target, self.scope, self.pair_by, self.family = source, target, scope, pair_by, family
        self.join = matched_rows(source, target, pair_by, family)
        self.here, self.there, self.pair = cache(self._here), cache(self._there), cache(self._pair)
        self.folds = cache(lambda site: folds_of(self.here(site)[0], self.cuts))

    def split(self, share: float, seed: int) -> None:
        """Holds out a share of the families, and cuts the rest into folds."""
        self.held = held_out_mask(self.join.families, share, np.random.default_rng(seed))
        self.cuts = tuple(cuts(self.join.numbered(~self.held)))
        self.held_prompts = self.join.numbered(self.held)

    def _here(self, site: Site) -> tuple[Reduced, np.ndarray]:
        x = np.asarray(self.source.values(site, np.float64), np.float64)[self.join.left]
        return Reduced.of(x[~self.held]), x[self.held]

    def _there(self, site: Site) -> tuple[Reduced, np.ndarray]:
        y = np.asarray(self.target.values(site, np.float64), np.float64)[self.join.right]
        return Reduced.of(y[~self.held]), y[self.held]

    def _pair(self, there: Site, here: Site) -> Pair:
        (x, held_x), (y, held_y) = self.here(here), self.there(there)
        return Pair(x, y, held_x, held_y, self.held_prompts, self.cuts)

    def layers(
        self, layers: Layers, method: Method, ridge: float | int, rank: int | None
    ) -> tuple[dict[Site, Site], Scores, dict[Site, str]]:
        """Source site of each target site, the scores they were chosen by, and target sites without a map."""
        scores: Scores = {}
        if isinstance(layers, Mapping):
            layer_of = told_layers(self.source, self.target, layers)
        else:
            candidates = by_depth(self.source, self.target)
            layer_of = {site: nearest for site, (nearest, *_) in candidates.items()}
            if layers != "depth":
                varying = {
                    site: usable
                    for site, sources in candidates.items()
                    if len(self.there(site)[0].scales)
                    and (usable := [one for one in sources if len(self.here(one)[0].scales)])
                }
                chosen, scores = scored_layers(varying, self._score(layers, method, ridge, rank))
                layer_of |= chosen
        skipped: dict[Site, str] = {}
        for there, here in layer_of.items() if method != "identity" else ():
            constant = [
                str(site)
                for site, rows in ((here, self.here(here)[0]), (there, self.there(there)[0]))
                if not len(rows.scales)
            ]
            if constant:
                skipped[there] = (
                    f"the rows do not vary at {' and '.join(constant)} (of the source and target, in that order)"
                )
        if skipped and (isinstance(layers, Mapping) or len(skipped) == len(layer_of)):
            there, reason = next(iter(skipped.items()))
            raise ValueError(f"no map to {there}: {reason}. Leave that layer out of layers=.")
        return {site: one for site, one in layer_of.items() if site not in skipped}, scores, skipped

    def _score(self, rule: str, method: Method, ridge: float | int, rank: int | None) -> Any:
        def cka(there: Site, here: Site) -> float:
            return unbiased_cka(self.here(here)[0], self.there(there)[0])

        def r2(there: Site, here: Site) -> float:
            x, y = self.here(here)[0], self.there(there)[0]
            if method == "identity" and len(x.mean) != len(y.mean):
                return np.nan
            return folded_r2(self.folds(here), x, y, method, ridge=ridge, rank=rank)

        return cka if rule == "cka" else r2

    def facts(self) -> dict[str, Any]:
        """What a map says of the rows it came from."""
        return {
            "matched": len(self.join),
            "prompts": len(set(self.join.prompts)),
            "only_source": self.join.only_left,
            "only_target": self.join.only_right,
            "n_train": int((~self.held).sum()),
            "n_held_out": int(self.held.sum()),
            "source_model": str(self.source.info.get("model", "")),
            "target_model": str(self.target.info.get("model", "")),
            "scope": self.scope,
            "shuffle": "",
            "pair_by": self.pair_by,
            "family": self.family,
            "train_rows": (self.source, self.join.left[~self.held]),
        }
