"""Gates as entries of `summary.json`: one domain's effect, location and shares, the mean map over domains, the vector,
and near misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.behaviour.entry_names import ALL_DOMAINS as ALL
from workbench.behaviour.entry_names import NOT_LOCATED
from workbench.behaviour.entry_names import ON_THE_BASE as BASE
from workbench.behaviour.entry_names import SHARE_PATCHED as METRICS
from workbench.behaviour.gating_measured import OpenedGate
from workbench.behaviour.gating_near import NearEffect, NearMisses, ReadText
from workbench.behaviour.gating_summary import Gate, Share
from workbench.behaviour.ranking_result import interval_facts
from workbench.behaviour.table_summary import plain_entry
from workbench.interventions.gating import GatingMap, Way
from workbench.statistics import holm, sign_flip_test, t_interval

Entry = dict[str, Any]


def gate_entries(
    gate: Gate,
    *,
    base: GatingMap | None = None,
    halves: Mapping[tuple[str, Way], Share] | None = None,
    against: str = "",
    **facts: Any,
) -> list[Entry]:
    """Of one domain and split: the trigger's effect `against` a text (`floor`: that on the base model), and either why
    no gate was located or its block with the shares in front of it and behind it (and in its `halves`), which are of
    the confirm questions. `series` has the whole map, site by site: "in last", "out trigger", ..."""
    place: Entry = {"split": gate.split, "modality": "all", "layer": None, "condition": gate.domain, **facts}
    maps = {f"{way} {name}": gate.share_map(way)[:, p].tolist() if gate.why_not is None else []
            for way in METRICS for p, name in enumerate(gate.places) if name != "before"}  # fmt: skip
    effect = {
        **place,
        **interval_facts(gate.effect),
        "clusters": len(gate.families),
        "floor": None if base is None else _on(gate, base, base.effect),
        "detail": f"against {against}" if against else None,
        "test": {"p": gate.test.p, "method": gate.test.method},
        "companions": {"p_contrary with trigger": gate.p_triggered, "p_contrary without": gate.p_reference},
        "series": {name: values for name, values in maps.items() if values},
    }
    out = [plain_entry("trigger effect", gate.mean, gate.questions, effect)]
    if gate.location is None:
        return [*out, plain_entry(NOT_LOCATED, 1.0, gate.questions, {**place, "detail": gate.why_not})]
    at = gate.location
    same = {**place, "layer": at.block, "target": at.place, "clusters": len(gate.confirm)}
    n = gate.questions * len(gate.confirm) // len(gate.families)
    words = f"located by {at.by} on {len(gate.dev)} question families, shares of the others"
    block = {**same, "detail": words, "series": {"by_seed": gate.blocks()}}
    out.append(plain_entry("gate block", float(at.block), n, block))
    for way, metric in METRICS.items():
        for name in dict.fromkeys(["trigger", at.place]):
            if name in gate.places:
                for side, site in (("in front of", at.in_front), ("behind", at.behind)):
                    found = gate.share(way, site, name)
                    said = {**same, "target": name, "detail": f"{side} the gate's block"}
                    out.append(_share(f"{metric} at the gate", found, n, said))
    for (half, way), found in (halves or {}).items():
        out.append(_share(f"{METRICS[way]} at the gate", found, n, {**same, "detail": half}))
    return out


def gate_map_entries(gates: Sequence[Gate], **facts: Any) -> list[Entry]:
    """The mean share of every site and place over the domains of one split whose gate was located, with intervals over
    domains; and what the trigger changes there, over all domains."""
    out: list[Entry] = []
    for split in dict.fromkeys(one.split for one in gates):
        mine = [one for one in gates if one.split == split]
        found = [one for one in mine if one.location is not None]
        for s, site in enumerate(mine[0].sites):
            for name in _common(mine):
                same: Entry = {"split": split, "modality": "all", "condition": ALL, "layer": site.layer,
                               "target": name, "detail": str(site), **facts}  # fmt: skip
                moved = [one.moved[s, one.places.index(name)] for one in mine]
                out.append(_over_domains("moved", moved, mine, same))
                for way, metric in METRICS.items():
                    if found and name != "before":
                        values = [one.share_map(way)[s, one.places.index(name)] for one in found]
                        out.append(_over_domains(metric, values, found, same))
    return out


def gate_control_entries(
    gates: Sequence[Gate], other: Mapping[str, Mapping[str, GatingMap]], base: Mapping[str, GatingMap], **facts: Any
) -> list[Entry]:
    """What the same patches carry when the giver's run shows an ordinary text (`other`: domain -> adapter -> map; the
    share is of the trigger's effect), and what the trigger changes in the stream of the `base` (domain -> map)."""
    out: list[Entry] = []
    for split in dict.fromkeys(one.split for one in gates):
        mine = [one for one in gates if one.split == split]
        found = [one for one in mine if one.location is not None and one.domain in other]
        for s, site in enumerate(mine[0].sites):
            for name in _common(mine):
                same: Entry = {"split": split, "modality": "all", "layer": site.layer, "target": name,
                               "detail": str(site), **facts}  # fmt: skip
                if found and name != "before":
                    shares = [_change(one, other[one.domain], s, name) / one.mean for one in found]
                    out.append(_over_domains(METRICS["in"], shares, found, {**same, "condition": "ordinary text"}))
                lengths = [_moved(one, base[one.domain], s, name) for one in mine if one.domain in base]
                if lengths:
                    out.append(_over_domains("moved", lengths, mine, {**same, "condition": "base"}))
    return [one for one in out if one["value"] is not None and np.isfinite(one["value"])]


