"""compare_maps: maps fitted on neutral and on behaviour-spanning prompts side by side, each against its shuffles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from workbench.interventions.maps import TransferMap
from workbench.interventions.maps_comparison import OWN_ROWS, MapComparison, MapRow, Score, Shuffles
from workbench.subspace.directions import Directions
from workbench.subspace.rows import RowSource, Sites, listed, site_among

KINDS = ("full", "within_class")


def compare_maps(
    maps: Mapping[str, TransferMap],
    v: Directions,
    own: Directions | None = None,
    *,
    tested_on: Mapping[str, tuple[RowSource, RowSource]] | None = None,
    shuffles: int = 99,
    by: str | Sequence[str] = "label",
    sites: Sites = None,
    seed: int = 0,
) -> MapComparison:
    """How well each map predicts, in total and along `v`, and what of its image of `v` shuffled pairs give as well.

    `maps` by name, such as {"ridge on neutral": ..., "ridge on behaviour": ...}: fitted on prompts of any kind between
    the same two models. `own` is the recipient's own direction, the ceiling; with it come R² along it and the cosine of
    the mapped v with it. `tested_on` names (source, target) rows on which every map is judged beside its own held-out
    prompts: a map of neutral prompts may be blind to a direction that neutral prompts never show, and only rows that
    vary along it tell (on others, R² along a measured direction is that of the large axes its estimate holds). Each map
    is refitted `shuffles` times on pairs shuffled fully, and within the classes `by` where its rows have classes: a map
    that does no better than the latter carries the contrast of class means.

    `sites`: of the target; default all that v has. Raises ValueError for no maps, names used twice, and where `v` or
    `own` belong to other models. Cost: `shuffles` refits of every map, kind and site.
    """
    if not maps:
        raise ValueError("compare_maps needs maps: expected {name: wb.fit_transfer(...)}.")
    others = dict(tested_on or {})
    if OWN_ROWS in others:
        raise ValueError(f"tested_on: {OWN_ROWS!r} is the name of each map's own held-out prompts; choose another.")
    rows: list[MapRow] = []
    drawn: list[Shuffles] = []
    notes: dict[str, str] = {}
    for name, carry in maps.items():
        there = carry.map(v)
        wanted = there.sites if sites is None else tuple(site_among(there.sites, one) for one in listed(sites))
        for tested, one in {OWN_ROWS: carry, **_judged(carry, others, notes, name)}.items():
            rows += _rows(name, tested, one, v, own, wanted)
        if carry.method == "identity":
            notes[f"{name}, shuffles"] = "nothing is fitted, so there are no pairs to shuffle"
            continue
        for kind in KINDS if shuffles else ():
            try:
                title, fits = carry.refits(kind, by, shuffles, seed, wanted)
            except ValueError as error:  # rows without classes, such as neutral prompts
                notes[f"{name}, {kind}"] = str(error)
                continue
            drawn.append(_shuffles(name, kind, title, carry, fits, v, own, wanted))
    return MapComparison(tuple(rows), tuple(drawn), tuple(maps), notes)


def _judged(
    carry: TransferMap, others: Mapping[str, tuple[RowSource, RowSource]], notes: dict[str, str], name: str
) -> dict[str, TransferMap]:
    found: dict[str, TransferMap] = {}
    for tested, (source, target) in others.items():
        try:
            found[tested] = carry.tested_on(source, target)
        except ValueError as error:  # the rows that this map was fitted on
            notes[f"{name}, tested on {tested}"] = str(error)
    return found


def _rows(
    name: str, tested: str, carry: TransferMap, v: Directions, own: Directions | None, wanted: Sequence
) -> list[MapRow]:
    total, along, there, gains = carry.explained(), carry.explained(v), carry.map(v), carry.gain(v)
    toward = {} if own is None else carry.explained(own, "target")
    found = []
    for site in wanted:
        whole = total[site]
        assert whole is not None  # in all directions there is always an error
        i = there.sites.index(site)
        nowhere = not v.norm[v.sites.index(carry.layer_of[site])]  # the source's own direction has no length there
        found.append(
            MapRow(
                name=name,
                tested=tested,
                method=carry.method,
                site=site,
                source=carry.layer_of[site],
                rank=carry.maps[site].rank,
                n=carry.n_held_out,
                r2=Score.of(whole),
                along=None if nowhere else Score.of(along[site]) or Score(0.0, None, len(whole.error)),
                toward=Score.of(toward.get(site)),
                gain=None if nowhere else gains[site],
                norm=float(there.norm[i]),
                cosine=None if nowhere else _cosine(there.unit[i], own, site),
            )
        )
    return found


def _shuffles(
    name: str, kind: str, title: str, carry: TransferMap, fits, v: Directions, own: Directions | None, wanted: Sequence
) -> Shuffles:
    """R² and cosine with `own` of every refit and site; the refits are dropped as soon as they are measured."""
    unit = {site: v.unit[v.sites.index(carry.layer_of[site])] for site in wanted}
    r2, cosine = [], []
    for fit in fits:
        r2.append([fit.r2[site] for site in wanted])
        if own is not None:
            role = {site: fit.maps[site].write if v.role == "write" else fit.maps[site].read for site in wanted}
            cosine.append([_cosine(role[site](unit[site]), own, site) for site in wanted])
    # None becomes NaN: a site where one of the directions has no length, or is not there
    cosines = None if own is None else np.array(cosine, np.float64)
    return Shuffles(name, kind, title, tuple(wanted), np.array(r2), cosines)


def _cosine(vector: np.ndarray, own: Directions | None, site) -> float | None:
    """None without a direction to compare with; 0 where the image has no length."""
    if own is None or site not in own.sites:
        return None
    there, length = own.unit[own.sites.index(site)], float(np.linalg.norm(vector))
    return None if not there.any() else float(vector @ there) / length if length > 0 else 0.0
