"""TransferMatrix: donors x recipients x maps x operations, each with its specificity index and its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from stores.printed import Printed
from workbench.interventions.specificity import (
    Share,
    Specificity,
    difference_interval,
    difference_p,
    share_interval,
)
from workbench.interventions.transfer_matrix_cells import MATCHED
from workbench.statistics import DRAWS_FOR_P, Interval, holm, p_value, t_interval
from workbench.statistics.intervals import without_spread
from workbench.statistics.values import alike

POOLED = ", all donors'"  # behind a kind of control: the draws of every donor of the recipient, each matched to its own


@dataclass(frozen=True)
class TransferCell(Printed):
    """One donor's direction in one recipient. `kind`: the recipient's "own" direction, that of another training on the
    "same domain", or of an "other" domain. `found` is None where it is not measurable (`why`). `beside` are means of
    what else the cell's rows state, over the questions of the effect."""

    donor: str
    recipient: str
    by: str
    operation: str
    kind: str
    found: Specificity | None
    why: str = ""
    questions: int = 0
    beside: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Asymmetry:
    """There minus back: the index of `first`'s direction in `second`, minus that of `second`'s in `first`, over the
    question families that both were asked; p is corrected (Holm) over all pairs of the map and operation."""

    first: str
    second: str
    by: str
    operation: str
    difference: float
    interval: Interval
    p: float
    families: int


@dataclass(frozen=True)
class Overall(Printed):
    """Mean over the pairs of different domains of one map and operation. The interval is the wider of two t intervals,
    over donors and over recipients; `draws` are means of the control runs over the same pairs, by kind; `own` the mean
    of the recipients' own directions, the ceiling, `same` that of other trainings on the recipient's domain; `above`
    pairs lie above every control run. `minus_identity` compares with the identity on the same pairs."""

    by: str
    operation: str
    value: float
    interval: Interval
    pairs: int
    donors: int
    recipients: int
    closed: float
    lost: float | None
    own: float | None
    same: float | None
    above: int
    draws: Mapping[str, tuple[float, ...]]
    minus_identity: float | None = None
    minus_interval: Interval | None = None

    def p(self, kind: str) -> float | None:
        """One-sided permutation p; None with fewer than 99 draws."""
        drawn = self.draws[kind]
        return p_value(self.value, list(drawn), "greater") if len(drawn) >= DRAWS_FOR_P else None


@dataclass(frozen=True)
class TransferMatrix(Printed):
    """All cells; `measure` is what was read of the effect, `least` the smallest gap that shares are taken of."""

    _items = "cells"

    cells: tuple[TransferCell, ...]
    measure: str
    least: float

    def of(self, by: str, operation: str) -> list[TransferCell]:
        """The cells of one map and operation."""
        return [cell for cell in self.cells if (cell.by, cell.operation) == (by, operation)]

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """The maps and operations that there are, in order."""
        return list(dict.fromkeys((cell.by, cell.operation) for cell in self.cells))

    def values(self, by: str, operation: str) -> tuple[list[str], list[str], Float[np.ndarray, "donor recipient"]]:
        """Donors, recipients and the index (the share closed where no capability was asked); NaN: not measurable."""
        cells = self.of(by, operation)
        rows = list(dict.fromkeys(cell.donor for cell in cells))
        columns = list(dict.fromkeys(cell.recipient for cell in cells))
        out = np.full((len(rows), len(columns)), np.nan)
        for cell in cells:
            if cell.found is not None:
                out[rows.index(cell.donor), columns.index(cell.recipient)] = cell.found.value
        return rows, columns, out

    def asymmetries(self, by: str, operation: str) -> list[Asymmetry]:
        """Every pair of domains that was measured both ways, the largest difference first."""
        measured = [cell for cell in self.of(by, operation) if cell.found is not None and cell.kind != "own"]
        there = {(cell.donor, cell.recipient): cell for cell in measured}
        pairs = [(a, b) for a, b in there if a < b and (b, a) in there]
        found = []
        for a, b in pairs:
            one, other = there[a, b].found, there[b, a].found
            assert one is not None and other is not None
            interval, p, n = _difference(one, other)
            found.append(Asymmetry(a, b, by, operation, one.value - other.value, interval, p, n))
        corrected = holm([one.p for one in found]) if found else []
        listed = [replace(one, p=float(p)) for one, p in zip(found, corrected, strict=True)]
        return sorted(listed, key=lambda one: -abs(one.difference))

    def overall(self, by: str, operation: str) -> Overall | None:
        """The mean over pairs of different domains; None where none was measured."""
        cells = [cell for cell in self.of(by, operation) if cell.found is not None]
        others = {(cell.donor, cell.recipient): cell.found for cell in cells if cell.kind == "other"}
        if not others:
            return None
        values = {pair: found.value for pair, found in others.items() if found is not None}
        closed = [found.closed.value for found in others.values() if found is not None]
        lost = [found.lost.value for found in others.values() if found is not None and found.lost is not None]
        into = {recipient for _, recipient in others}
        own, same = (
            [one.found.value for one in cells if one.kind == kind and one.found is not None and one.recipient in into]
            for kind in ("own", "same domain")
        )
        draws = _mean_draws([found for found in others.values() if found is not None])
        minus, minus_interval = None, None
        plain = {(cell.donor, cell.recipient): cell.found for cell in self.of("identity", operation)}
        shared = {pair: value - other.value for pair, value in values.items() if (other := plain.get(pair)) is not None}
        if by != "identity" and len(shared) == len(values):
            minus, minus_interval = float(np.mean(list(shared.values()))), crossed_interval(shared)
        ranks = [found.percentile(honest(found)) for found in others.values() if found is not None and found.draws]
        return Overall(
            by,
            operation,
            float(np.mean(list(values.values()))),
            crossed_interval(values),
            len(values),
            len({donor for donor, _ in values}),
            len({recipient for _, recipient in values}),
            float(np.mean(closed)),
            float(np.mean(lost)) if len(lost) == len(values) else None,
            float(np.mean(own)) if own else None,
            float(np.mean(same)) if same else None,
            sum(rank == 1 for rank in ranks),
            draws,
            minus,
            minus_interval,
        )

    def __str__(self) -> str:
        lines = [
            f"{self.measure}: {len(self.cells)} cells, {sum(cell.found is not None for cell in self.cells)} measured"
        ]
        for by, operation in self.kinds:
            if (mean := self.overall(by, operation)) is not None:
                own = "" if mean.own is None else f", own directions {mean.own:+.2f}"
                ends = f"[{mean.interval.low:+.2f}, {mean.interval.high:+.2f}]"
                lines.append(f"  {operation}, {by}: {mean.value:+.2f} {ends} over {mean.pairs} pairs{own}")
        return "\n".join(lines)


