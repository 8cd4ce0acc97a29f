"""Do the directions of many domains converge on one, or on several? Cosines, components that several domains share, and
groups, layer by layer, each against directions that share nothing but the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.cluster.hierarchy
import scipy.stats
from jaxtyping import Float

from hooks.site import Site
from workbench.statistics import p_value
from workbench.subspace.convergence_null import DrawnUnits, agreement, drawn_units, either
from workbench.subspace.convergence_result import ALPHA, Convergence, ConvergenceAt, SharedComponent
from workbench.subspace.directions import Directions
from workbench.subspace.grassmann import ISOTROPIC, STREAM, stream_rows
from workbench.subspace.rows import RowSource


def convergence(
    directions: Mapping[str, Sequence[Directions]],
    rows: RowSource | None = None,
    *,
    sites: Sequence[Site | str | int] | None = None,
    draws: int = 499,
    seed: int = 0,
) -> Convergence:
    """What the directions of several domains share at each site. `directions`: domain -> one for each fine-tuning seed,
    of one model; `rows`: activations of its base, of which the harder null is made (without them: isotropic alone).

    A domain's direction is the mean of its seeds' unit vectors. Null: as many random directions, uniform or random
    combinations of the rows. `cosine_p` of a pair is familywise (the largest |cosine| of all pairs of a draw).
    Components are the principal axes of the domains' unit vectors, around 0. One is *shared* when, with the axes before
    it taken out, some two domains still agree more (largest inner product; of the first one p with the mean over all
    pairs) than residuals of the same lengths in random directions do, for which the axes are fitted anew; the count
    ends at the first that is not. A component that one domain alone has is no shared one, however large. `groups` are
    the domains in the space of the shared components, in as many groups as it has dimensions (average linkage); `apart`
    are those with no more of themselves in it than random directions have.

    Raises ValueError for fewer than 3 domains, or a site at which some domain moved nothing.
    Source of the question: arXiv 2506.11618 (one direction), 2511.02022 (angles between fine-tunes).
    """
    first = _checked(directions)
    wanted = first.sites if sites is None else first[sites].sites
    found = {}
    for site in wanted:
        each = {domain: np.stack([one[site].unit[0] for one in own]) for domain, own in directions.items()}
        data = {ISOTROPIC: None} | ({} if rows is None else {STREAM: stream_rows(rows, site)})
        found[site] = _at_site(each, data, draws, seed)
    return Convergence(found, tuple(directions), first.d_model, draws, first.scope)


def _checked(directions: Mapping[str, Sequence[Directions]]) -> Directions:
    if len(directions) < 3 or not all(directions.values()):
        raise ValueError(f"convergence of {len(directions)} domains: expected at least 3, each with a direction.")
    every = [one for own in directions.values() for one in own]
    if len({(one.sites, one.d_model, one.role) for one in every}) > 1:
        raise ValueError("the directions have other sites, widths or roles: expected those of one model and capture.")
    for domain, own in directions.items():
        for one in own:
            if not one.norm.all():
                site = one.sites[int(np.flatnonzero(one.norm == 0)[0])]
                raise ValueError(f"{domain} moved nothing at {site}: pass sites= without it, or leave the domain out.")
    return every[0]


def _at_site(
    each: Mapping[str, Float[np.ndarray, "seed d_model"]],
    data: Mapping[str, Float[np.ndarray, "row d_model"] | None],
    draws: int,
    seed: int,
) -> ConvergenceAt:
    names = list(each)
    units = np.stack([unit_rows(own.mean(axis=0)) for own in each.values()])
    cosine, upper = units @ units.T, np.triu_indices(len(units), 1)
    _, values, axes = np.linalg.svd(units, full_matrices=False)
    null = {kind: drawn_units(len(units), axes, draws, rows=rows, seed=seed) for kind, rows in data.items()}
    hardest = null[list(null)[-1]]
    pairs = {kind: one.gram[:, *upper] for kind, one in null.items()}
    largest, means = np.abs(pairs[list(null)[-1]]).max(axis=1), {kind: own.mean(axis=1) for kind, own in pairs.items()}
    mean = float(cosine[upper].mean())
    components = _components(units, axes, values**2, null)
    shared = sum(one.p[list(null)[-1]] <= ALPHA for one in components)
    groups = _groups(units, axes[:shared], hardest, names)
    seeds = range(min(len(own) for own in each.values()))
    alike = [
        _groups(unit_rows(np.stack([own[i] for own in each.values()])), axes[:shared], hardest, names) for i in seeds
    ]
    return ConvergenceAt(
        cosine=cosine,
        cosine_p=np.array([[p_value(abs(value), largest) for value in row] for row in cosine]),
        within=_within(each),
        mean=mean,
        interval=_jackknife(cosine),
        null={kind: _range(own) for kind, own in means.items()},
        p={kind: p_value(mean, own) for kind, own in means.items()},
        effective_rank=effective_rank(values**2),
        null_rank={kind: _range(one.effective_ranks()) for kind, one in null.items()},
        components=components,
        groups=groups,
        apart=tuple(name for name in names if not any(name in group for group in groups)),
        seeds_alike=(sum(set(one) == set(groups) for one in alike), len(alike)),
        units=units,
    )


def _components(
    units: Float[np.ndarray, "n d_model"],
    axes: Float[np.ndarray, "k d_model"],
    energy: Float[np.ndarray, " k"],
    null: Mapping[str, DrawnUnits],
) -> tuple[SharedComponent, ...]:
    """Component by component, up to the first that no two domains share by the hardest null. Of n domains n - 2 can be
    tested: the residuals of two are each other's image, whatever they are."""
    out: list[SharedComponent] = []
    for k in range(1, len(units) - 1):
        fitted = units @ axes[: k - 1].T
        left = units - fitted @ axes[: k - 1]
        observed, pair = agreement(left @ left.T, k - 1)
        lengths = np.linalg.norm(left, axis=1)
        p = {kind: either(observed, one.agreements(fitted, lengths)) for kind, one in null.items()}
        axis = axes[k - 1] * (1 if (units @ axes[k - 1]).sum() >= 0 else -1)
        share = float(energy[k - 1] / energy.sum())
        out.append(SharedComponent(k, share, units @ axis, axis, observed[0], pair, p))
        if p[list(null)[-1]] > ALPHA:
            break
    return tuple(out)


