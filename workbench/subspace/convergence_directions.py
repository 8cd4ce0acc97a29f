"""The directions of many fine-tunes of one base, each fitted on the prompts that are not about its own domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from stores.printed import Printed
from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions, mean_of
from workbench.subspace.means import difference_of_means
from workbench.subspace.rows import RowSource
from workbench.subspace.shift import shift_pca


@dataclass(frozen=True, eq=False)
class DomainDirections(Printed):
    """Domain -> the directions of its fine-tunes, at the sites where all of them moved. `left_out`: domains without
    one, and why. `rows`: what they were fitted on, `base`: those of them that are the base's, of which nulls are made.
    `fitted_on`: the fewest prompts of any direction."""

    directions: Mapping[str, Sequence[Directions]]
    groups: Mapping[str, Sequence[str]]
    sites: tuple[Site, ...]
    left_out: Mapping[str, str]
    rows: RowSource
    base: RowSource
    fitted_on: int

    @property
    def mean(self) -> dict[str, Directions]:
        """Domain -> the mean over its fine-tunes, as measured (norms included)."""
        out = {}
        for domain, own in self.directions.items():
            vectors = np.mean([one.vectors for one in own], axis=0)
            facts = dict(origin=own[0].origin, model=own[0].model, scope=own[0].scope)
            out[domain] = Directions.of(self.sites, vectors, kind=f"mean of {len(own)} fine-tunes", **facts)
        return out

    def middle(self, layer: int | None = None) -> int:
        """The layer that is shown: the one asked for, or the middle of those that all fine-tunes moved."""
        layers = [site.layer for site in self.sites]
        if layer is not None and layer not in layers:
            raise ValueError(
                f"layer {layer}: expected one that every fine-tune moved, of {', '.join(map(str, layers))}."
            )
        return layers[len(layers) // 2] if layer is None else layer

    def subspaces(self, k: int) -> dict[str, list[Subspace]]:
        """Domain -> the first k components of each fine-tune's paired shift on all prompts, its mean included."""
        return {domain: [self._subspace(name, k) for name in self.groups[domain]] for domain in self.directions}

    def _subspace(self, variant: str, k: int) -> Subspace:
        tuned = self.rows.where(variant=variant)
        return shift_pca(self.base, tuned, "paired_shift_raw", k, null=None, sites=list(self.sites)).subspace

    def measured(self, variants: Iterable[str]) -> dict[str, Float[np.ndarray, "site d_model"]]:
        """Variant -> its mean shift at each site over all prompts."""
        before = np.stack([mean_of(self.base, site) for site in self.sites])
        return {
            name: np.stack([mean_of(self.rows.where(variant=name), site) for site in self.sites]) - before
            for name in variants
        }


def domain_directions(
    rows: RowSource,
    groups: Mapping[str, Sequence[str]],
    domains: Mapping[str, str | None],
    *,
    base: str = "base",
    shown: str | None = None,
    splits: int = 20,
    seed: int = 0,
) -> DomainDirections:
    """difference_of_means(fine-tune, base) of every adapter in `groups` (domain -> variants), on prompts about other
    domains (`domains`: prompt id -> domain, None for none), or on all where there is no other.

    Rows are those of variants by their name; `shown` narrows to prompts whose tag `shown_as` is this (`with_triggers`).
    `splits` and `seed` are those of its reliability. A fine-tune that moved nothing leaves its domain out. Raises
    ValueError when fewer than 3 domains are left, or no site at which all of them moved.
    """
    if shown is not None:
        rows = rows.where(shown_as=shown)
    found: dict[str, list[Directions]] = {}
    left_out, fewest = {}, len(domains)
    plain = rows.where(variant=base)
    for domain, names in groups.items():
        others = {prompt for prompt in plain.prompt_ids if domains.get(prompt) != domain} or set(plain.prompt_ids)
        against = plain.where(prompt_id=others)
        made = [
            difference_of_means(rows.where(variant=name, prompt_id=others), against, splits=splits, seed=seed)
            for name in names
        ]
        if not all(one.norm.any() for one in made):
            left_out[domain] = "a fine-tune that moved nothing"
            continue
        found[domain], fewest = made, min(fewest, len(others))
    if len(found) < 3:
        raise ValueError(
            f"directions of {len(found)} domains ({left_out or 'no more were trained'}): expected 3 or more."
        )
    every = [one for own in found.values() for one in own]
    moved = np.all([one.norm > 0 for one in every], axis=0)
    if not moved.any():
        raise ValueError("there is no site at which every fine-tune moved something: expected one kind of adapter.")
    sites = tuple(site for site, there in zip(every[0].sites, moved, strict=True) if there)
    kept = {domain: [one[list(sites)] for one in own] for domain, own in found.items()}
    return DomainDirections(kept, groups, sites, left_out, rows, plain, fewest)


def label_directions(
    rows: RowSource,
    reference: str | None = None,
    *,
    sites: Sequence[Site | str | int] | None = None,
    seed: int = 0,
) -> dict[str, Directions]:
    """Label -> difference of means of its rows and those of the label `reference`: what a persona's prompt moves.

    Where no row has that label, the first label in order is the reference. Raises ValueError for fewer than 2 labels.
    """
    labels = list(dict.fromkeys(str(label) for label in rows.labels if label is not None))
    if len(labels) < 2:
        raise ValueError(f"prompts of {len(labels)} labels: expected a reference and one more.")
    against = rows.where(label=reference if reference in labels else labels[0])
    return {
        label: difference_of_means(rows.where(label=label), against, sites=sites, seed=seed)
        for label in labels
        if label != (reference if reference in labels else labels[0])
    }