def honest(found: Specificity) -> str:
    """The kind of control that a cell is stated against: random directions matched to it, those of which most are."""
    return max(found.draws, key=lambda kind: (kind.removesuffix(POOLED) in MATCHED, len(found.draws[kind])))


def _mean_draws(cells: Sequence[Specificity]) -> dict[str, tuple[float, ...]]:
    """Each control run's mean over the cells, by kind, where every cell has the same number of its own."""
    out = {}
    for kind in sorted({kind for one in cells for kind in one.draws if not kind.endswith(POOLED)}):
        runs = [one.draws.get(kind, ()) for one in cells]
        if len({len(run) for run in runs}) == 1:
            out[kind] = tuple(float(one) for one in np.mean(runs, axis=0))
    return out


def _difference(one: Specificity, other: Specificity) -> tuple[Interval, float, int]:
    """Interval and p of the difference of two indexes, paired by question family, and the families of the effect."""
    closed = _paired(one.closed, other.closed)
    if one.lost is None or other.lost is None:
        return share_interval(closed), difference_p(closed, np.zeros(2)), len(closed)
    lost = _paired(one.lost, other.lost)
    return difference_interval(closed, lost), difference_p(closed, lost), len(closed)


def _paired(one: Share, other: Share) -> Float[np.ndarray, " family"]:
    first, second = (dict(zip(each.families, each.parts, strict=True)) for each in (one, other))
    return np.array([first[name] - second[name] for name in first if name in second])


def crossed_interval(values: Mapping[tuple[str, str], float], level: float = 0.95) -> Interval:
    """Interval of a mean over pairs that share donors and recipients: the wider of the t over donors' means and the t
    over recipients' means. Infinite where neither varies."""
    found = []
    for side, name in ((0, "donors"), (1, "recipients")):
        groups: dict[str, list[float]] = {}
        for pair, value in values.items():
            groups.setdefault(pair[side], []).append(value)
        means = [float(np.mean(group)) for group in groups.values()]
        if len(means) > 1 and not alike(np.array(means)):
            one = t_interval(means, level)
            middle = float(np.mean(list(values.values())))
            half = (one.high - one.low) / 2
            found.append(Interval(middle - half, middle + half, f"t {level:.0%} over {len(means)} {name}"))
    if not found:
        return without_spread(float(np.mean(list(values.values()))), len(values), level=level)
    widest = max(found, key=lambda one: one.high - one.low)
    return Interval(widest.low, widest.high, f"{widest.method}, the wider of donors and recipients")
