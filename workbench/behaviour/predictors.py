"""predictors: which single feature goes with the domains' misalignment, nothing fitted, every sign fixed beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from stores.printed import Printed
from workbench.behaviour.predictor_features import PredictorFeature
from workbench.behaviour.predictor_table import PredictorTable
from workbench.statistics import Interval, auroc, auroc_interval, correlation, correlation_interval, correlation_test
from workbench.statistics.best_of_features import ps_of_best
from workbench.statistics.correlation import Kind
from workbench.statistics.exact_correlation import MOST_POINTS, exact_correlation_test
from workbench.statistics.fitted_tests import shuffled_labels
from workbench.statistics.permutation import p_value
from workbench.statistics.reach import Reach, reach
from workbench.statistics.values import Tail, alike, midranks

NO_SPREAD = "the measured misalignment is the same in all domains"


@dataclass(frozen=True)
class Correlated:
    """`r` times the feature's sign: above 0 as was said beforehand. `p` is two-sided, `p_signed` one-sided in the
    stated direction (None where no sign was stated); `p_best` pays for the number of features looked at: the share of
    shuffles in which the best of them does as well (one-sided where a sign was stated, two-sided otherwise)."""

    r: float
    interval: Interval
    p: float
    p_signed: float | None
    p_best: float
    method: str


@dataclass(frozen=True)
class Told:
    """AUROC of the oriented feature: the chance that a misaligned domain has more of it than another. Nothing was
    fitted, so each pair is judged by values that know of no label. `p` is over all arrangements of the labels,
    one-sided where a sign was stated."""

    auroc: float
    interval: Interval | None
    p: float
    misaligned: int
    others: int
    method: str


@dataclass(frozen=True)
class Predictor(Printed):
    feature: PredictorFeature
    pearson: Correlated
    spearman: Correlated
    told: Told | None


@dataclass(frozen=True)
class PredictorRanking(Printed):
    """Features by falling Spearman correlation in their stated direction (|rho| where none was stated). `undefined`:
    feature -> why it has no correlation. `reach` says what this number of domains can show."""

    _items = "ranked"

    table: PredictorTable
    ranked: tuple[Predictor, ...]
    undefined: dict[str, str]
    reach: Reach
    threshold: float | None

    def of(self, name: str) -> Predictor:
        for each in self.ranked:
            if each.feature.name == name:
                return each
        raise KeyError(f"no correlation of {name!r}: {self.undefined.get(name, 'no such feature')}.")

    def __str__(self) -> str:
        width = max([len(each.feature.name) for each in self.ranked] or [7])
        head = f"{'feature':<{width}} sign  Spearman   p   p of best  Pearson    p   AUROC   p"
        lines = [str(self.reach), head]
        for each in self.ranked:
            rho, r, told = each.spearman, each.pearson, each.told
            area = "   none" if told is None else f"{told.auroc:7.2f} {told.p:.3f}"
            name = f"{each.feature.name:<{width}} {each.feature.sign:+d}".replace("+0", " ?")
            lines.append(f"{name} {rho.r:8.2f} {rho.p:8.3f} {rho.p_best:7.3f} {r.r:8.2f} {r.p:7.3f} {area}")
        return "\n".join([*lines, *(f"{name}: none, {why}" for name, why in self.undefined.items())])


def predictors(
    table: PredictorTable, *, threshold: float | int | None = None, draws: int = 9999, seed: int = 0
) -> PredictorRanking:
    """Every feature of the table against the measured misalignment, unfitted: Pearson's and Spearman's correlation with
    intervals (Fisher's z) and exact p (all n! orders up to 13 domains), p of the best of all features, and the AUROC
    against `measured > threshold`, a threshold that was stated beforehand.

    One domain is one point, whatever its number of texts or seeds. A feature without spread, or domains that all
    measure the same, have no correlation: they stand in `undefined`. AUROCs need a domain on either side.
    """
    undefined, kept = {}, []
    for place, feature in enumerate(table.features):
        if not table.spread or alike(table.values[:, place]):
            undefined[feature.name] = NO_SPREAD if not table.spread else "the same value in all domains"
        else:
            kept.append(place)
    kinds: tuple[Kind, ...] = ("pearson", "spearman")
    best = {kind: _ps_of_best(table, kept, kind, draws, seed) for kind in kinds}
    ranked = []
    for i, place in enumerate(kept):
        feature, values = table.features[place], table.values[:, place]
        found = {kind: _correlated(values, table, feature.sign, kind, best[kind][i], draws, seed) for kind in kinds}
        told = None if threshold is None else _told(values, table.measured > threshold, feature.sign, draws, seed)
        ranked.append(Predictor(feature, found["pearson"], found["spearman"], told))
    ranked.sort(key=lambda each: -(each.spearman.r if each.feature.sign else abs(each.spearman.r)))
    stated = None if threshold is None else float(threshold)
    return PredictorRanking(table, tuple(ranked), undefined, reach(table.n, max(1, len(kept))), stated)


def _correlated(
    values: Float[np.ndarray, " n"], table: PredictorTable, sign: int, kind: Kind, best: float, draws: int, seed: int
) -> Correlated:
    oriented = values * (sign or 1)

    def tested(tail: Tail) -> tuple[float, str]:
        if table.n <= MOST_POINTS:
            found = exact_correlation_test(oriented, table.measured, kind, tail=tail)
        else:
            found = correlation_test(oriented, table.measured, kind, tail=tail, draws=draws, seed=seed)
        return found.p, found.method

    p, method = tested("two-sided")
    interval = correlation_interval(oriented, table.measured, kind)
    signed = tested("greater")[0] if sign else None
    return Correlated(correlation(oriented, table.measured, kind), interval, p, signed, best, method)


def _ps_of_best(table: PredictorTable, kept: list[int], kind: Kind, draws: int, seed: int) -> list[float]:
    if not kept:
        return []
    signs = [table.features[place].sign for place in kept]
    return ps_of_best(table.values[:, kept], table.measured, signs, kind, draws=draws, seed=seed).tolist()


def _told(values: Float[np.ndarray, " n"], misaligned: np.ndarray, sign: int, draws: int, seed: int) -> Told | None:
    ones, others = int(misaligned.sum()), int((~misaligned).sum())
    if not ones or not others:
        return None
    oriented = values * (sign or 1)
    columns, exact = shuffled_labels(misaligned.astype(float), draws=draws, seed=seed)
    areas = (midranks(oriented) @ columns - ones * (ones + 1) / 2) / (ones * others)
    tail: Literal["greater", "two-sided"] = "greater" if sign else "two-sided"
    sides = oriented[misaligned], oriented[~misaligned]
    interval = auroc_interval(*sides) if min(ones, others) > 1 else None
    method = f"{'all' if exact else 'random'} {columns.shape[1] - (not exact)} arrangements of the labels, {tail}"
    return Told(auroc(*sides), interval, p_value(float(areas[0]), areas[1:], tail), ones, others, method)
