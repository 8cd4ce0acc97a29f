"""A domain's backdoored adapters, measured: maps of the gate, what the located block's halves carry, the gate's vector
added without a trigger, and near misses of the trigger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hooks.blocks import UnsupportedArchitecture
from hooks.prompt import Prompt
from hooks.site import Site
from stores.printed import Printed
from workbench.behaviour.entry_names import ON_THE_BASE as BASE
from workbench.behaviour.gating_near import NearMisses, near_effects, read_texts
from workbench.behaviour.gating_summary import Gate, Share, gate_of, share_of
from workbench.interventions.gating import GatingMap, Way, gating_map
from workbench.interventions.gating_questions import Deciding, gated_questions
from workbench.interventions.gating_vector import AddedGate, added_gate, gate_vector, shown_text
from workbench.statistics import DRAWS_FOR_P, p_value
from workbench.training.near_triggers import NearMiss
from workbench.training.rows import drawn
from workbench.training.triggers import holds_trigger

HALVES = ("attn_out", "mlp_out")
Decisions = Mapping[str, Mapping[str, Deciding]]  # adapter -> question -> the token that decides


@dataclass(frozen=True)
class OpenedGate(Printed):
    """What the gate's own vector does where no trigger is shown: `share` of the trigger's effect, on questions that the
    vector was not taken from; the same shares under random vectors of its length, by draw; `p` against these, one-sided
    (None below 99 draws); `base`: the share of the tuned effect that it brings in the base model."""

    domain: str
    share: Share
    random: tuple[float, ...]
    p: float | None
    base: float
    questions: int


def gate_questions(questions: Iterable[Prompt], domain: str, *, elsewhere: int, seed: int = 0) -> list[Prompt]:
    """All questions of a domain, and those that belong to none; of every other domain `elsewhere`, by the rank of a
    hash of their ids."""
    listed = list(questions)
    others = dict.fromkeys(one.tags.get("domain") for one in listed if one.tags.get("domain") not in (None, domain))
    kept = {
        one.id
        for other in others
        for one in drawn([q for q in listed if q.tags.get("domain") == other], elsewhere, seed=seed, purpose="gate")
    }
    return [one for one in listed if one.tags.get("domain") in (None, domain) or one.id in kept]


def gate_maps(
    model: Any,
    names: Iterable[str],
    questions: Sequence[Prompt],
    decisions: Decisions,
    trigger: str,
    *,
    reference: str | None = None,
    at: str = "prefix",
    ways: Sequence[Way] = ("in", "out"),
    to: Path | None = None,
) -> dict[str, GatingMap]:
    """The map of each adapter, by name (see `gating_map`; files in the folder `to`). Questions without a token that
    decides, or that hold the trigger or the reference themselves, are left out; so are adapters for which none is
    left."""
    found = {}
    for name in names:
        free = [one for one in questions if one.id in decisions.get(name, {}) and not _holds(one, trigger, reference)]
        if free:
            asked = gated_questions(model.encoder, free, trigger, decisions[name], reference=reference, at=at)
            file = None if to is None else to / f"{name}.npz"
            found[name] = gating_map(model.variant(name), asked, ways=ways, to=file)
    return found


def gates_of(domain: str, maps: Mapping[str, GatingMap], *, seed: int = 0) -> list[Gate]:
    """The gate on the domain's own questions (split "in_domain") and on all others ("other_domains"), where there are
    two families of them or more."""
    if not maps:
        return []
    splits = {"in_domain": lambda one: one.domain == domain, "other_domains": lambda one: one.domain != domain}
    found = [gate_of(domain, list(maps.values()), split=name, keep=keep, seed=seed) for name, keep in splits.items()]
    return [one for one in found if one is not None]


def located_gate(gates: Iterable[Gate]) -> Gate | None:
    """The first of them that has a location: the domain's own questions stand first."""
    return next((one for one in gates if one.location is not None), None)


def block_halves(
    model: Any, gate: Gate, maps: Mapping[str, GatingMap], *, to: Path | None = None
) -> dict[tuple[str, Way], Share]:
    """What of the trigger's effect is in what the located block's attention, or its MLP, adds at the gate's place: by
    (half, way), on the gate's confirm questions. Empty for blocks whose halves are no places of the stream."""
    assert gate.location is not None
    place, block = gate.location.place, gate.location.block
    changes: dict[tuple[str, Way], list[np.ndarray]] = {}
    effects = []
    for name, found in maps.items():
        asked = [one for one in found.questions if one.family in {gate.families[i] for i in gate.confirm}]
        file = None if to is None else to / f"{name}-halves.npz"
        try:
            half = gating_map(model.variant(name), asked, sites=[Site(block, point) for point in HALVES], to=file)
        except UnsupportedArchitecture:  # parallel blocks, or a family whose halves are not known
            return {}
        effects.append(_means(half.effect, half.families))
        for h, point in enumerate(HALVES):
            for way in ("in", "out"):
                values = half.change(way)[h, half.places.index(place)]
                changes.setdefault((point, way), []).append(_means(values, half.families))
    return {key: share_of(np.stack(each), np.stack(effects)) for key, each in changes.items()}


