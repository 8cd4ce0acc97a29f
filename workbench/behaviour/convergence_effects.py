"""What the general and the narrow part of a domain's direction do when they are added to the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stores import ResultTable
from stores.printed import Printed
from workbench.behaviour.metrics import Metric
from workbench.interventions.steer import Steer
from workbench.statistics import DRAWS_FOR_P, Interval, cluster_interval, p_value
from workbench.subspace.controls import isotropic, orthogonal
from workbench.subspace.convergence_parts import Parts
from workbench.subspace.directions import Directions

SIDES = ("own domain", "other domains")
RANDOM = "isotropic"


@dataclass(frozen=True)
class PartEffect(Printed):
    """What one part (own, general, narrow; all added at the length of the whole) changes: the mean over families of
    questions of value - value of the unedited base. `draws` are the changes by random directions of that length,
    `p` that of so large a change among them (from 99 on). `kept`: noise -> share of the change that is left when the
    part is added together with an orthogonal vector of `noise` times its length, mean over draws (empty where the
    interval holds 0: a share of no change means nothing). `kl`: divergence on neutral prompts, None without them."""

    domain: str
    part: str
    side: str
    measure: str
    change: float
    interval: Interval | None
    n: int
    families: int
    draws: tuple[float, ...]
    p: float | None
    kept: Mapping[float, float]
    kl: float | None


def part_cells(
    parts: Parts,
    layers: Any,
    *,
    noise: Sequence[float | int] = (0.5, 1.0),
    noisy: int = 3,
    controls: int = 10,
    seed: int = 0,
) -> dict[str, Steer]:
    """Steerings of the base by name: each part, each with orthogonal noise ("general, noise 0.5, 0"), and random
    directions ("isotropic, 0"), all acting at all positions of these layers."""
    found = parts.of_one_length()
    added: dict[str, Directions] = dict(found)
    for name, part in found.items():
        for share in noise:
            for i, away in enumerate(orthogonal(part, noisy, seed)):
                both = part.vectors + float(share) * away.vectors
                added[f"{name}, noise {share:g}, {i}"] = Directions.of(part.sites, both, model=part.model)
    added |= {f"{RANDOM}, {i}": one for i, one in enumerate(isotropic(parts.own, controls, seed))} if controls else {}
    return {name: Steer(one, layers) for name, one in added.items()}


def part_effects(
    table: ResultTable, cells: Sequence[str], domain: str, metric: Metric | None = None
) -> list[PartEffect]:
    """The effects from a sweep of the base over `part_cells` (their names, in that order). The value of a row is its
    P(contrary) where questions have the tags right and contrary, else what `metric` makes of the judge's verdict;
    empty where no row has a value, or the questions are of one side alone."""
    values: dict[int, dict[str, float]] = {}
    family, own, kl = {}, {}, {}
    rows: list[dict[str, Any]] = [row for row in table.rows() if row["control"] is None]
    smooth = any(row.get("p_contrary") is not None for row in rows)
    for row in rows:
        value = row.get("p_contrary") if smooth else _judged(row, metric)
        if value is not None:
            values.setdefault(int(row["cell"]), {})[str(row["prompt"])] = float(value)
        kl[int(row["cell"])] = row.get("kl_neutral")
        family[str(row["prompt"])] = str(row.get("family") or row.get("item") or row["prompt"])
        own[str(row["prompt"])] = row.get("domain") == domain
    measure = "p_contrary" if smooth else "none" if metric is None else metric.name
    number = {name: i + 1 for i, name in enumerate(cells)}
    out = []
    for side in SIDES:
        asked = [p for p in values.get(0, {}) if own[p] == (side == SIDES[0])]
        changes = {name: _changes(values.get(c, {}), values.get(0, {}), asked) for name, c in number.items()}
        if not asked or not all(changes.values()):
            continue
        means = {name: _mean(one, family) for name, one in changes.items()}
        draws = tuple(means[name] for name in cells if name.startswith(f"{RANDOM}, "))
        for part in [name for name in cells if "," not in name]:
            p = p_value(abs(means[part]), np.abs(draws)) if len(draws) >= DRAWS_FOR_P else None
            names = [family[prompt] for prompt in changes[part]]
            rate = smooth or (metric is not None and metric.is_rate)
            interval = _interval(list(changes[part].values()), names, rate)
            kept = _kept(part, means) if interval is not None and 0.0 not in interval else {}
            facts: dict[str, Any] = dict(
                measure=measure, interval=interval, n=len(names), families=len(set(names)), draws=draws, p=p
            )
            out.append(PartEffect(domain, part, side, change=means[part], kept=kept, kl=kl.get(number[part]), **facts))
    return out


def _judged(row: Mapping[str, Any], metric: Metric | None) -> float | None:
    """What the metric makes of the row's verdict; None for an answer that has none."""
    if metric is None:
        return None
    read = row.get("category") if metric.kind == "rule" and not metric.scored else row.get("score")
    return None if read is None else metric.of(dict.fromkeys(metric.needs, read), metric.thresholds)


def _changes(edited: Mapping[str, float], plain: Mapping[str, float], asked: Sequence[str]) -> dict[str, float]:
    return {prompt: edited[prompt] - plain[prompt] for prompt in asked if prompt in edited}


def _mean(changes: Mapping[str, float], family: Mapping[str, str]) -> float:
    """Over families, each with the same weight."""
    by: dict[str, list[float]] = {}
    for prompt, change in changes.items():
        by.setdefault(family[prompt], []).append(change)
    return float(np.mean([np.mean(one) for one in by.values()]))


def _kept(part: str, means: Mapping[str, float]) -> dict[float, float]:
    found: dict[float, list[float]] = {}
    for name, mean in means.items():
        if name.startswith(f"{part}, noise "):
            found.setdefault(float(name.split(", ")[1].removeprefix("noise ")), []).append(mean)
    return {share: float(np.mean(each) / means[part]) for share, each in found.items()}


def _interval(changes: Sequence[float], families: Sequence[str], rate: bool) -> Interval | None:
    """Over families; None for one. Changes of rates lie within -1 and 1, and so do the ends of their interval."""
    if len(set(families)) < 2:
        return None
    found = cluster_interval(changes, families, bounds=(-1.0, 1.0) if rate else None)
    return replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0)) if rate else found
