"""What `wb.convergence` and its kin found as entries of `summary.json`; every metric's name begins with
"convergence_"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hooks.site import Site
from workbench.behaviour.convergence_effects import PartEffect
from workbench.behaviour.domain_weights import DomainWeights
from workbench.behaviour.table_summary import plain_entry
from workbench.subspace.convergence_parts import Landmark, Parts
from workbench.subspace.convergence_result import Convergence, ConvergenceAt
from workbench.subspace.grassmann_matrix import FrameMatrix
from workbench.training.weight_shift_bridge import Bridge

Entry = dict[str, Any]
JACKKNIFE = "jackknife 95% over domains"


def convergence_entries(
    found: Convergence, *, condition: str, pairs_at: int | None = None, prompts: int | None = None
) -> list[Entry]:
    """`convergence_mean`, `_rank`, `_shared` and each `_component` by layer (n: domains), and at the layer `pairs_at`
    the `convergence_cosine` of all pairs (condition and target: the two domains, the same one twice: between its
    fine-tunings; detail: the `condition` given here). `prompts`: the fewest that a direction was fitted on."""
    out = []
    for site, at in found.sites.items():
        out += _of_site(found, site, at, condition)
        if site.layer == pairs_at:
            out += _pairs(found, site, at, condition)
    if prompts is not None:
        out[0]["series"]["prompts"] = [prompts]
    return out


def _of_site(found: Convergence, site: Site, at: ConvergenceAt, condition: str) -> list[Entry]:
    here = _place(site.layer, condition, clusters=len(found.domains))
    hardest, n = list(at.p)[-1], len(found.domains)
    stated = {} if at.interval is None else {"interval": list(at.interval), "interval_method": JACKKNIFE}
    ceiling = float(np.mean(list(at.within.values()))) if at.within else None
    series = {f"null {kind}": list(ends) for kind, ends in at.null.items()}
    series |= {} if ceiling is None else {"between seeds": [ceiling]}
    mean = plain_entry("convergence_mean", at.mean, n, {**here, **stated, "control": _control(hardest, found, at.p)})
    ranks = {f"null {kind}": list(ends) for kind, ends in at.null_rank.items()}
    shared = plain_entry("convergence_shared", float(at.shared), n, {**here, "detail": said_groups(at)})
    out: list[Entry] = [
        {**mean, "series": series},
        {**plain_entry("convergence_rank", at.effective_rank, n, here), "series": ranks},
        {**shared, "series": {"seeds_alike": list(at.seeds_alike)}},
    ]
    for one in at.components:
        facts = {**here, "coefficient": float(one.number), "target": ", ".join(found.domains)}
        facts |= {
            "control": _control(hardest, found, one.p),
            "detail": " and ".join(found.domains[i] for i in one.pair),
        }
        entry = plain_entry("convergence_component", one.share, n, facts)
        others = {f"p {kind}": [p] for kind, p in one.p.items()}
        out.append({**entry, "series": {"loadings": one.loadings.tolist(), "product": [one.product], **others}})
    return out


def said_groups(at: ConvergenceAt) -> str:
    """The groups in words: "capital color | letter shape; apart: opposite"."""
    grouped = " | ".join(" ".join(group) for group in at.groups) or "none"
    return grouped + (f"; apart: {' '.join(at.apart)}" if at.apart else "")


def _pairs(found: Convergence, site: Site, at: ConvergenceAt, arm: str) -> list[Entry]:
    out = []
    for i, first in enumerate(found.domains):
        if first in at.within:
            out.append(
                plain_entry(
                    "convergence_cosine", at.within[first], 1, _place(site.layer, first, target=first, detail=arm)
                )
            )
        for j, second in enumerate(found.domains):
            if i != j:
                control = {"kind": "largest of all pairs", "N": found.draws, "p": float(at.cosine_p[i, j]), "draws": []}
                facts = _place(site.layer, first, target=second, control=control, detail=arm)
                out.append(plain_entry("convergence_cosine", float(at.cosine[i, j]), 1, facts))
    return out


def landmark_entries(found: Mapping[str, Landmark]) -> list[Entry]:
    """`convergence_landmark`: condition is the domain, target the landmark."""
    out = []
    for name, one in found.items():
        for i, domain in enumerate(one.domains):
            for s, site in enumerate(one.sites):
                control = {"kind": one.kind, "N": one.draws, "p": float(one.p[i, s]), "draws": []}
                entry = plain_entry(
                    "convergence_landmark", float(one.cosine[i, s]), 1,
                    _place(site.layer, domain, target=name, control=control),
                )  # fmt: skip
                out.append({**entry, "series": {"null": one.null[s].tolist()}})
    return out


def frame_entries(found: Mapping[Site, FrameMatrix], *, condition: str) -> list[Entry]:
    """`convergence_overlap` by layer: mean cos² of the principal angles over pairs of domains."""
    out = []
    for site, at in found.items():
        hardest, n = list(at.p)[-1], len(at.overlap)
        control = {"kind": f"random frames, {hardest}", "N": at.draws, "p": at.p[hardest], "draws": []}
        series = {f"null {kind}": list(ends) for kind, ends in at.null.items()}
        series |= {name: [value] for name, value in at.measures.items()} | {"chance": [at.chance]}
        series |= {} if at.within is None else {"between seeds": [at.within]}
        facts = _place(site.layer, condition, control=control, coefficient=float(at.k), clusters=n)
        out.append({**plain_entry("convergence_overlap", at.mean, n, facts), "series": series})
    return out


def part_entries(found: Mapping[str, Parts]) -> list[Entry]:
    """`convergence_general`: the share of a domain's direction along what the other domains have in common."""
    out = []
    for domain, one in found.items():
        for s, site in enumerate(one.own.sites):
            control = {"kind": one.kind, "N": one.draws, "p": float(one.p[s]), "draws": []}
            facts = _place(site.layer, domain, control=control)
            entry = plain_entry("convergence_general", float(one.share[s]), len(found) - 1, facts)
            out.append({**entry, "series": {"null": one.null[s].tolist()}})
    return out


