"""Means over questions and trainings at once: interval, paired test and ranks, where both could have been others.

The variance of a mean over S fine-tuning seeds and F families of questions is that between the families' means / F and
that between the seeds' means / S; what is particular to a seed and a family is in both, which errs on the safe side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

from workbench.behaviour.ranking_values import Replicates
from workbench.statistics import Interval, Significance, sign_flip_test
from workbench.statistics.intervals import score_ends, t_quantile, without_spread
from workbench.statistics.values import Bounds, midranks


@dataclass(frozen=True)
class Spread:
    """A mean with its variance over questions and trainings, and the degrees of freedom (Satterthwaite)."""

    mean: float
    variance: float
    freedom: float
    seeds: int
    families: int

    @property
    def stated(self) -> str:
        if self.seeds == 1:
            return f"{self.families} question families, one fine-tuning seed: other trainings may differ"
        return f"{self.families} question families and {self.seeds} fine-tuning seeds"


def spread_of(values: Float[np.ndarray, "seed family"]) -> Spread:
    """Raises ValueError for fewer than 2 families: one says nothing of spread."""
    seeds, families = values.shape
    if families < 2:
        raise ValueError(f"{families} question families have scores under every seed: expected 2 or more.")
    parts = [(float(values.mean(axis=0).var(ddof=1)) / families, families - 1)]
    if seeds > 1:
        parts.append((float(values.mean(axis=1).var(ddof=1)) / seeds, seeds - 1))
    return Spread(float(values.mean()), *_added(parts), seeds, families)


def spread_interval(found: Spread, *, rate: bool, bounds: Bounds, rows: int, level: float = 0.95) -> Interval:
    """t over questions and trainings, cut at `bounds`; of a `rate` Wilson's at the number of independent rows (at most
    `rows`) that would vary as much. Without any spread, `without_spread` over the families."""
    if found.variance <= 1e-18 * max(1.0, found.mean**2):
        alike = without_spread(found.mean, found.families, level=level, bounds=bounds)
        return Interval(alike.low, alike.high, f"{alike.method}, {found.stated}")
    quantile = t_quantile(found.freedom, level)
    if rate and 0 < found.mean < 1:
        effective = min(float(rows), found.mean * (1 - found.mean) / found.variance)
        low, high = score_ends(found.mean, effective, quantile)
        kind = f"Wilson {level:.0%} at {effective:.3g} effective rows"
    else:
        half = quantile * float(np.sqrt(found.variance))
        low, high = max(found.mean - half, bounds[0]), min(found.mean + half, bounds[1])
        kind = f"t {level:.0%}"
    return Interval(float(low), float(high), f"{kind} (df {found.freedom:.3g}), {found.stated}")


def paired_test(a: Replicates, b: Replicates, *, draws: int = 9999, seed: int = 0) -> tuple[Spread, Significance]:
    """Do two domains differ, on the families that both have? Each family is a pair; the seeds are each domain's own.

    p is the larger of two: Student's t with the variance over questions and over both domains' trainings, and sign
    flips of the families, which few families cannot make small. Source of the degrees of freedom: Satterthwaite 1946.
    """
    shared = [name for name in a.families if name in set(b.families)]
    if len(shared) < 2:
        raise ValueError(
            f"{a.domain} and {b.domain} share {len(shared)} question families: expected 2 or more. Ask questions about "
            "neither of them, or keep a domain's own (own='keep')."
        )
    mine, theirs = a.on(shared), b.on(shared)
    differences = mine.mean(axis=0) - theirs.mean(axis=0)
    parts = [(float(differences.var(ddof=1)) / len(shared), len(shared) - 1)]
    for values in (mine, theirs):
        if len(values) > 1:
            parts.append((float(values.mean(axis=1).var(ddof=1)) / len(values), len(values) - 1))
    found = Spread(float(differences.mean()), *_added(parts), min(len(mine), len(theirs)), len(shared))
    trained = f"{len(mine)} and {len(theirs)} fine-tuning seeds"
    return found, tested(found, differences, trained=trained, draws=draws, seed=seed)


def tested(
    found: Spread, by_family: Float[np.ndarray, " family"], *, trained: str, draws: int = 9999, seed: int = 0
) -> Significance:
    """The larger p of t and sign flips, see `paired_test`."""
    flips = sign_flip_test(by_family, draws=draws, seed=seed)
    if found.variance > 1e-18 * max(1.0, found.mean**2):
        p = float(2 * special.stdtr(found.freedom, -abs(found.mean) / np.sqrt(found.variance)))
    else:
        p = float(abs(found.mean) < 1e-12)  # no spread at all: only the flips can say how few families there are
    method = f"larger p of t (df {found.freedom:.3g}) and sign flips; {found.families} question families, {trained}"
    return Significance(found.mean, max(p, flips.p), method)


def bootstrap_ranks(
    listed: Sequence[Replicates], *, worst: str = "high", resamples: int = 2000, seed: int = 0
) -> Float[np.ndarray, "draw domain"]:
    """The rank of every domain (1: worst; ties share the mean) in each resample of questions and trainings.

    A draw takes families, the same for all domains, and each domain's seeds, one fewer than there are of each (with
    two or more): a mean of n - 1 draws varies as the mean of n independent values does, while n draws would vary too
    little, by a third of the variance for 3 seeds. Sources: McCarthy & Snowden 1985; Owen 2007, arXiv 0712.1111.
    """
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(name for one in listed for name in one.families))
    place = {name: at for at, name in enumerate(names)}
    taken = rng.multinomial(len(names) - 1, np.full(len(names), 1 / len(names)), size=resamples).astype(float)
    values = np.empty((resamples, len(listed)))
    for at, one in enumerate(listed):
        weights = taken[:, [place[name] for name in one.families]]
        weights[weights.sum(axis=1) == 0] = 1.0  # none of its families drawn: all of them
        n = one.seeds
        seeds = rng.multinomial(max(n - 1, 1), np.full(n, 1 / n), size=resamples).astype(float)
        sums = np.einsum("ds,sf,df->d", seeds, one.values, weights, optimize=True)
        values[:, at] = sums / (seeds.sum(axis=1) * weights.sum(axis=1))
    signed = np.round(-values if worst == "high" else values, 12)
    return np.array([midranks(row) for row in signed])


def _added(parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """The sum of independent variances, and its degrees of freedom."""
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return 0.0, float(min(freedom for _, freedom in parts))
    return total, total**2 / sum(variance**2 / freedom for variance, freedom in parts)
