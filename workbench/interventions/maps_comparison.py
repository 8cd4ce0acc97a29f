"""MapComparison: what `wb.compare_maps` found, as rows, verdicts and entries of `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from stores.printed import Printed
from workbench.interventions.maps_tested import Explained
from workbench.statistics import DRAWS_FOR_P, Interval, max_statistic, p_value

OWN_ROWS = "its own held-out prompts"
CONDITION = {"full": "shuffled_transfer", "within_class": "within_class_shuffled_transfer"}
ITEMS, CLASSES, NOTHING = "item by item", "the class contrast only", "nothing beyond chance"


@dataclass(frozen=True)
class Score:
    """A held-out R² with its interval over prompts; None where fewer than 5 prompts show no spread."""

    value: float
    interval: Interval | None
    prompts: int

    @classmethod
    def of(cls, found: Explained | None) -> Score | None:
        """None where the direction has no length."""
        return None if found is None else cls(found.r2, found.interval(), len(found.error))


@dataclass(frozen=True)
class MapRow:
    """One map at one target site, judged on the rows `tested`: R² in total, along the image of v (what v's own part
    explains), and `toward` the recipient's own direction; how much v is lengthened beside the rows (`gain`), the norm
    of the mapped v as it is, and its cosine with the recipient's own direction. None where v, or the recipient's own,
    has no length."""

    name: str
    tested: str
    method: str
    site: Site
    source: Site
    rank: int
    n: int
    r2: Score | None
    along: Score | None
    toward: Score | None
    gain: float | None
    norm: float
    cosine: float | None


@dataclass(frozen=True, eq=False)
class Shuffles(Printed):
    """The refits of one map on shuffled pairs: held-out R² and the mapped v's cosine with the recipient's own."""

    name: str
    kind: str
    title: str
    sites: tuple[Site, ...]
    r2: Float[np.ndarray, "draw site"]
    cosine: Float[np.ndarray, "draw site"] | None


@dataclass(frozen=True, eq=False)
class MapComparison(Printed):
    """Every map, site and set of test rows in `rows`; the refits on shuffled pairs in `shuffles`; `notes` says what
    could not be had, and why."""

    _items = "rows"

    rows: tuple[MapRow, ...]
    shuffles: tuple[Shuffles, ...]
    names: tuple[str, ...]
    notes: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str, tested: str = OWN_ROWS) -> list[MapRow]:
        """The rows of one map, site by site."""
        found = [row for row in self.rows if row.name == name and row.tested == tested]
        if not found:
            raise ValueError(
                f"no map {name!r} tested on {tested!r}: maps are {', '.join(self.names)}, tested on "
                f"{', '.join(dict.fromkeys(row.tested for row in self.rows))}."
            )
        return found

    def p(self, name: str, kind: str) -> Float[np.ndarray, " site"] | None:
        """p of the mapped v's cosine with the recipient's own direction against refits on shuffled pairs, at every site
        that has one, corrected for looking at all of them (maximum statistic). None where there is no such control, and
        below 99 refits."""
        drawn = next((one for one in self.shuffles if (one.name, one.kind) == (name, kind)), None)
        if drawn is None or drawn.cosine is None or len(drawn.cosine) < DRAWS_FOR_P:
            return None
        actual = {i: row.cosine for i, row in enumerate(self.of(name)) if row.cosine is not None}
        return max_statistic(list(actual.values()), drawn.cosine[:, list(actual)]) if actual else None

    def carries(self, name: str, level: float = 0.05) -> str:
        """What the map's image of v rests on, by the best site: "item by item" where it lies nearer the recipient's own
        direction than shuffles within classes bring it (p <= level), "the class contrast only" where it beats full
        shuffles alone, "nothing beyond chance" where not even those; else what is missing to say so."""
        full, within = self.p(name, "full"), self.p(name, "within_class")
        if full is None:
            return f"not stated: {self._missing(name)}"
        if full.min() > level:
            return NOTHING
        if within is None:
            return f"more than chance; item by item or by classes is not told: {self._missing(name, 'within_class')}"
        return ITEMS if within.min() <= level else CLASSES

    def _missing(self, name: str, kind: str = "full") -> str:
        for key in (f"{name}, shuffles", f"{name}, {kind}"):
            if key in self.notes:
                return self.notes[key]
        if all(row.cosine is None for row in self.of(name)):
            return "the recipient has no direction of its own to compare with."
        return f"a p needs {DRAWS_FOR_P} refits on shuffled pairs, and a direction of the recipient at every site."

    def entries(self, **facts: Any) -> list[dict[str, Any]]:
        """Entries of `summary.json`, `target` the map's name. `r2`, `r2_along`, `r2_toward_own`, `map_gain` and
        `cosine_with_own` under condition "transfer"; `split` is "fit" for the map's own held-out prompts, else the
        name of the test rows. Beside `r2` and `cosine_with_own` stand the shuffled refits (conditions
        "shuffled_transfer", "within_class_shuffled_transfer"): their mean, draws, and from 99 on p. `map_carries`, one
        a map, says in `detail` what v's image rests on."""
        out = [entry for row in self.rows for entry in self._row_entries(row)]
        for drawn in self.shuffles:
            for metric, values in (("r2", drawn.r2), ("cosine_with_own", drawn.cosine)):
                if values is not None:
                    out += self._shuffle_entries(metric, drawn, values)
        for name in self.names:
            here = {"condition": "transfer", "split": "fit", "modality": "all", "layer": None, "target": name}
            beside = {f"least_p_{kind}": float(p.min()) for kind in CONDITION if (p := self.p(name, kind)) is not None}
            best = [row.cosine for row in self.of(name) if row.cosine is not None]
            if best:
                more = {"detail": self.carries(name), "companions": beside}
                out.append(_entry("map_carries", max(best), self.of(name)[0].n, {**here, **more}))
        return [{**entry, **facts} for entry in out]

    def _row_entries(self, row: MapRow) -> list[dict[str, Any]]:
        own = row.tested == OWN_ROWS
        split, place = ("fit", str(row.site)) if own else (row.tested, f"{row.site}, tested on {row.tested}")
        same = {"condition": "transfer", "split": split, "modality": "all", "layer": row.site.layer}
        same |= {"detail": place, "target": row.name}
        beside = {"companions": {"source_layer": float(row.source.layer), "rank": float(row.rank), "norm": row.norm}}
        out = []
        for metric, score in (("r2", row.r2), ("r2_along", row.along), ("r2_toward_own", row.toward)):
            if score is not None:
                out.append(_entry(metric, score.value, row.n, {**same, **_within(score), **beside}))
        if own:  # of the map itself, whatever it is tested on
            both = (("map_gain", row.gain), ("cosine_with_own", row.cosine))
            out += [_entry(metric, value, row.n, same) for metric, value in both if value is not None]
        return out

    def _shuffle_entries(self, metric: str, drawn: Shuffles, values: np.ndarray) -> list[dict[str, Any]]:
        out = []
        for row, column in zip(self.of(drawn.name), values.T, strict=True):
            actual = row.cosine if metric == "cosine_with_own" else row.r2.value if row.r2 else None
            if actual is None:
                continue
            p = p_value(actual, column, "greater") if len(column) >= DRAWS_FOR_P else None
            low, high = (float(end) for end in np.quantile(column, (0.05, 0.95)))
            kind = CONDITION[drawn.kind]
            here = {"condition": kind, "split": "fit", "modality": "all", "layer": row.site.layer}
            here |= {"detail": str(row.site), "target": drawn.name, "interval": [low, high]}
            here |= {"interval_method": f"5 % to 95 % of {len(column)} refits, {drawn.title}"}
            here |= {"control": {"kind": kind, "N": len(column), "p": p, "draws": column.tolist()}}
            out.append(_entry(metric, float(column.mean()), row.n, here))
        return out


def _within(score: Score) -> dict[str, Any]:
    stated: dict[str, Any] = {"clusters": score.prompts}
    if score.interval is not None:
        ends = [float(end) for end in (score.interval.low, score.interval.high)]
        stated |= {"interval_method": score.interval.method}
        if np.isfinite(ends).all():  # infinite ends are no JSON: the method says why there are none
            stated["interval"] = ends
    return stated


def _entry(metric: str, value: float | None, n: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    names = ("coefficient", "interval", "interval_method", "clusters", "control", "detail", "target")
    return {"metric": metric, "value": value, "n": n, **dict.fromkeys(names), **facts}