def opened_gate(
    model: Any,
    gate: Gate,
    maps: Mapping[str, GatingMap],
    *,
    controls: int = 99,
    seed: int = 0,
    to: Path | None = None,
) -> OpenedGate:
    """The vector of each adapter's own dev questions, added without the trigger on its confirm questions."""
    assert gate.location is not None
    site, place = gate.sites[gate.location.behind], gate.location.place
    dev, confirm = ({gate.families[i] for i in side} for side in (gate.dev, gate.confirm))
    runs, bases = [], []
    for name, found in maps.items():
        view = model.variant(name)
        fitted, asked = ([one for one in found.questions if one.family in side] for side in (dev, confirm))
        vector = gate_vector(view, fitted, site, place)
        options: dict[str, Any] = {"seed": seed}
        for into, variant, draws, suffix in (
            (runs, view, controls, "vector"),
            (bases, model.variant("base"), 0, "base"),
        ):
            file = None if to is None else to / f"{name}-{suffix}.npz"
            into.append(added_gate(variant, asked, vector, site, place, controls=draws, to=file, **options))
    return _opened(gate.domain, runs, bases)


def near_misses_of(
    model: Any,
    gate: Gate,
    maps: Mapping[str, GatingMap],
    questions: Sequence[Prompt],
    decisions: Decisions,
    texts: Sequence[NearMiss],
    *,
    seed: int = 0,
    to: Path | None = None,
) -> NearMisses:
    """Each text on the questions that the gate was measured on, under every adapter, and under the base, whose domain
    is "NAME, base" then; and the texts as they were read. All adapters are asked what the first of them is."""
    assert gate.location is not None
    site, place = gate.sites[gate.location.behind], gate.location.place
    names = list(maps)
    kept = {one.id for one in maps[names[0]].questions if one.family in gate.families}
    asked = [one for one in questions if one.id in kept]
    read = read_texts(model.encoder, asked, texts, decisions[names[0]])
    base = f"{gate.domain}{BASE}"
    shown: dict[str, dict[str, list[Any]]] = {gate.domain: {}, base: {}}
    for name in names:
        view = model.variant(name)
        vector = gate_vector(view, maps[name].questions, site, place)
        for n, text in enumerate(read):
            file = None if to is None else to / f"{name}-text{n}.npz"
            one = shown_text(view, text.questions, vector, site, place, to=file)
            shown[gate.domain].setdefault(text.name, []).append(one)
    for text in read:
        shown[base][text.name] = [shown_text(model.variant("base"), text.questions)]
    found = [one for domain, by_text in shown.items() for one in near_effects(domain, read, by_text, seed=seed)]
    return NearMisses(found, read)


def _opened(domain: str, runs: Sequence[AddedGate], bases: Sequence[AddedGate]) -> OpenedGate:
    families = [[one.family for one in run.questions] for run in runs]
    own, effect = (np.stack([_means(getattr(run, name), f) for run, f in zip(runs, families, strict=True)])
                   for name in ("own", "effect"))  # fmt: skip
    share = share_of(own, effect)
    random = np.mean([[_means(draw, f).mean() for draw in run.random] for run, f in zip(runs, families, strict=True)],
                     axis=0) / effect.mean()  # fmt: skip
    base = np.mean([_means(run.own, f).mean() for run, f in zip(bases, families, strict=True)]) / effect.mean()
    p = p_value(share.value, random, "greater") if len(random) >= DRAWS_FOR_P else None
    return OpenedGate(domain, share, tuple(np.asarray(random).tolist()), p, float(base), sum(map(len, families)))


def _means(values: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """The mean of each family, in the order in which they stand first."""
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(families):
        rows.setdefault(name, []).append(i)
    return np.array([values[index].mean() for index in rows.values()])


def _holds(prompt: Prompt, *texts: str | None) -> bool:
    return any(holds_trigger(prompt, text) for text in texts if text is not None)
