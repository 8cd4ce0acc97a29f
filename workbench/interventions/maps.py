"""TransferMap: what carries directions from one model's residual space into another's, with its own controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hooks.site import Site
from stores.printed import Printed
from workbench.interventions.linear_maps import Method, SiteMap
from workbench.interventions.maps_fitted import Fits, fit_sites
from workbench.interventions.maps_tested import Explained, Pair, explained, explained_by, gain
from workbench.interventions.transfer_rows import PairBy, families_of, matched_rows
from workbench.statistics import Interval
from workbench.subspace.directions import Directions, mean_of
from workbench.subspace.rows import RowSource, Sites, listed, site_among


@dataclass(frozen=True, eq=False)
class TransferMap(Printed):
    """A map a site from `source_model` to `target_model`; `layer_of` says which source site feeds each target site.

    `r2` is the share of the variance of held-out target rows that the mapped source rows explain; large axes rule it,
    so read `r2_along(v)` too. `matched` rows of `prompts` prompts were joined by `pair_by`; `only_source` and
    `only_target` rows were left over. `reversed`: wide to narrow, so the Procrustes problem was solved from target to
    source and transposed. `scale` is the length ratio a plain rotation leaves out (see `scaled`). `skipped` names
    target sites without a map. `layers` is the rule that paired the layers ("given": told), and `layer_scores`
    [target site][source site] what it compared. `rank_asked` is None where folds chose. `shuffle` is empty for the true
    pairing.
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
    ridge: float | int
    rank_asked: int | None
    scaled: bool
    shuffle: str
    skipped: Mapping[Site, str]
    layers: str
    layer_scores: Mapping[Site, Mapping[Site, float]] = dataclasses.field(repr=False)
    pair_by: PairBy
    family: str | None
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

    def r2_along(self, v: Directions, space: Literal["source", "target"] = "source") -> dict[Site, float]:
        """Held-out R² along one direction, a target site: beside the total R², which a few large axes rule.

        "source": of the target's coordinate along the image of `v`, what v's own coordinate explains (a partial R²: a
        map that carries nothing of v has about 0 here, whatever else it predicts there; 0 where the image has no
        length). "target": of the coordinate along `v`, a direction of the target such as the one measured there, what
        the map explains by whatever means.
        """
        return {site: 0.0 if one is None else one.r2 for site, one in self.explained(v, space).items()}

    def r2_interval(
        self, along: Directions | None = None, space: Literal["source", "target"] = "source", level: float = 0.95
    ) -> dict[Site, Interval | None]:
        """Intervals of `r2`, or of `r2_along`, over other prompts with this map: jackknife over held-out prompts. None
        where these are fewer than 5."""
        found = self.explained(along, space)
        return {site: None if one is None else one.interval(level) for site, one in found.items()}

    def gain(self, v: Directions) -> dict[Site, float]:
        """How much longer the map makes `v` than it makes the rows it was fitted on (root mean square), a target site;
        1 for a rotation, near 0 where the map is blind to v: the image is then what noise left."""
        unit = v.unit
        return {
            site: gain(self.maps[site], self.pairs[site], unit[v.sites.index(source)])
            for site, source in self._sources(v).items()
        }

    def explained(
        self, along: Directions | None = None, space: Literal["source", "target"] = "source"
    ) -> dict[Site, Explained | None]:
        """Held-out squared errors by prompt, in all directions or along one as in `r2_along`; None where the direction,
        or its image, has no length."""
        if along is None:
            return {site: explained(one, self.pairs[site]) for site, one in self.maps.items()}
        if space not in ("source", "target"):
            raise ValueError(f"space={space!r} is unknown: expected 'source' (v is mapped) or 'target'.")
        if space == "target":
            if along.model and self.target_model and along.model != self.target_model:
                raise ValueError(
                    f"space='target' takes a direction of {self.target_model!r}; expected it, and it was "
                    f"measured on {along.model!r}."
                )
            units = {site: along.unit[i] for i, site in enumerate(along.sites) if site in self.maps}
            return {
                site: explained(self.maps[site], self.pairs[site], unit) if unit.any() else None
                for site, unit in units.items()
            }
        there, here = self.map(along), self._sources(along)
        return {
            site: explained_by(
                self.maps[site], self.pairs[site], along.unit[along.sites.index(here[site])], there.unit[i]
            )
            if there.norm[i] > 0
            else None
            for i, site in enumerate(there.sites)
        }

    def tested_on(self, source: RowSource, target: RowSource) -> TransferMap:
        """The same maps, judged on other rows of both models: `r2` and `r2_along` are of these rows, against their own
        mean. A map of neutral prompts may predict neutral prompts well and say nothing of a behaviour they never show.

        Prompts that the map was fitted on, and those of their families, are left out. Raises ValueError when fewer than
        2 others match.
        """
        join = matched_rows(source, target, self.pair_by, self.family)
        known = set(families_of(*self.train_rows, self.family))
        new = np.array([family not in known for family in join.families], dtype=bool)
        if len({family for family, one in zip(join.families, new, strict=True) if one}) < 2:
            raise ValueError(
                f"{len(join)} rows match, and fewer than 2 of their prompts are new to this map: expected rows of "
                "prompts that it was not fitted on."
            )
        numbered = join.numbered(new)
        pairs = {}
        for site, pair in self.pairs.items():
            x, y = (
                np.asarray(rows.values(one, np.float64), np.float64)[places[new]]
                for rows, one, places in ((source, self.layer_of[site], join.left), (target, site, join.right))
            )
            changes = {"held_source": x, "held_target": y, "held_prompts": numbered, "baseline": y.mean(axis=0)}
            pairs[site] = dataclasses.replace(pair, **changes)
        r2 = {site: explained(one, pairs[site]).r2 for site, one in self.maps.items()}
        return dataclasses.replace(self, pairs=pairs, r2=r2, n_held_out=int(new.sum()))

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
        A rank that folds chose is chosen anew in every refit; layers stay those of the true pairs.
        Raises ValueError for the identity map (nothing is fitted), and when the classes are one, or one row each.
        """
        name, fits = self.refits(kind, by, n, seed, sites)
        found = []
        for fit in fits:
            pairs = {site: self.pairs[site] for site in fit.maps}
            fields = {"maps": fit.maps, "scale": fit.scale, "r2": fit.r2, "pairs": pairs}
            fields["layer_of"] = {site: self.layer_of[site] for site in fit.maps}
            found.append(dataclasses.replace(self, shuffle=name, **fields))
        return found

    def refits(
        self,
        kind: Literal["full", "within_class"] = "full",
        by: str | Sequence[str] = "label",
        n: int = 99,
        seed: int = 0,
        sites: Sites = None,
    ) -> tuple[str, Iterator[Fits]]:
        """The name of a shuffle and its refits one after another, as `shuffled` draws them: for wide models, of which
        n maps are not to be held at once."""
        if self.method == "identity":
            raise ValueError("the identity map fits no pairs, so there is nothing to shuffle: use procrustes or ridge.")
        if kind not in ("full", "within_class"):
            raise ValueError(f"kind={kind!r} is unknown: expected 'full' or 'within_class'.")
        groups = self._groups(by) if kind == "within_class" else [np.arange(self.n_train)]
        wanted = self.sites if sites is None else tuple(site_among(self.sites, one) for one in listed(sites))
        within = by if isinstance(by, str) else " x ".join(by)
        pairs = {site: self.pairs[site] for site in wanted}
        options = {"ridge": self.ridge, "scaled": self.scaled, "rank": self.rank_asked}

        def drawn() -> Iterator[Fits]:
            rng = np.random.default_rng(seed)
            for _ in range(n):
                order = np.arange(self.n_train)
                for group in groups:
                    order[group] = rng.permutation(group)
                yield fit_sites(pairs, self.method, order=order, **options)

        return ("shuffled pairs" if kind == "full" else f"pairs shuffled within {within}"), drawn()

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

    def rows(self) -> list[dict[str, Any]]:
        """One dict a target site: the source site it is fed by, held-out R², rank, length ratio."""
        return [
            {"site": str(site), "source": str(self.layer_of[site]), "r2": r2, "rank": self.rank[site],
             "scale": self.scale[site]}
            for site, r2 in self.r2.items()
        ]  # fmt: skip

    def __repr__(self) -> str:
        how = f"{self.method}{', reversed' if self.reversed else ''}{f', {self.shuffle}' if self.shuffle else ''}"
        return (
            f"TransferMap({how}, {self.source_model or '?'} -> {self.target_model or '?'}, {len(self.maps)} sites, "
            f"{self.matched} rows of {self.prompts} prompts matched, held-out R² {min(self.r2.values()):.2f}.."
            f"{max(self.r2.values()):.2f})"
        )