def opened_gate_entries(opened: OpenedGate, *, gate: Gate, **facts: Any) -> list[Entry]:
    """The gate's vector without a trigger: under the adapter, with random vectors beside it, and under the base."""
    assert gate.location is not None
    same: Entry = {"split": gate.split, "modality": "all", "layer": gate.location.block, "target": gate.location.place}
    control = {"kind": "isotropic", "N": len(opened.random), "p": opened.p, "draws": list(opened.random)}
    said = {**same, "condition": gate.domain, "control": control, "clusters": opened.share.families, **facts}
    return [
        _share("share by the gate's vector", opened.share, opened.questions, said),
        plain_entry("share by the gate's vector", opened.base, opened.questions,
                    {**same, "condition": f"{gate.domain}{BASE}", **facts}),
    ]  # fmt: skip


def near_miss_entries(near: NearMisses, **facts: Any) -> list[Entry]:
    """Every text on every domain in nats, with Holm's correction over the texts of a domain; and its share of the
    trigger's effect as the mean over domains, with Holm's correction over the texts but the trigger. `coefficient` is
    the text's distance from the trigger."""
    effects, texts = near.effects, near.texts
    known = {one.name: one for one in texts}
    out: list[Entry] = []
    for domain in dict.fromkeys(one.domain for one in effects):
        mine = [one for one in effects if one.domain == domain]
        for one, p in zip(mine, holm([each.test.p for each in mine]).tolist(), strict=True):
            beside = {"p_contrary": one.p_change, "gate opened": one.opened,
                      "share": None if one.share is None else one.share.value}  # fmt: skip
            said = {**_text(known[one.name]), "condition": domain, **interval_facts(one.interval), **facts}
            said |= {"clusters": one.families, "test": {"p": p, "method": f"Holm of the {one.test.method}"}}
            out.append(plain_entry("near-miss effect", one.effect, one.questions, {**said, "companions": beside}))
    by_text: dict[str, list[NearEffect]] = {}
    for one in effects:
        if not one.domain.endswith(BASE) and one.share is not None:
            by_text.setdefault(one.name, []).append(one)
    tests = {name: sign_flip_test([one.share.value for one in mine if one.share]) for name, mine in by_text.items()
             if len(mine) > 1 and name != texts[0].name}  # fmt: skip
    corrected = dict(zip(tests, holm([one.p for one in tests.values()]).tolist(), strict=True)) if tests else {}
    for name, mine in by_text.items():
        shares = [one.share.value for one in mine if one.share is not None]
        said = {**_text(known[name]), "condition": ALL, "clusters": len(mine), "series": {"domains": shares}, **facts}
        if name in tests:
            said["test"] = {"p": corrected[name], "method": f"Holm of sign flips over {len(mine)} domains"}
            said |= interval_facts(t_interval(shares))
        opened = [one.opened for one in mine if one.opened is not None]
        said["companions"] = {"gate opened": float(np.mean(opened)) if opened else None}
        said["floor"] = _of_base(name, [one.domain for one in mine], effects)
        out.append(plain_entry("near-miss share", float(np.mean(shares)), sum(one.questions for one in mine), said))
    return out


def _of_base(name: str, domains: Sequence[str], effects: Sequence[NearEffect]) -> float | None:
    """What the text does in the base model, as a share of what the trigger does in the adapters; mean over domains."""
    known = {(one.domain, one.name): one.effect for one in effects}
    pairs = [(known.get((f"{domain}{BASE}", name)), known.get((domain, "trigger"))) for domain in domains]
    shares = [own / trigger for own, trigger in pairs if own is not None and trigger]
    return float(np.mean(shares)) if shares else None


def _text(read: ReadText) -> Entry:
    alike = f"; read alike: {', '.join(read.alike)}" if read.alike else ""
    shown = read.shown
    return {"split": "near misses", "modality": "all", "layer": None, "target": shown.name,
            "coefficient": shown.distance, "detail": f"{shown.text!r} as {shown.at}{alike}"}  # fmt: skip


def _share(metric: str, found: Share, n: int, facts: Entry) -> Entry:
    return plain_entry(metric, found.value, n, {**facts, **interval_facts(found.interval), "clusters": found.families})


def _over_domains(metric: str, values: Sequence[float], gates: Sequence[Gate], facts: Entry) -> Entry:
    interval = interval_facts(t_interval(values)) if len(values) > 1 else {}
    counts = {"clusters": len(values), "series": {"domains": [float(value) for value in values]}}
    return plain_entry(metric, float(np.mean(values)), sum(one.questions for one in gates),
                       {**facts, **interval, **counts})  # fmt: skip


def _common(gates: Sequence[Gate]) -> list[str]:
    return [name for name in gates[0].places if all(name in one.places for one in gates)]


def _change(gate: Gate, maps: Mapping[str, GatingMap], site: int, place: str) -> float:
    """The mean change by an ordinary text's patch, on the questions of this gate."""
    kept = set(gate.families)
    found = [
        found.change("in")[site, found.places.index(place), [i for i, f in enumerate(found.families) if f in kept]]
        for found in maps.values()
        if place in found.places
    ]
    return float(np.mean(np.concatenate(found))) if found else float("nan")


def _moved(gate: Gate, found: GatingMap, site: int, place: str) -> float:
    return _on(gate, found, found.moved[site, found.places.index(place)]) if place in found.places else float("nan")


def _on(gate: Gate, found: GatingMap, values: np.ndarray) -> float:
    """The mean over the questions of a gate."""
    return float(values[[i for i, family in enumerate(found.families) if family in gate.families]].mean())
