"""Decompositions of a shift, and how far two of them agree, as entries of `summary.json`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from hooks.site import Site
from workbench.behaviour.table_summary import plain_entry
from workbench.subspace.shift_against import ShiftComparison
from workbench.subspace.shift_overlap import ShiftOverlap
from workbench.subspace.shift_result import UNSCALED, ShiftPCA, channel_share
from workbench.subspace.shift_rows import VARIANTS

ISOTROPIC_DRAWS = 999
KS = ("k_50", "k_80", "k_90", "k_95")
Entry = dict[str, Any]


def comparison_entries(found: ShiftComparison, *, condition: str, **facts: Any) -> list[Entry]:
    """`shift_entries` of a fine-tune, and of the benign one under CONDITION_benign."""
    out = shift_entries(found.tuned, condition=condition, **facts)
    return out if found.benign is None else out + shift_entries(found.benign, condition=f"{condition}_benign", **facts)


def shift_entries(found: ShiftPCA, *, condition: str, **facts: Any) -> list[Entry]:
    """Every number of one decomposition, site by site; `detail` is its variant (and scale). Curves and thresholds that
    belong to a number are its `series`.

    `shift_variance`: what the first k (`coefficient`) components hold together, with the p of its null; series: the
    share of each, the null's 5 and 95 % and its p, and the null of all k together. `shift_k_90`, with 50, 80, 90 and
    95 % as series `k`; `shift_participation_ratio`, `shift_effective_rank`; `shift_above_null`, leading components
    beyond the null (series: beyond the Marchenko-Pastur edge). `shift_top_10`: share of component 1 in its ten largest
    coordinates beside isotropic vectors (series: in the largest one). Variants that hold the mean shift state
    `shift_norm` with its test, and `shift_mean_top_10` of it. Under a scale `shift_read_write` is the cosine of
    component 1 as read-out and as write vector. A site where nothing moved is one entry, `shift_unchanged`; one that
    could not be decomposed is `shift_skipped`, with the reason as its target.
    """
    name = found.variant if found.scale == UNSCALED else f"{found.variant}, scale {found.scale}"
    same = {"condition": condition, "modality": "all", "detail": name, **facts}
    out = [entry for place, site in enumerate(found.sites) for entry in _at_site(found, place, site, same)]
    for site, reason in found.skipped.items():
        metric = "shift_unchanged" if site in found.unchanged else "shift_skipped"
        said = {} if metric == "shift_unchanged" else {"target": reason}
        out.append(plain_entry(metric, 1.0, found.n, {**same, "layer": site.layer, **said}))
    return out


def _at_site(found: ShiftPCA, place: int, site: Site, same: dict[str, Any]) -> list[Entry]:
    spectrum, k, n = found.spectrum, found.k, found.n
    here = {**same, "layer": site.layer}
    shares = spectrum.explained[place, :k]
    series = {"share": shares.tolist()}
    held: dict[str, Any] = {"coefficient": float(k)}
    if spectrum.null is not None and spectrum.null_p is not None:
        series |= {"null_low": spectrum.null[place, :, 0].tolist(), "null_high": spectrum.null[place, :, 1].tolist()}
        series["p"] = spectrum.null_p[place].tolist()
    if found.null_together is not None and found.null_together_p is not None:
        p = float(found.null_together_p[place, -1])
        held["control"] = {"kind": spectrum.null_kind, "N": spectrum.draws, "p": p, "draws": []}
        series["null_together"] = found.null_together[place, -1].tolist()
    out = [{**plain_entry("shift_variance", float(shares.sum()), n, {**here, **held}), "series": series}]
    row = found[site].rows()[0]
    out.append({**plain_entry("shift_k_90", float(row["k_90"]), n, here), "series": {"k": [row[one] for one in KS]}})
    out += [plain_entry(f"shift_{one}", float(row[one]), n, here) for one in ("participation_ratio", "effective_rank")]
    if row["above_null"] is not None:
        edge = [] if row["above_edge"] is None else [row["above_edge"]]
        out.append({**plain_entry("shift_above_null", float(row["above_null"]), n, here), "series": {"edge": edge}})
    out.append(_channels("shift_top_10", found.reads[place, 0], n, here))
    if found.between is not None:
        out.append(plain_entry("shift_between", float(found.between[place]), n, here))
    if found.scale != UNSCALED:
        read, write = found.reads[place, 0], found.writes[place, 0]
        cosine = float(read @ write / np.linalg.norm(read) / np.linalg.norm(write))
        out.append(plain_entry("shift_read_write", cosine, n, here))
    if VARIANTS[found.variant].mean and found.scale == UNSCALED:
        test = None if found.mean_test is None else found.mean_test[site]
        stated = {} if test is None else {"test": {"p": test.p, "method": test.method}}
        out.append(plain_entry("shift_norm", row["shift_norm"], found.matched or n, {**here, **stated}))
        out.append(_channels("shift_mean_top_10", found.shift[place], n, here))
    return out


def overlap_entries(found: ShiftOverlap, *, condition: str, **facts: Any) -> list[Entry]:
    """`shift_overlap` and `shift_cosine` of two shifts at each site; each with the p of its null, and the null itself
    as `series`. `coefficient` is the number of dimensions, `detail` what is compared."""
    same = {"condition": condition, "modality": "all", "detail": " against ".join(found.names), **facts}
    out = []
    for site, one in found.sites.items():
        here = {**same, "layer": site.layer, "coefficient": float(max(found.k))}
        null = {"kind": "random subspaces", "N": found.draws, "p": one.p, "draws": []}
        entry = plain_entry("shift_overlap", one.overlap, found.n, {**here, "control": null})
        out.append({**entry, "series": {"null": list(one.null), "chance": [one.chance]}})
        if one.cosine is not None and one.cosine_null is not None:
            test = {"p": one.cosine_p, "method": "beta law of the squared cosine of random directions, exact"}
            entry = plain_entry("shift_cosine", one.cosine, found.n, {**here, "coefficient": None, "test": test})
            out.append({**entry, "series": {"null": list(one.cosine_null)}})
    return out


def _channels(metric: str, vector: np.ndarray, n: int, here: dict[str, Any]) -> Entry:
    """The share of a vector's squared norm in its ten largest coordinates, with that of its largest one."""
    d_model = len(vector)
    shares = {count: float(channel_share(vector, min(count, d_model))) for count in (1, 10)}
    drawn = {count: _isotropic(min(count, d_model), d_model) for count in shares}
    p = float((1 + (drawn[10] >= shares[10] * (1 - 1e-12)).sum()) / (1 + ISOTROPIC_DRAWS))
    control = {"kind": "isotropic directions", "N": ISOTROPIC_DRAWS, "p": p, "draws": []}
    series = {"top_1": [shares[1]]}
    series |= {f"null_{count}": np.quantile(one, [0.05, 0.95]).tolist() for count, one in drawn.items()}
    return {**plain_entry(metric, shares[10], n, {**here, "control": control}), "series": series}


@lru_cache
def _isotropic(count: int, d_model: int) -> np.ndarray:
    """What share of a random direction its largest coordinates hold."""
    drawn = np.random.default_rng(0).standard_normal((ISOTROPIC_DRAWS, d_model))
    return channel_share(drawn, count)