def _groups(
    units: Float[np.ndarray, "n d_model"],
    axes: Float[np.ndarray, "k d_model"],
    null: DrawnUnits,
    names: Sequence[str],
) -> tuple[tuple[str, ...], ...]:
    """The domains with more of themselves along the axes than 95 % of random directions, in as many groups as there are
    axes, the largest first."""
    if not len(axes):
        return ()
    within = units @ axes.T
    enough = float(np.quantile((null.along[:, :, : len(axes)] ** 2).sum(axis=2), 1 - ALPHA))
    inside: list[int] = np.flatnonzero((within**2).sum(axis=1) > enough).tolist()
    if len(inside) < 2:
        return tuple((names[i],) for i in inside)
    turned = unit_rows(within[inside])
    distance = np.clip(1 - (turned @ turned.T)[np.triu_indices(len(inside), 1)], 0, None)
    label = scipy.cluster.hierarchy.fcluster(scipy.cluster.hierarchy.average(distance), len(axes), "maxclust")
    found = [
        tuple(names[i] for i, own in zip(inside, label, strict=True) if own == one) for one in dict.fromkeys(label)
    ]
    return tuple(sorted(found, key=len, reverse=True))


def _within(each: Mapping[str, Float[np.ndarray, "seed d_model"]]) -> dict[str, float]:
    """Mean cosine of two fine-tunings of one domain: the ceiling of what two domains can agree."""
    grams = {domain: unit_rows(own) @ unit_rows(own).T for domain, own in each.items() if len(own) > 1}
    return {domain: float(gram[np.triu_indices(len(gram), 1)].mean()) for domain, gram in grams.items()}


def _jackknife(cosine: Float[np.ndarray, "n n"]) -> tuple[float, float] | None:
    """95 % of the mean over pairs, by leaving out each domain in turn: pairs of one domain are not independent. None
    for 3 domains, of which one pair would be left."""
    n = len(cosine)
    if n < 4:
        return None
    rest = [np.delete(np.delete(cosine, i, 0), i, 1) for i in range(n)]
    without = np.array([one[np.triu_indices(n - 1, 1)].mean() for one in rest])
    error = np.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    far, mean = float(scipy.stats.t.ppf(0.975, n - 1) * error), float(cosine[np.triu_indices(n, 1)].mean())
    return max(-1.0, mean - far), min(1.0, mean + far)


def effective_rank(energy: Float[np.ndarray, " k"]) -> float:
    """exp of the entropy of the energies' shares. Source: Roy & Vetterli 2007."""
    share = energy[energy > 0] / energy.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def unit_rows(vectors: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
    """Each row over its length; a row of zeros stays one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-300)


def _range(draws: Float[np.ndarray, " draw"]) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.05, 0.95])
    return float(low), float(high)
