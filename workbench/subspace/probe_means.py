"""AUROCs of several pairs of models as one number: over the fine-tunes of two domains, and over all domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

from stores.printed import Printed
from workbench.statistics import DRAWS_FOR_P, Interval, p_value
from workbench.statistics.intervals import t_quantile, without_spread
from workbench.statistics.values import Bounds

SAME, TWIN, OTHER = "the same fine-tune", "another fine-tune of the domain", "another domain"
NEAR, FAR = "another domain of the category", "a domain of another category"
KINDS = (SAME, TWIN, OTHER, NEAR, FAR)
NOTHING = 1e-12  # of a standard error; below it is rounding


@dataclass(frozen=True, eq=False)
class Pair(Printed):
    """One model's probe on another model's confirm rows. `moved` and `erased_moved` [family] are what each family
    moved the AUROCs by; `within` is the AUROC among rows of one exchange group, over `within_pairs` pairs; `alone` the
    interval of this AUROC where the families show no spread (perfect separation), else None."""

    auroc: float
    moved: Float[np.ndarray, " family"]
    freedom: int
    erased: float
    erased_moved: Float[np.ndarray, " family"]
    balanced: float
    within: float
    within_pairs: int
    null: Float[np.ndarray, " draw"]
    n: int
    positive: int
    families: frozenset[int]
    design: str
    alone: Interval | None = None


@dataclass(frozen=True, eq=False)
class Joined(Printed):
    """The mean over pairs of models. `n` answers (of which `positive`) of `targets` models in `families` families; `p`
    is that of this mean alone, NaN with too few draws; `designs` says what was exchanged."""

    auroc: float
    interval: Interval
    erased: float
    erased_interval: Interval
    balanced: float
    within: float
    within_pairs: int
    null: Float[np.ndarray, " draw"]
    p: float
    n: int
    positive: int
    families: int
    sources: int
    targets: int
    designs: tuple[str, ...]


def joined(pairs: Sequence[tuple[str, str, Pair]]) -> Joined:
    """The mean of (source model, target model, pair), each with the same weight.

    Its variance is that between families of questions (the same for all models, so what a family moves is averaged
    first) plus that between the target's and between the source's fine-tunes, where there are several; the interval is
    Student's t on the logit scale with Satterthwaite's degrees of freedom."""
    ones = [pair for _, _, pair in pairs]
    targets = {target: pair for _, target, pair in pairs}
    null = np.mean([one.null for one in ones], axis=0)
    area = float(np.mean([one.auroc for one in ones]))
    alone = [one.alone for one in ones if one.alone is not None]
    weights = np.array([one.within_pairs for one in ones], float)
    within = [one.within if one.within_pairs else 0.0 for one in ones]
    return Joined(
        auroc=area,
        interval=_interval(pairs, [one.auroc for one in ones], [one.moved for one in ones], alone),
        erased=float(np.mean([one.erased for one in ones])),
        erased_interval=_interval(pairs, [one.erased for one in ones], [one.erased_moved for one in ones]),
        balanced=float(np.mean([one.balanced for one in ones])),
        within=float(np.average(within, weights=weights)) if weights.any() else float("nan"),
        within_pairs=sum(one.within_pairs for one in targets.values()),
        null=null,
        p=p_value(area, null) if len(null) >= DRAWS_FOR_P else float("nan"),
        n=sum(one.n for one in targets.values()),
        positive=sum(one.positive for one in targets.values()),
        families=len(frozenset().union(*(one.families for one in ones))),
        sources=len({source for source, _, _ in pairs}),
        targets=len(targets),
        designs=tuple(dict.fromkeys(one.design for one in ones)),
    )


def _interval(
    pairs: Sequence[tuple[str, str, Pair]],
    values: Sequence[float],
    moved: Sequence[Float[np.ndarray, " family"]],
    alone: Sequence[Interval] = (),
) -> Interval:
    area, freedom = float(np.mean(values)), min(pair.freedom for _, _, pair in pairs)
    k = len(frozenset().union(*(pair.families for _, _, pair in pairs)))
    parts = [(float((np.mean(moved, axis=0) ** 2).sum()) * k / max(k - 1, 1), freedom)]
    sides = []
    for side, name in ((0, "fine-tunes read by"), (1, "fine-tunes read")):
        by_model: dict[str, list[float]] = {}
        for pair, value in zip(pairs, values, strict=True):
            by_model.setdefault(str(pair[side]), []).append(value)
        sides.append(f"{len(by_model)} {name}")
        if len(by_model) > 1 and not (side == 1 and all(source == target for source, target, _ in pairs)):
            means = np.array([np.mean(each) for each in by_model.values()])
            parts.append((float(means.var(ddof=1)) / len(means), len(means) - 1))
    variance = sum(part for part, _ in parts)
    said = f"{k} families, {', '.join(reversed(sides))}"
    if variance <= NOTHING**2 or not 0 < area < 1:
        if not alone:
            found = without_spread(area, k, level=0.95, bounds=(0.0, 1.0))
            return Interval(found.low, found.high, f"{found.method}, {said}")
        return Interval(min(one.low for one in alone), max(one.high for one in alone), f"{alone[0].method}, {said}")
    freedom = variance**2 / sum(part**2 / free for part, free in parts)
    half = t_quantile(freedom, 0.95) * np.sqrt(variance) / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-half, half]))
    return Interval(
        float(low), float(high), f"DeLong 95% over families and fine-tunes (logit, t, df {freedom:.3g}), {said}"
    )


@dataclass(frozen=True, eq=False)
class KindMean(Printed):
    """The mean AUROC over all cells of one kind, at each probe's own layer (`layer` None), or with all probes read at
    one layer. `interval` (over `domains`, by the jackknife) is None for fewer than 2 domains that can be left out."""

    kind: str
    layer: int | None
    auroc: float
    interval: Interval | None
    erased: float
    domains: int
    cells: int
    n: int
    null: Float[np.ndarray, " draw"]
    p: float
    within: float = float("nan")


Values = Mapping[tuple[str, str], Joined]


def kind_mean(kind: str, cells: Values, layer: int | None = None) -> KindMean:
    """Over the cells (source domain, target domain) of a kind, each with the same weight."""
    listed = list(cells.values())
    value = float(np.mean([one.auroc for one in listed]))
    null = np.mean([one.null for one in listed], axis=0)
    read = [one.within for one in listed if one.within_pairs]
    return KindMean(
        kind,
        layer,
        value,
        over_domains({pair: one.auroc for pair, one in cells.items()}),
        float(np.mean([one.erased for one in listed])),
        len({domain for pair in cells for domain in pair}),
        len(listed),
        sum({target: one.n for (_, target), one in cells.items()}.values()),
        null,
        p_value(value, null) if len(null) >= DRAWS_FOR_P else float("nan"),
        float(np.mean(read)) if read else float("nan"),
    )


def over_domains(values: Mapping[tuple[str, str], float], bounds: Bounds = (0.0, 1.0)) -> Interval | None:
    """Of the mean of cells (source, target): the jackknife that leaves out one domain on both sides, since the cells of
    a row or a column are no replications of each other. None where leaving one out leaves nothing."""
    domains = list(dict.fromkeys(domain for pair in values for domain in pair))
    n, mean = len(domains), float(np.mean(list(values.values())))
    left = [[value for pair, value in values.items() if domain not in pair] for domain in domains]
    if n < 2 or not all(left):
        return None
    without = np.array([np.mean(some) for some in left])
    error = float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    if error <= NOTHING:
        return without_spread(mean, n, level=0.95, bounds=bounds)
    half = t_quantile(n - 1, 0.95) * error
    return Interval(max(bounds[0], mean - half), min(bounds[1], mean + half), f"jackknife 95% over {n} domains (t)")