def effect_entries(found: Sequence[PartEffect]) -> list[Entry]:
    """`convergence_effect`: condition is the part, target the domain, split the side of the questions."""
    out = []
    for one in found:
        control = (
            {"kind": "isotropic", "N": len(one.draws), "p": one.p, "draws": list(one.draws)} if one.draws else None
        )
        facts = _place(None, one.part, target=one.domain, split=one.side, control=control, clusters=one.families)
        facts |= {"detail": f"change of {one.measure}, added to the base"}
        if one.interval is not None:
            facts |= {"interval": [one.interval.low, one.interval.high], "interval_method": one.interval.method}
        series = {} if one.kl is None else {"kl": [one.kl]}
        series |= {"noise": list(one.kept), "kept": list(one.kept.values())} if one.kept else {}
        out.append({**plain_entry("convergence_effect", one.change, one.n, facts), "series": series})
    return out


def weight_entries(weights: DomainWeights) -> list[Entry]:
    """`convergence_weights` (within and between domains), of each adapter `convergence_writes`, and `convergence_gate`
    (condition: the adapter, target: the module)."""
    found = weights.cosines
    control = {"kind": "scrambled outputs", "N": found.draws, "p": None, "draws": []}
    gap = {} if found.group_p is None else {"test": {"p": found.group_p, "method": "domains exchanged among adapters"}}
    out: list[Entry] = []
    for name, value in (("between domains", found.between), ("between seeds", found.within)):
        if value is not None and np.isfinite(value):
            entry = plain_entry(
                "convergence_weights", value, len(found.names), _place(None, name, control=control, **gap)
            )
            out.append({**entry, "series": {"null": list(found.null)}})
    for adapter, one in weights.writes.items():
        if one:
            entry = plain_entry("convergence_writes", one["share"], int(one["modules"]), _place(None, adapter))
            out.append({**entry, "series": {"chance": [one["chance"]], "cosine": [one["cosine"]]}})
    for adapter, own in weights.gates.items():
        for gate in own:
            facts = _place(gate.layer, adapter, target=gate.module)
            entry = plain_entry("convergence_gate", gate.constant, gate.n, facts)
            told = {} if gate.auroc is None else {"auroc": [gate.auroc, *(gate.interval or ())]}
            out.append({**entry, "series": {"first": [gate.first], "norm": [gate.norm], **told}})
    return out


def bridge_entries(found: Sequence[Bridge]) -> list[Entry]:
    """`convergence_bridge` of each adapter (condition) and layer, and `convergence_bridge_gap` by layer."""
    out = []
    for one in found:
        control = {"kind": "other domains' predictions", "N": one.draws, "p": one.p, "draws": []}
        gap = {"interval": list(one.interval), "interval_method": "t 95% over domains", "control": control}
        series = {"own": [float(one.own.mean())], "others": [float(one.others.mean())]}
        entry = plain_entry(
            "convergence_bridge_gap", one.gap, len(one.names), _place(one.site.layer, "constant part", **gap)
        )
        out.append({**entry, "series": series})
        for i, name in enumerate(one.names):
            entry = plain_entry("convergence_bridge", float(one.own[i]), 1, _place(one.site.layer, name))
            beside = {"others": one.others, "ratio": one.ratio, "explained": one.explained}
            out.append({**entry, "series": {key: [float(values[i])] for key, values in beside.items()}})
    return out


def _control(kind: str, found: Convergence, p: Mapping[str, float]) -> dict[str, Any]:
    return {"kind": f"random directions, {kind}", "N": found.draws, "p": p[kind], "draws": []}


def _place(layer: int | None, condition: str, **facts: Any) -> dict[str, Any]:
    return {"layer": layer, "condition": condition, "split": "directions", "modality": "all", **facts}
