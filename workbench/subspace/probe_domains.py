"""probe_domains: do probes of one domain's fine-tunes read another's? Matrices over domains, from those over models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from hooks.site import Site
from workbench.statistics import auroc_interval, max_statistic
from workbench.subspace.erase import leace_of
from workbench.subspace.probe import PROBE_METHODS, ProbeScale
from workbench.subspace.probe_domains_result import DomainCell, DomainProbes, LayerMean, MethodProbes
from workbench.subspace.probe_exchange import Keys, design_within, exchanged, influence, within_groups
from workbench.subspace.probe_matrix import probe_matrix
from workbench.subspace.probe_matrix_result import ProbeMatrix
from workbench.subspace.probe_means import FAR, NEAR, OTHER, SAME, TWIN, KindMean, Pair, joined, kind_mean, over_domains
from workbench.subspace.probe_null import permuted_aurocs
from workbench.subspace.probe_rows import Families, LabelledRows, Verdicts, family_of, labelled, sides_of
from workbench.subspace.rows import RowSource, Sites


def probe_domains(
    rows: Mapping[str, RowSource],
    verdicts: Mapping[str, Verdicts],
    groups: Mapping[str, Sequence[str]],
    *,
    methods: Sequence[str] = PROBE_METHODS,
    sites: Sites = None,
    families: Families = None,
    exchange: Families = None,
    categories: Mapping[str, str] | None = None,
    scale: ProbeScale = "none",
    shares: tuple[float | int, float | int] = (0.5, 0.2),
    draws: int = 999,
    seed: int = 0,
) -> DomainProbes:
    """`wb.probe_matrix` of all models for each of `methods`, and its cells joined over the fine-tunes of a domain.

    `rows` are each model's activations, `verdicts` its labels by prompt id, `groups` the models of each domain ("base":
    ["base"] may be one). Probes are fitted on train families, each probe's layer is chosen on its own model's dev
    families, and what is stated comes from confirm families. A cell is the mean AUROC of the probes of one domain on
    the models of another; on the diagonal the models that a probe was fitted on, and other fine-tunes of the domain,
    are kept apart. Its interval is over families and over fine-tunes. Its null exchanges labels between the rows of
    one `exchange` group (a tag or mapping as `families`; default: the family), alike in all models; `within` is the
    AUROC among rows of one such group. `erased`: the same after LEACE of the rows that are tested.

    Models without rows, or without 2 families of each class on the train and the confirm side, are left out, and named;
    where none is left the result is empty. Sources: Marks & Tegmark 2023, arXiv:2310.06824; Belrose et al. 2023,
    arXiv:2306.03819.
    """
    listed = [name for names in groups.values() for name in names]
    if len(set(listed)) < len(listed) or set(listed) - set(verdicts):
        raise ValueError(f"groups name {', '.join(listed)}: expected some of {', '.join(verdicts)}, each at most once.")
    rows = {name: rows[name] for name in listed if name in rows}
    found = {name: labelled(name, one, verdicts[name], families=families) for name, one in rows.items()}
    counts = {name: (len(found[name].positive), int(found[name].positive.sum())) if name in found else (0, 0)
              for name in listed}  # fmt: skip
    absent = {name: "it has no rows" for name in listed if name not in rows}
    if not rows:
        return DomainProbes((), tuple(groups), counts, absent, draws, {})
    every = [family for one in found.values() for family in one.families]
    sides = sides_of([key for one in found.values() for key in one.prompt_ids], every, shares, seed)
    options = dict(sites=sites, families=families, scale=scale, shares=shares, seed=seed, draws=0, paired=False)
    measured, left_out, keys = [], {}, Keys(draws, seed)
    for method in methods:
        try:
            matrix = probe_matrix(rows, verdicts, method=method, unusable="leave out", **options)  # type: ignore
        except ValueError as error:
            if "no model can be used" not in str(error):
                raise
            why = "too few answers of one class, as in all models"
            return DomainProbes((), tuple(groups), counts, absent | dict.fromkeys(found, why), draws, {})
        left_out = absent | dict(matrix.left_out)
        tested = {name: _tested(found[name], sides, rows[name], exchange) for name in matrix.models}
        measured.append(_of_method(matrix, tested, groups, categories or {}, keys))
    prompts = {side: len({key for one in found.values() for key, family in
                          zip(one.prompt_ids, one.families, strict=True) if sides[family] == side})
               for side in ("train", "dev", "confirm")}  # fmt: skip
    return DomainProbes(tuple(measured), tuple(groups), counts, left_out, draws, prompts)


@dataclass(frozen=True, eq=False)
class _Tested:
    """The confirm rows of one model, and the group within which each is exchanged."""

    rows: LabelledRows
    exchange: tuple[str, ...]


def _tested(found: LabelledRows, sides: Mapping[str, str], rows: RowSource, exchange: Families) -> _Tested:
    confirm = found.chosen(np.array([sides[family] == "confirm" for family in found.families]))
    if exchange is None:
        return _Tested(confirm, confirm.families)
    group = family_of(rows, exchange)
    return _Tested(confirm, tuple(group(int(i)) for i in confirm.index))


def _of_method(
    matrix: ProbeMatrix,
    tested: Mapping[str, _Tested],
    groups: Mapping[str, Sequence[str]],
    categories: Mapping[str, str],
    keys: Keys,
) -> MethodProbes:
    layers = {name: _best(matrix, name) for name in matrix.models}
    number = {family: n for n, family in enumerate(sorted({f for one in tested.values() for f in one.rows.families}))}
    pairs = {name: _pairs(matrix, layers, one, number, keys) for name, one in tested.items()}
    domain = {name: group for group, names in groups.items() for name in names if name in tested}
    places: dict[tuple[str, str, str], list[tuple[str, str, Pair]]] = {}
    for s in matrix.models:
        for t in matrix.models:
            kind = OTHER if domain[s] != domain[t] else SAME if s == t else TWIN
            places.setdefault((domain[s], domain[t], kind), []).append((s, t, pairs[t][s]))
    cells = [DomainCell(*place, joined(some)) for place, some in places.items()]
    if keys.draws:
        p = max_statistic([one.found.auroc for one in cells], np.stack([one.found.null for one in cells], axis=1))
        cells = [
            DomainCell(one.source, one.target, one.kind, one.found, float(q)) for one, q in zip(cells, p, strict=True)
        ]
    dev = {name: float(matrix.best(name, name).dev_value) for name in layers}
    chosen = {name: (site.layer, dev[name]) for name, site in layers.items()}
    return MethodProbes(
        matrix.method, tuple(cells), chosen, _means(cells, categories), _by_layer(matrix, domain, categories)
    )


def _best(matrix: ProbeMatrix, model: str) -> Site:
    """The site where a model's probe does best on its own dev families; the first of equals."""
    chosen = matrix.best(model, model).winner
    assert isinstance(chosen, Site)
    return chosen


