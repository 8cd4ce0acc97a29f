"""routing_matrix: what each route changed against the unedited rows, with intervals, one family of tests, and tests of
equivalence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from stores import ResultTable
from stores.printed import Printed
from workbench.interventions.routing import UNEDITED, Route, Routes, Skipped
from workbench.statistics import Equivalence, Interval, cluster_means, max_statistic, paired_bootstrap, tost
from workbench.statistics.equivalence import Margin
from workbench.statistics.sign_flips import all_signs, random_signs
from workbench.statistics.values import Bounds

# Columns that name what belongs together; "prompt_group" is that of `sweep_routes`: the same picture, or question.
FAMILIES = ("tag_family", "family", "tag_question", "question", "tag_item", "item", "prompt_group")
BESIDE = ("kl_neutral", "energy_removed")  # of the edited rows, where they state them
Row = Mapping[str, Any]
Pairs = list[tuple[str, float, float]]  # family, edited, unedited


@dataclass(frozen=True)
class Routed(Printed):
    """One entry. `value` is edited minus unedited: the mean over prompt families, each weighing the same. `p` is two-
    sided and corrected for looking at all entries; `equivalence` is not corrected. `dropped` rows had no value on one
    side; `touched` of the `pairs` were edited at one position or more (None where the table does not say). `unedited`
    is the mean without the edit, `controls` the same differences under random twins, by kind and draw, and `beside` the
    means of what else the rows state: kl_neutral, energy_removed, and the change of the share of right answers."""

    built: str
    applied: str
    evaluated: str
    value: float
    interval: Interval
    p: float
    equivalence: Equivalence
    pairs: int
    families: int
    dropped: int
    touched: int | None
    unedited: float = np.nan
    controls: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        place = f"{self.built}->{self.applied} on {self.evaluated}"
        counts = f"{self.pairs} pairs in {self.families} families, {self.dropped} dropped"
        return f"{place}: {self.value:+.3g} {self.interval}; p {self.p:.2g}; {self.equivalence.verdict}; {counts}"


@dataclass(frozen=True)
class RoutingMatrix(Printed):
    """Entries by (built, applied, evaluated), and what could not be tried. `method` says how `p` was made."""

    _items = "entries"

    entries: tuple[Routed, ...]
    skipped: tuple[Skipped, ...]
    measure: str
    method: str

    def entry(self, built: str, applied: str, evaluated: str) -> Routed:
        """One entry; KeyError with the reason where there is none."""
        place = (built, applied, evaluated)
        for one in self.entries:
            if (one.built, one.applied, one.evaluated) == place:
                return one
        why = next((s.why for s in self.skipped if (s.built, s.applied, s.evaluated) == place), "no such combination")
        raise KeyError(f"{built}->{applied} on {evaluated}: {why}")

    def values(self, evaluated: str) -> tuple[list[str], list[str], Float[np.ndarray, "built applied"]]:
        """Names of rows and columns, and the values for a drawing; NaN where a combination was skipped."""
        every = [*self.entries, *self.skipped]
        rows, columns = (list(dict.fromkeys(getattr(one, name) for one in every)) for name in ("built", "applied"))
        out = np.full((len(rows), len(columns)), np.nan)
        for one in self.entries:
            if one.evaluated == evaluated:
                out[rows.index(one.built), columns.index(one.applied)] = one.value
        return rows, columns, out

    def __str__(self) -> str:
        return "\n".join([f"{self.measure}; {self.method}", *map(str, self.entries), *map(str, self.skipped)])


def routing_matrix(
    routes: Routes,
    measured: Mapping[str, ResultTable | Iterable[Row]],
    value: str | Callable[[Row], float | None],
    *,
    margin: Margin,
    cluster: str | None = None,
    bounds: Bounds | None = None,
    draws: int = 9999,
    resamples: int = 10_000,
    seed: int = 0,
) -> RoutingMatrix:
    """The matrix of all routes that were run, from one table for each set of prompts.

    `measured` maps the sets to tables of `wb.sweep` on `routes.cells(name)`, or to rows of answers under
    `routes.conditions(name)`; `value` is a column (`"logit_difference"`) or a function of a row, None meaning no value.
    Each row is paired with the unedited row of the same prompt (and sample). `cluster` is the column that names prompt
    families (default: the tags family or question, else each prompt); a family that is in several tables is one. The p
    are of sign flips by families, the largest |t| over the whole matrix being the statistic. `margin` is the largest
    change that would not matter, in the units of `value`, stated before the measurement; `bounds` the ends of a
    difference's scale. A route that edited no row is moved to `skipped`. Raises ValueError for tables of other routes,
    and for entries with pairs in fewer than 2 families.
    """
    if missing := [name for name in routes.evaluated if name not in measured]:
        raise ValueError(f"there is no table of the prompts {', '.join(missing)}: expected one for each set.")
    reads = (lambda row: row[value]) if isinstance(value, str) else value
    skipped, found = list(routes.skipped), []
    for name in routes.evaluated:
        rows, twins = _rows_by_route(routes.on(name), measured[name], name)
        for route in routes.on(name):
            edited = [row["edited"] for row in rows[route.name] if row.get("edited") is not None]
            if edited and not any(edited):
                skipped.append(Skipped(route.built, route.applied, name, "nothing to edit: no row was touched"))
                continue
            touched = sum(bool(n) for n in edited) if edited else None
            pairs, dropped = _paired(rows[route.name], rows[UNEDITED], reads, cluster)
            random = {
                kind: tuple(_mean(_paired(drawn, rows[UNEDITED], reads, cluster)[0]) for drawn in by_draw.values())
                for kind, by_draw in twins[route.name].items()
            }
            found.append((route, pairs, dropped, touched, random, _beside(rows[route.name], rows[UNEDITED])))
    if not found:
        raise ValueError("no route edited any row: there is nothing to compare.")
    for route, pairs, *_ in found:
        if (families := len({family for family, *_ in pairs})) < 2:
            raise ValueError(
                f"{route.name} on {route.evaluated} prompts has pairs in {families} families: expected 2 or more."
            )
    p, method = max_over_matrix([pairs for _, pairs, *_ in found], draws=draws, seed=seed)
    entries = []
    for (route, pairs, dropped, touched, random, beside), corrected in zip(found, p, strict=True):
        families = [family for family, *_ in pairs]
        edited, unedited = np.array([values for _, *values in pairs]).T
        differences = edited - unedited
        entries.append(
            Routed(
                route.built,
                route.applied,
                route.evaluated,
                float(cluster_means(differences, families).mean()),
                paired_bootstrap(edited, unedited, families, bounds=bounds, resamples=resamples, seed=seed),
                float(corrected),
                tost(differences, margin, families),
                len(pairs),
                len(set(families)),
                dropped,
                touched,
                float(cluster_means(unedited, families).mean()),
                random,
                beside,
            )
        )
    measure = value if isinstance(value, str) else getattr(value, "__name__", "value")
    return RoutingMatrix(tuple(entries), tuple(skipped), measure, method)


Twins = Mapping[str, Mapping[str, Mapping[int, Sequence[Row]]]]


def _rows_by_route(
    routes: Sequence[Route], table: ResultTable | Iterable[Row], name: str
) -> tuple[dict[str, list[Row]], Twins]:
    """Rows under the name of their route, and those of its random twins by kind and draw, where the rows name their
    route (`sweep_routes`)."""
    listed: list[Row] = [*(table.rows() if isinstance(table, ResultTable) else table)]
    out: dict[str, list[Row]] = defaultdict(list)
    twins: dict[str, Any] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    names = [UNEDITED, *(route.name for route in routes)]
    for row in listed:
        if (kind := row.get("control")) is not None:
            if row.get("cell") is None:
                twins[str(row["condition"])][str(kind)][row["draw"]].append(row)
            continue
        cell = row.get("cell")  # of a sweep, where `condition` may be a prompt's tag
        if cell is None:
            out[str(row["condition"])].append(row)
        else:
            out[names[cell] if cell < len(names) else f"cell {cell}"].append(row)
    if set(out) != set(names):
        raise ValueError(
            f"the table of the {name} prompts is not of these routes: it lacks {sorted(set(names) - set(out))} and has "
            f"{sorted(set(out) - set(names))} beside them. Expected a sweep of routes.cells({name!r}), or answers "
            f"under routes.conditions({name!r})."
        )
    for route, stated in ((route.name, route.intervention.describe()) for route in routes):
        row = out[route][0]
        if other := [key for key in ("intervention", "at", "layers") if key in row and row[key] != stated.get(key)]:
            raise ValueError(
                f"the rows of {route} on {name} prompts state another {', '.join(other)} than its intervention: the "
                "cells were swept in another order than routes.cells gives."
            )
    return out, twins


def _paired(
    edited: Sequence[Row], unedited: Sequence[Row], reads: Callable[[Row], float | None], cluster: str | None
) -> tuple[Pairs, int]:
    """Pairs that have a value on both sides, and how many rows had none."""
    before = {(row["prompt"], row.get("sample")): reads(row) for row in unedited}
    if len(before) < len(unedited):
        raise ValueError("a prompt has several unedited rows of one sample: expected one table of one variant.")
    pairs: Pairs = []
    for row in edited:
        after, was = reads(row), before.get((row["prompt"], row.get("sample")))
        if after is not None and was is not None:
            pairs.append((_family_of(row, cluster), float(after), float(was)))
    return pairs, len(edited) - len(pairs)


def _family_of(row: Row, cluster: str | None) -> str:
    if cluster is not None:
        return str(row[cluster])
    return next((str(row[name]) for name in FAMILIES if row.get(name) is not None), str(row["prompt"]))


def _mean(pairs: Pairs) -> float:
    """Mean difference over families; NaN where no row has a value."""
    if not pairs:
        return float("nan")
    families, edited, unedited = zip(*pairs, strict=True)
    return float(cluster_means(np.subtract(edited, unedited), families).mean())


def _beside(edited: Sequence[Row], unedited: Sequence[Row]) -> dict[str, float]:
    out = {}
    for name in BESIDE:
        stated = [float(row[name]) for row in edited if row.get(name) is not None]
        if stated:
            out[name] = float(np.mean(stated))
    column = next((name for name in ("category", "choice") if edited[0].get(name) is not None), None)
    if column is not None:
        after, before = (np.mean([row[column] == "right" for row in rows]) for rows in (edited, unedited))
        out["right"] = float(after - before)
    return out


def max_over_matrix(cells: Sequence[Pairs], *, draws: int, seed: int) -> tuple[Float[np.ndarray, " cell"], str]:
    """p of each cell's mean difference, two-sided, corrected for looking at all; and the method in words.

    A family flips its sign in all the cells that have it, so cells may share prompts or not: text and image prompts are
    different rows, which `statistics.max_sign_flip_test` does not allow. The statistic is t over families.
    Source: Westfall & Young 1993.
    """
    names = {family: n for n, family in enumerate(dict.fromkeys(family for pairs in cells for family, *_ in pairs))}
    means, counts = np.zeros((len(names), len(cells))), np.zeros(len(cells))
    for c, pairs in enumerate(cells):
        families = [family for family, *_ in pairs]
        found = cluster_means(np.array([after - before for _, after, before in pairs]), families)
        here = [names[family] for family in dict.fromkeys(families)]
        means[here, c], counts[c] = found, len(here)
    n = len(names)
    exact = n < 63 and 2**n <= draws + 1
    signs = all_signs(n) if exact else random_signs(n, draws, seed)
    null, observed = _t(signs @ means / counts, means, counts), _t(means.sum(axis=0)[None] / counts, means, counts)[0]
    patterns = f"{'all' if exact else 'random'} {len(signs) + 1 if exact else len(signs)}"
    words = f"p by sign flips of {n} families, {patterns} patterns, largest |t| of {len(cells)} entries"
    return max_statistic(observed, null, "two-sided"), words


def _t(
    flipped: Float[np.ndarray, "draw cell"], means: Float[np.ndarray, "n cell"], counts: Float[np.ndarray, " cell"]
) -> Float[np.ndarray, "draw cell"]:
    """t of each cell over its own families; no spread gives a huge t, no difference 0."""
    square = (means**2).sum(axis=0) / counts
    spread = np.sqrt(np.maximum(square - flipped**2, 1e-14 * square) / (counts - 1))
    return np.divide(flipped, spread, out=np.zeros_like(flipped), where=spread > 0)
