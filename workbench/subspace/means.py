"""Difference of means: mean of the positive rows minus mean of the negative rows, a site at a time, in float64."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from workbench.subspace.directions import Directions
from workbench.subspace.rows import RowSource, Sites, chosen_sites, narrowed, one_width, prompt_sums
from workbench.subspace.streamed import StreamedMoments

# A difference below this share of the means is float64 rounding of equal sums; one bf16 step in one row is 1e-9.
ROUNDING = 1e-12

Classes = RowSource | StreamedMoments


def difference_of_means(
    rows: Classes,
    against: Classes | None = None,
    /,
    *,
    positive: str | None = None,
    negative: str | None = None,
    sites: Sites = None,
    paired: bool | None = None,
    splits: int = 50,
    seed: int = 0,
) -> Directions:
    """One write vector a site: mean(positive) - mean(negative), with split-half reliability.

    Two views, positive first, or one source and two labels: `difference_of_means(store, positive="on",
    negative="off")`. Every row weighs the same, so a prompt with more rows weighs more. Views over the same prompts are
    paired by prompt id (each split then puts a prompt's rows of both classes into the same half); views over different
    prompts are not. `origin` is the mean of the negative rows. `reliability` is the mean cosine between the directions
    of two random halves of the prompts over `splits` splits: near 0 for noise, near 1 for a direction the data agree
    on; None when a class has one prompt only.

    Two views of what `wb.moments` gave serve as well. Their halves were drawn there (`seed` has no effect here, and
    there are at most as many `splits`), balanced within each class that it told apart: `reliability` is the same
    estimate from other halves, and somewhat higher for views that span several classes. `residual_norm` is exact to
    0.3 %.

    Raises ValueError when a class is empty, when both are the same rows, when the prompts overlap in part and `paired`
    does not say what to do with the rest, or when the sites have different widths.
    Source: Marks & Tegmark 2023, arXiv:2310.06824; split halves: Spearman 1910.
    """
    first, second = _two_classes(rows, against, positive, negative)
    if isinstance(first, StreamedMoments) or isinstance(second, StreamedMoments):
        return _of_sums(first, second, sites, paired, splits)
    wanted = chosen_sites(first, sites)
    chosen_sites(second, wanted)
    width = one_width(first, wanted)
    first, second = narrowed(first, wanted), narrowed(second, wanted)
    _refuse_empty(first, second)
    _refuse_identical(first, second, wanted)
    keys, is_paired = _prompts(first, second, paired)
    halves = _halves(keys, is_paired, splits, np.random.default_rng(seed))

    vectors, origins, positives = (np.zeros((len(wanted), width)) for _ in range(3))
    reliability, lengths = np.zeros(len(wanted)), np.zeros(len(wanted))
    counts = (np.zeros(0), np.zeros(0))
    for index, site in enumerate(wanted):
        (sums_p, n_p), (sums_n, n_n) = prompt_sums(first, site, keys[0]), prompt_sums(second, site, keys[1])
        if sums_p.shape[1] != sums_n.shape[1]:
            raise ValueError(
                f"the classes have widths {sums_p.shape[1]} and {sums_n.shape[1]} at {site}: one model a call."
            )
        positives[index], origins[index] = sums_p.sum(axis=0) / n_p.sum(), sums_n.sum(axis=0) / n_n.sum()
        vectors[index] = _difference(positives[index], origins[index])
        if halves is not None:
            a, b = (
                _difference(_half_means(sums_p, n_p, mask_p), _half_means(sums_n, n_n, mask_n))
                for mask_p, mask_n in (halves, (~halves[0], ~halves[1]))
            )
            reliability[index] = np.mean(np.einsum("sd,sd->s", _unit(a), _unit(b)))
        counts = (n_p, n_n)
        lengths[index] = np.median(np.concatenate([np.linalg.norm(batch, axis=1) for batch in second.batches(site)]))
    return Directions.of(
        wanted,
        vectors,
        origin=origins,
        role="write",
        model=str(first.info.get("model", "")),
        scope=str(first.info.get("scope", "")),
        kind="difference of means",
        n_positive=int(counts[0].sum()),
        n_negative=int(counts[1].sum()),
        reliability=None if halves is None else reliability,
        positive_mean=positives,
        matched=len(keys[0]) if is_paired else None,
        residual_norm=lengths,
    )


def _of_sums(first: Classes, second: Classes, sites: Sites, paired: bool | None, splits: int) -> Directions:
    """The same from streamed sums, whose halves exist already."""
    if not isinstance(first, StreamedMoments) or not isinstance(second, StreamedMoments):
        raise ValueError("one class is streamed moments and the other is rows: expected both of one kind.")
    wanted = chosen_sites(first, sites)
    chosen_sites(second, wanted)
    one_width(first, wanted)
    first, second = first.at(wanted[0]), second.at(wanted[0])
    if first.parts == second.parts and first.chosen == second.chosen:
        raise ValueError(
            "positive and negative are the same groups: their difference is zero by construction. Select different "
            "variants or labels, as in stats.where(variant='tuned'), stats.where(variant='base')."
        )
    a, b = set(first.prompt_ids), set(second.prompt_ids)
    if (paired or paired is None) and (a & b) and a != b:
        raise ValueError(
            f"{len(a & b)} of {len(a | b)} prompts are in both classes, and sums cannot leave the others out: say "
            "paired=False (all of them), or choose groups of the same prompts."
        )
    if paired and not a & b:
        raise ValueError("paired=True, but the classes share no prompt id. Leave paired out for classes of prompts.")
    positives, origins = (np.stack([view.mean(site) for site in wanted]) for view in (first, second))
    return Directions.of(
        wanted,
        _difference(positives, origins),
        origin=origins,
        role="write",
        model=str(first.info.get("model", "")),
        scope=str(first.info.get("scope", "")),
        kind="difference of means",
        n_positive=len(first),
        n_negative=len(second),
        reliability=_reliability(first, second, wanted, splits) if min(len(a), len(b)) > 1 else None,
        positive_mean=positives,
        matched=len(a) if a == b and paired is not False else None,
        residual_norm=np.array([second.median_norm(site) for site in wanted]),
    )


def _reliability(
    first: StreamedMoments, second: StreamedMoments, wanted: Iterable[Site], splits: int
) -> Float[np.ndarray, " site"] | None:
    """Mean cosine of the halves, over the splits in which no half of a class is empty; None when there are none. The
    halves of one prompt are the same in both classes, which pairs them."""
    out = []
    for site in wanted:
        halves = zip(first.halves(site), second.halves(site), strict=True)
        a, b = (_difference(positive[:splits], negative[:splits]) for positive, negative in halves)
        whole = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        if not whole.any():
            return None
        out.append(np.mean(np.einsum("sd,sd->s", _unit(a[whole]), _unit(b[whole]))))
    return np.array(out)


def _two_classes(
    rows: Classes, against: Classes | None, positive: str | None, negative: str | None
) -> tuple[Classes, Classes]:
    by_label = positive is not None and negative is not None
    if by_label == (against is not None) or (positive is None) != (negative is None):
        raise ValueError(
            "expected two views, difference_of_means(positive_rows, negative_rows), or one source and two labels, "
            "difference_of_means(store, positive='on', negative='off')."
        )
    if against is None:
        if positive == negative:
            raise ValueError(f"positive and negative are both {positive!r}: the classes must differ.")
        return rows.where(label=positive), rows.where(label=negative)
    return rows, against


def _refuse_empty(first: RowSource, second: RowSource) -> None:
    for name, view in (("positive", first), ("negative", second)):
        if not len(view):
            raise ValueError(f"the {name} class has no rows: nothing to take a mean of. Loosen its where(...).")


def _refuse_identical(first: RowSource, second: RowSource, sites: Iterable[Site]) -> None:
    """The same rows twice give a zero that looks like a frozen tower; two variants that agree are a finding."""
    names = [
        (str(view.info.get("model")), list(view.prompt_ids), list(view.variants), np.asarray(view.positions).tolist())
        for view in (first, second)
    ]
    if names[0] == names[1] and all(
        np.array_equal(a, b) for site in sites for a, b in zip(first.batches(site), second.batches(site), strict=True)
    ):
        raise ValueError(
            f"positive and negative are the same {len(first)} rows: their difference is zero by construction. "
            "Select different variants or labels, as in store.where(variant='tuned'), store.where(variant='base')."
        )


def _prompts(first: RowSource, second: RowSource, paired: bool | None) -> tuple[tuple[list[str], list[str]], bool]:
    a, b = set(first.prompt_ids), set(second.prompt_ids)
    shared = sorted(a & b)
    if paired and not shared:
        raise ValueError("paired=True, but the classes share no prompt id. Leave paired out for classes of prompts.")
    if paired is None and shared and a != b:
        raise ValueError(
            f"{len(shared)} prompts are in both classes, {len(a) - len(shared)} only in the positive and "
            f"{len(b) - len(shared)} only in the negative: say paired=True (the shared only) or paired=False (all)."
        )
    if paired or (paired is None and shared):
        return (shared, shared), True
    return (sorted(a), sorted(b)), False


def _halves(
    keys: tuple[list[str], list[str]], is_paired: bool, splits: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Boolean masks [split, prompt] of the first half of each class; paired classes share them."""
    if splits < 1 or min(len(keys[0]), len(keys[1])) < 2:
        return None
    masks = [rng.permuted(np.tile(np.arange(len(k)) < len(k) // 2, (splits, 1)), axis=1) for k in keys]
    return (masks[0], masks[0]) if is_paired else (masks[0], masks[1])


def _half_means(
    sums: Float[np.ndarray, "key d_model"], counts: np.ndarray, mask: np.ndarray
) -> Float[np.ndarray, "split d_model"]:
    weights = mask.astype(np.float64)
    return (weights @ sums) / (weights @ counts)[:, None]


def _difference(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """positive - negative over the last axis, exactly zero where what is left is the rounding of equal sums."""
    difference = positive - negative
    scale = np.maximum(np.linalg.norm(positive, axis=-1), np.linalg.norm(negative, axis=-1))
    frozen = np.linalg.norm(difference, axis=-1) <= ROUNDING * scale
    return np.where(frozen[..., None], 0.0, difference)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