def _pairs(
    matrix: ProbeMatrix, layers: Mapping[str, Site], tested: _Tested, number: Mapping[str, int], keys: Keys
) -> dict[str, Pair]:
    """Every model's probe, at its own layer, on the confirm rows of one model."""
    rows = tested.rows
    labels = exchanged(rows.positive, rows.prompt_ids, tested.exchange, keys)
    family = np.array([number[one] for one in rows.families])
    out: dict[str, Pair] = {}
    for site in dict.fromkeys(layers.values()):
        values = rows.values(site)
        eraser = leace_of([values[rows.positive], values[~rows.positive]])
        erased = values - ((values - eraser.mean) @ eraser.read.T) @ eraser.write
        for source in (name for name, at in layers.items() if at == site):
            probe = matrix.probes[source]
            vector, threshold = probe.read.vector(site), float(probe.threshold[probe.sites.index(site)])
            scores = values @ vector - threshold, erased @ vector - threshold
            out[source] = _pair(*scores, tested, family, len(number), labels)
    return out


def _pair(
    scores: Float[np.ndarray, " row"],
    erased: Float[np.ndarray, " row"],
    tested: _Tested,
    family: Int[np.ndarray, " row"],
    families: int,
    labels: Bool[np.ndarray, "draw row"],
) -> Pair:
    rows, positive = tested.rows, tested.rows.positive
    area, moved = influence(scores, positive, family, families)
    left, left_moved = influence(erased, positive, family, families)
    within, pairs = within_groups(scores, positive, tested.exchange)
    called = scores > 0
    sides = [set(family[positive].tolist()), set(family[~positive].tolist())]
    alone = None
    if area in (0.0, 1.0) or not moved.any():
        names = rows.clusters
        alone = auroc_interval(scores[positive], scores[~positive], names[positive].tolist(), names[~positive].tolist())
    return Pair(
        auroc=area,
        moved=moved,
        freedom=len(sides[0] | sides[1]) - 1 if sides[0] & sides[1] else min(map(len, sides)) - 1,
        erased=left,
        erased_moved=left_moved,
        balanced=float((called[positive].mean() + 1 - called[~positive].mean()) / 2),
        within=within,
        within_pairs=pairs,
        null=permuted_aurocs(scores[None], labels)[:, 0] if len(labels) else np.zeros(0),
        n=len(positive),
        positive=int(positive.sum()),
        families=frozenset(sides[0] | sides[1]),
        design=design_within(positive, tested.exchange),
        alone=alone,
    )


def _kinds(source: str, target: str, same: bool, categories: Mapping[str, str]) -> list[str]:
    if source == target:
        return [SAME if same else TWIN]
    if source not in categories or target not in categories or len(set(categories.values())) < 2:
        return [OTHER]
    return [OTHER, NEAR if categories[source] == categories[target] else FAR]


def _means(cells: Sequence[DomainCell], categories: Mapping[str, str]) -> tuple[KindMean, ...]:
    listed: dict[str, dict[tuple[str, str], Any]] = {}
    for one in cells:
        for kind in _kinds(one.source, one.target, one.kind == SAME, categories):
            listed.setdefault(kind, {})[one.source, one.target] = one.found
    return tuple(kind_mean(kind, some) for kind, some in listed.items())


def _by_layer(matrix: ProbeMatrix, domain: Mapping[str, str], categories: Mapping[str, str]) -> tuple[LayerMean, ...]:
    """The means with every probe read at one layer, layer after layer: no layer is chosen here."""
    out, area, erased, models = [], matrix.auroc, matrix.erased, list(enumerate(matrix.models))
    for n, site in enumerate(matrix.sites):
        listed: dict[str, dict[tuple[str, str], list[tuple[float, float]]]] = {}
        for s, source in models:
            for t, target in models:
                place = domain[source], domain[target]
                for kind in _kinds(*place, s == t, categories):
                    both = (float(area[n, s, t]), float(erased[n, s, t]))
                    listed.setdefault(kind, {}).setdefault(place, []).append(both)
        for kind, some in listed.items():
            values = {place: np.mean(each, axis=0) for place, each in some.items()}
            mean = np.mean(list(values.values()), axis=0)
            interval = over_domains({place: float(value[0]) for place, value in values.items()})
            out.append(LayerMean(kind, site.layer, float(mean[0]), interval, float(mean[1]), len(values)))
    return tuple(out)
