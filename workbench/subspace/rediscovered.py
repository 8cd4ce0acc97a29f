"""rediscovered: after a repair, is the harmful shift gone, smaller, or somewhere else?

The shift of the repaired model is split into what lies along the harmful shift and what does not. Both are measured on
prompts that took no part in fitting the directions, so that noise is worth nothing on average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from stores.printed import Printed
from workbench.statistics import Interval, p_value
from workbench.statistics.pooled import pooled_interval
from workbench.subspace.directions import Directions
from workbench.subspace.rows import RowSource, Sites, chosen_sites, narrowed, one_width, prompt_sums, site_among

FOLDS, LEAST = 5, 4  # parts of the prompts, fewer where they are few; prompts
Presence = Literal["present", "absent", "undecided"]
Verdict = Literal["removed", "hidden", "moved", "hidden and moved", "undecided"]


@dataclass(frozen=True)
class Share:
    """A length in units of the harmful shift's, with an interval over prompts; `presence` against the margin."""

    value: float
    interval: Interval
    presence: Presence


@dataclass(frozen=True)
class Rediscovered(Printed):
    """What a repair left at each site, in units of the harmful shift's length.

    `along`: what is left along the harmful direction (1: all of it, 0: none). `beside`: the length of what the repaired
    model has beside it, and the harmful one has not. `cosine` of repaired and harmful shift, with its percentile
    bootstrap interval over prompts, stands beside `null`, the 5 % and 95 % of the cosines of random combinations of
    the base's rows with the harmful shift, the two-sided `p` of that, and both shifts' split-half `reliability`
    (harmful, repaired). `old` and `new` are the harmful direction and the one beside it, given the same length and
    origin (the base's mean), so that steering with them compares like with like.
    """

    sites: tuple[Site, ...]
    along: tuple[Share, ...]
    beside: tuple[Share, ...]
    cosine: Float[np.ndarray, " site"]
    cosine_interval: Float[np.ndarray, "site 2"]
    null: Float[np.ndarray, "site 2"]
    p: Float[np.ndarray, " site"]
    reliability: Float[np.ndarray, "site 2"]
    old: Directions
    new: Directions
    prompts: int
    clusters: int
    margin: float

    def verdict(self, site: Site | str | int) -> Verdict:
        """Where the shift went at one site. "removed": neither is there; "hidden": the old direction still is, at
        another length; "moved": only something beside it is; each only where the interval is on one side of the margin.
        What lies beside it need not carry any behaviour: see `wb.relocation`."""
        index = self._index(site)
        along, beside = self.along[index].presence, self.beside[index].presence
        if "undecided" in (along, beside):
            return "hidden" if along == "present" else "undecided"
        if along == "present":
            return "hidden and moved" if beside == "present" else "hidden"
        return "moved" if beside == "present" else "removed"

    def at(self, site: Site | str | int) -> tuple[Share, Share]:
        """(along, beside) at one site."""
        index = self._index(site)
        return self.along[index], self.beside[index]

    def _index(self, site: Site | str | int) -> int:
        return self.sites.index(site_among(self.sites, site))


