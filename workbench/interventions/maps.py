"""TransferMap: what carries directions from one model's residual space into another's, with its own controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hooks.site import Site
from workbench.interventions.linear_maps import Method, Pair, SiteMap, fit_sites, held_out_r2
from workbench.subspace.directions import Directions, mean_of
from workbench.subspace.rows import RowSource, Sites, listed, site_among


@dataclass(frozen=True, eq=False)
class TransferMap:
    """A map a site from `source_model` to `target_model`; `layer_of` says which source site feeds each target site.

    `r2` is the share of the variance of held-out target rows that the mapped source rows explain; large axes rule it,
    so read `r2_along(v)` too. `matched` rows of `prompts` prompts were joined by prompt id; `only_source` and
    `only_target` rows were left over. `reversed`: wide to narrow, so the Procrustes problem was solved from target to
    source and transposed. `scale` is the length ratio a plain rotation leaves out (see `scaled`). `skipped` names
    target sites without a map. `shuffle` is empty for the true pairing.
    """

    method: Method
    layer_of: Mapping[Site, Site]
    r2: Mapping[Site, float]
    scale: Mapping[Site, float]
    matched: int
    prompts: int
    only_source: int
    only_target: int
    n_train: int
    n_held_out: int
    reversed: bool
    source_model: str
    target_model: str
    scope: str
    ridge: float
    scaled: bool
    shuffle: str
    skipped: Mapping[Site, str]
    maps: Mapping[Site, SiteMap]
    pairs: Mapping[Site, Pair] = dataclasses.field(repr=False)
    train_rows: tuple[RowSource, np.ndarray] = dataclasses.field(repr=False)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The target sites that have a map."""
        return tuple(self.maps)

    @property
    def rank(self) -> dict[Site, int]:
        """Dimensions that the rows identify, a target site; what lies outside maps to zero."""
        return {site: one.rank for site, one in self.maps.items()}

    def map(self, v: Directions, target_origin: RowSource | Directions | None = None) -> Directions:
        """`v` in the target model: write vectors by Mᵀ, read-outs by the pseudo-inverse; the norm is what it becomes.

        `target_origin`, the target's own negative class (its rows, or the target's own directions), gives the origin of
        the result; without it the origin is the affine image of v's, and v without origin stays without.
        Raises ValueError when v was measured on another model, or none of its sites is mapped.
        """
        mapped = self._sources(v)
        sites = tuple(mapped)
        vectors = [
            self.maps[t].write(v.vector(s)) if v.role == "write" else self.maps[t].read(v.vector(s))
            for t, s in mapped.items()
        ]
        if isinstance(target_origin, Directions):
            origin = target_origin[sites].origin
            if origin is None:
                raise ValueError(
                    "target_origin carries no origin: pass the rows of the target's negative class instead."
                )
        elif target_origin is not None:
            origin = np.stack([mean_of(target_origin, site) for site in sites])
        elif v.origin is not None:
            origin = np.stack([self.maps[t].point(v.origin[v.sites.index(s)]) for t, s in mapped.items()])
        else:
            origin = None
        return Directions.of(
            sites,
            np.stack(vectors),
            origin=origin,
            role=v.role,
            model=self.target_model,
            scope=self.scope or v.scope,
            kind=f"{v.kind}, mapped by {self.method}{f' ({self.shuffle})' if self.shuffle else ''}",
            n_positive=v.n_positive,
            n_negative=v.n_negative,
        )

    def r2_along(self, v: Directions) -> dict[Site, float]:
        """Held-out R² along the image of the source direction `v`, a target site; 0 where the image has no length.

        Read it beside the norm of `map(v)`: a rotation that misplaces v shows here, but ridge shrinks what it cannot
        predict, and what is left of it may point along well-predicted axes.
        """
        there = self.map(v)
        return {
            site: held_out_r2(self.maps[site], self.pairs[site], there.unit[index]) if there.norm[index] > 0 else 0.0
            for index, site in enumerate(there.sites)
        }

    def shuffled(
        self,
        kind: Literal["full", "within_class"] = "full",
        by: str | Sequence[str] = "label",
        n: int = 99,
        seed: int = 0,
        sites: Sites = None,
    ) -> list[TransferMap]:
        """n refits on wrong pairs, judged on the true held-out pairs.

        "full" pairs any row with any other: nothing of the correspondence is left. "within_class" pairs rows of the
        same class only, by label, "variant", a tag, or several: class means still correspond, items do not. A direction
        that such a map carries as well as the true one shows a shared class contrast and no item-level correspondence.
        Raises ValueError for the identity map (nothing is fitted), and when the classes are one, or one row each.
        """
        if self.method == "identity":
            raise ValueError("the identity map fits no pairs, so there is nothing to shuffle: use procrustes or ridge.")
        if kind not in ("full", "within_class"):
            raise ValueError(f"kind={kind!r} is unknown: expected 'full' or 'within_class'.")
        groups = self._groups(by) if kind == "within_class" else [np.arange(self.n_train)]
        wanted = self.sites if sites is None else tuple(site_among(self.sites, one) for one in listed(sites))
        name = (
            "shuffled pairs"
            if kind == "full"
            else f"pairs shuffled within {by if isinstance(by, str) else ' x '.join(by)}"
        )
        rng = np.random.default_rng(seed)
        pairs, layer_of = {site: self.pairs[site] for site in wanted}, {site: self.layer_of[site] for site in wanted}
        found = []
        for _ in range(n):
            order = np.arange(self.n_train)
            for group in groups:
                order[group] = rng.permutation(group)
            fits = fit_sites(pairs, self.method, ridge=self.ridge, scaled=self.scaled, order=order)
            fields = {"maps": fits.maps, "scale": fits.scale, "r2": fits.r2, "layer_of": layer_of, "pairs": pairs}
            found.append(dataclasses.replace(self, shuffle=name, **fields))
        return found

    def _groups(self, by: str | Sequence[str]) -> list[np.ndarray]:
        rows, index = self.train_rows
        names = [by] if isinstance(by, str) else list(by)
        known = {"label": rows.labels, "variant": rows.variants}
        columns = [known[name] if name in known else rows.tag(name) for name in names]
        keys = [tuple(str(column[i]) for column in columns) for i in index]
        groups = [np.array([i for i, key in enumerate(keys) if key == one]) for one in sorted(set(keys))]
        if len(groups) < 2 or max(map(len, groups)) < 2:
            raise ValueError(
                f"shuffling within {names} needs 2 or more classes of 2 or more rows: {len(groups)} of at most "
                f"{max(map(len, groups))} rows came. Give prompts labels, or name another tag with by=."
            )
        return groups

    def _sources(self, v: Directions) -> dict[Site, Site]:
        if v.model and self.source_model and v.model != self.source_model:
            raise ValueError(
                f"this map starts from {self.source_model!r}, and the direction was measured on {v.model!r}. "
                "Fit the map from that model's rows."
            )
        mapped = {target: source for target, source in self.layer_of.items() if source in v.sites}
        if not mapped:
            raise ValueError(
                f"no site of this direction is mapped: it has {', '.join(map(str, v.sites))}, the map starts from "
                f"{', '.join(map(str, dict.fromkeys(self.layer_of.values())))}."
            )
        return mapped

    def __repr__(self) -> str:
        how = f"{self.method}{', reversed' if self.reversed else ''}{f', {self.shuffle}' if self.shuffle else ''}"
        return (
            f"TransferMap({how}, {self.source_model or '?'} -> {self.target_model or '?'}, {len(self.maps)} sites, "
            f"{self.matched} rows of {self.prompts} prompts matched, held-out R² {min(self.r2.values()):.2f}.."
            f"{max(self.r2.values()):.2f})"
        )