def rediscovered(
    repaired: RowSource,
    harmful: RowSource,
    base: RowSource,
    /,
    *,
    sites: Sites = None,
    clusters: Mapping[str, str] | None = None,
    margin: float = 0.1,
    draws: int = 999,
    seed: int = 0,
) -> Rediscovered:
    """Splits the shift repaired - base into its part along harmful - base and the rest, site by site.

    The three views hold the same prompts (others are left out); a prompt's rows are averaged. `along` is the mean of
    (r - b)·û over that of (h - b)·û, with û fitted on other prompts (five folds). `beside` is what r - b has beyond
    along x (h - b): its direction is fitted on one half of the prompts and its length measured on the other, in the
    same unit. Both are 0 on average where there is nothing, and `beside` is a little small where its direction is
    noisy. Intervals are over prompts, or over `clusters` (prompt id -> name), with the harmful shift's length taken as
    known. `margin`, in units of that
    length, is stated beforehand: a share is present where its interval lies above it, absent where it lies below (for
    `along`: within ±margin). Raises ValueError for fewer than 4 prompts, or sites where the harmful model equals the
    base.
    """
    wanted = chosen_sites(base, sites)
    one_width(base, wanted)
    keys = sorted(set(repaired.prompt_ids) & set(harmful.prompt_ids) & set(base.prompt_ids))
    names = [key if clusters is None else clusters[key] for key in keys]
    if len(set(names)) < LEAST:
        raise ValueError(
            f"{len(set(names))} prompts (or clusters of them) are in all three views: expected {LEAST} or more."
        )
    rng = np.random.default_rng(seed)
    parts = min(FOLDS, len(set(names)) // 2)
    fold_of = dict(zip(sorted(set(names)), rng.permutation(len(set(names))) % parts, strict=True))
    folds = np.array([fold_of[name] for name in names])
    fits = np.array([fold_of[name] * 2 < parts for name in names])  # one half: what is measured is then independent
    mixed = rng.standard_normal((draws, len(keys)))
    along, beside, cosines, ends, nulls, tested, reliable = [], [], [], [], [], [], []
    old, new, origins = [], [], []
    for site in wanted:
        b, h, r = (_means(view, site, keys) for view in (base, harmful, repaired))
        harm, left = h - b, r - b
        length = float(np.linalg.norm(harm.mean(axis=0)))
        if length == 0:
            raise ValueError(f"the harmful model equals the base at {site}: leave the site out (sites=...).")
        scores = _cross_fitted(harm, left, folds)
        measured = float(scores[1].mean())
        along.append(_share(scores[0], measured, names, margin, both_sides=True))
        # Less the harmful shift itself, not its noisy direction: what is left along it would leak into the rest.
        rest = left - along[-1].value * harm
        fitted = _unit(rest[fits].mean(axis=0))
        others = [name for name, taken in zip(names, fits, strict=True) if not taken]
        beside.append(_share(rest[~fits] @ fitted, measured, others, margin, both_sides=False))
        cosines.append(_cosine(left.mean(axis=0), harm.mean(axis=0)))
        chance = [_cosine(one, harm.mean(axis=0)) for one in mixed @ (b - b.mean(axis=0))]
        nulls.append(np.quantile(chance, [0.05, 0.95]))
        tested.append(p_value(cosines[-1], chance, "two-sided"))
        ends.append(_cosine_interval(left, harm, names, draws, rng))
        reliable.append([_split_half(harm, folds, rng), _split_half(left, folds, rng)])
        unit = _unit(harm.mean(axis=0))
        old.append(length * unit)
        new.append(length * _unit(left.mean(axis=0) - (left.mean(axis=0) @ unit) * unit))
        origins.append(b.mean(axis=0))
    facts = dict(origin=np.array(origins), model=str(base.info.get("model", "")), scope=str(base.info.get("scope", "")))
    facts |= dict(n_positive=len(keys), n_negative=len(keys), matched=len(keys))
    return Rediscovered(
        sites=wanted,
        along=tuple(along),
        beside=tuple(beside),
        cosine=np.array(cosines),
        cosine_interval=np.array(ends),
        null=np.array(nulls),
        p=np.array(tested),
        reliability=np.array(reliable),
        old=Directions.of(wanted, np.array(old), kind="harmful shift", **facts),
        new=Directions.of(wanted, np.array(new), kind="shift of the repaired model beside the harmful one", **facts),
        prompts=len(keys),
        clusters=len(set(names)),
        margin=margin,
    )


def _means(rows: RowSource, site: Site, keys: list[str]) -> Float[np.ndarray, "n d_model"]:
    sums, counts = prompt_sums(narrowed(rows, [site]), site, keys)
    return sums / counts[:, None]


def _cross_fitted(
    harm: Float[np.ndarray, "n d_model"], left: Float[np.ndarray, "n d_model"], folds: np.ndarray
) -> Float[np.ndarray, "two n"]:
    """Each prompt's left·û and harm·û, with û fitted on the other folds. For the rest this would not do: over all folds
    each prompt would be scored by a direction that others fitted with it, and intervals came out too narrow (.83)."""
    scores = np.zeros((2, len(harm)))
    for fold in np.unique(folds):
        here = folds == fold
        unit = _unit(harm[~here].mean(axis=0))
        scores[:, here] = left[here] @ unit, harm[here] @ unit
    return scores


def _share(
    scores: Float[np.ndarray, " n"], length: float, names: list[str], margin: float, *, both_sides: bool
) -> Share:
    values = scores / length
    found = pooled_interval(values, names)
    if found.low > margin:
        presence: Presence = "present"
    elif found.high < margin and (found.low > -margin or not both_sides):
        presence = "absent"
    else:
        presence = "undecided"
    return Share(float(values.mean()), found, presence)


def _cosine_interval(
    left: Float[np.ndarray, "n d_model"], harm: Float[np.ndarray, "n d_model"], names: list[str], draws: int, rng: Any
) -> Float[np.ndarray, " two"]:
    """2.5 % and 97.5 % of the cosine of the means over resampled clusters."""
    index = np.unique(names, return_inverse=True)[1]
    k = int(index.max()) + 1
    weights = rng.multinomial(k, np.full(k, 1 / k), size=draws)[:, index].astype(np.float64)
    a, b = weights @ left, weights @ harm
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.divide((a * b).sum(axis=1), lengths, out=np.zeros(draws), where=lengths > 0)
    return np.quantile(cosines, [0.025, 0.975])


def _split_half(shift: Float[np.ndarray, "n d_model"], folds: np.ndarray, rng: np.random.Generator) -> float:
    """Mean cosine of the shifts of two random halves of the prompts, over 50 splits."""
    cosines = []
    for _ in range(50):
        half = rng.permutation(len(shift)) < len(shift) // 2
        cosines.append(_cosine(shift[half].mean(axis=0), shift[~half].mean(axis=0)))
    return float(np.mean(cosines))


def _unit(vector: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else np.zeros_like(vector)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(_unit(a) @ _unit(b))
