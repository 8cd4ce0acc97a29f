"""DomainProbes: what `wb.probe_domains` found, and its entries in `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from stores.printed import Printed
from workbench.statistics import DRAWS_FOR_P, Interval, p_value
from workbench.subspace.probe_means import OTHER, SAME, TWIN, Joined, KindMean, over_domains

CELL, MEAN, LAYER, LABELS, DEV = "probe AUROC", "mean probe AUROC", "mean probe AUROC by layer", "positive", "dev AUROC"
MINUS = "mean probe AUROC, own minus another reader's"
SPLIT = "probes"  # begins what `split` says of the entries


@dataclass(frozen=True, eq=False)
class DomainCell:
    """The probes of `source` on the models of `target`; `kind` keeps the models that a probe was fitted on apart from
    other fine-tunes of their domain. `corrected` is p against the largest of all cells in each draw, None without."""

    source: str
    target: str
    kind: str
    found: Joined
    corrected: float | None = None


@dataclass(frozen=True)
class LayerMean:
    """The mean AUROC of one kind of cells with every probe read at one layer, and the same after erasure."""

    kind: str
    layer: int
    auroc: float
    interval: Interval | None
    erased: float
    cells: int


@dataclass(frozen=True, eq=False)
class MethodProbes(Printed):
    """One method: its cells, the (layer, dev AUROC) chosen for each model's probe, means over kinds of cells, and the
    same by layer."""

    _items = "cells"

    method: str
    cells: tuple[DomainCell, ...]
    layers: Mapping[str, tuple[int, float]]
    means: tuple[KindMean, ...]
    by_layer: tuple[LayerMean, ...]

    @property
    def dev_auroc(self) -> float:
        """The mean over probes of the dev AUROC at the layer chosen, each on its own model: for choosing a method."""
        return float(np.mean([dev for _, dev in self.layers.values()]))

    def matrix(self, domains: Sequence[str], kind: str = SAME) -> Float[np.ndarray, "source target"]:
        """AUROCs by domain, NaN where there is none; on the diagonal those of `kind` (SAME or TWIN)."""
        values = np.full((len(domains), len(domains)), np.nan)
        for cell in self.cells:
            if cell.kind in (kind, OTHER):
                values[domains.index(cell.source), domains.index(cell.target)] = cell.found.auroc
        return values


@dataclass(frozen=True, eq=False)
class DomainProbes(Printed):
    """By method, in the order asked; `domains` all that were given, `counts` (labelled answers, positive ones) of each
    model, `left_out` the models that could not be used with the reason, `prompts` how many answers each side has. Where
    no model could be used `methods` is empty."""

    methods: tuple[MethodProbes, ...]
    domains: tuple[str, ...]
    counts: Mapping[str, tuple[int, int]]
    left_out: Mapping[str, str]
    draws: int
    prompts: Mapping[str, int]

    @property
    def best(self) -> MethodProbes | None:
        """The method with the highest AUROC on dev families (the first of equals): no confirm family took part."""
        return max(self.methods, key=lambda one: one.dev_auroc, default=None)

    def entries(self, **facts: Any) -> list[dict[str, Any]]:
        """Entries of `summary.json`. "probe AUROC" of each method, source (`condition`) and target domain, its `detail`
        "METHOD; KIND", `test` corrected for looking at all cells; "mean probe AUROC" of each kind of cells
        (`condition`), alone and by layer; "dev AUROC" of each method; and of each model the share of "positive"
        answers, where `detail` says why it was left out."""
        facts = {"split": SPLIT, "modality": "all", **facts}
        best = self.best
        out = [
            {"metric": LABELS, "value": positive / n if n else None, "n": n, **_NONE, **facts, "condition": model,
             "detail": self.left_out.get(model, "used")}
            for model, (n, positive) in self.counts.items()
        ]  # fmt: skip
        for one in self.methods:
            chosen = "chosen: the highest on dev families" if one is best else "not the highest on dev families"
            layers = sorted(layer for layer, _ in one.layers.values())
            dev = {"metric": DEV, "value": one.dev_auroc, "n": len(one.layers), **_NONE, **facts}
            out.append({**dev, "condition": one.method, "detail": chosen, "series": {"layers": layers}})
            out += [self._mean(mean, one.method, facts) for mean in one.means]
            out += [_by_layer(mean, one.method, facts) for mean in one.by_layer]
            out += [self._cell(cell, one, facts) for cell in one.cells]
        return out

    def minus(self, other: DomainProbes, **facts: Any) -> list[dict[str, Any]]:
        """Entries of the mean over cells of this AUROC minus another reader's of the same answers, a kind of cells each
        (`condition`), by the method that is best here: above 0 where a model's own activations tell more than the text
        does. Its control exchanges the labels of both alike: what is left then (`null_mean`) is which question was
        asked, and p (one-sided) is of the rest."""
        mine = self.best
        theirs = next((one for one in other.methods if mine is not None and one.method == mine.method), None)
        if mine is None or theirs is None:
            return []
        before = {(one.source, one.target, one.kind): one.found for one in theirs.cells}
        out = []
        for kind in dict.fromkeys(one.kind for one in mine.cells):
            pairs = {(one.source, one.target): (one.found, before[one.source, one.target, kind]) for one in mine.cells
                     if one.kind == kind and (one.source, one.target, kind) in before}  # fmt: skip
            if not pairs:
                continue
            moved = {place: a.auroc - b.auroc for place, (a, b) in pairs.items()}
            null = np.mean([a.null - b.null for a, b in pairs.values()], axis=0)
            value = float(np.mean(list(moved.values())))
            p = p_value(value, null) if len(null) >= DRAWS_FOR_P else float("nan")
            n = sum({target: a.n for (_, target), (a, _) in pairs.items()}.values())
            interval = over_domains(moved, (-1.0, 1.0))
            entry = {"metric": MINUS, "value": value, "n": n, **_NONE, **_ends(interval), "modality": "all", **facts}
            entry |= {"condition": kind, "detail": mine.method, "control": self._control(null, p, ())}
            entry["companions"] = {"null_mean": _mean(null)}
            out.append({**entry, "clusters": len({domain for place in pairs for domain in place})})
        return out

    def _cell(self, cell: DomainCell, of: MethodProbes, facts: Mapping[str, Any]) -> dict[str, Any]:
        found = cell.found
        entry = {"metric": CELL, "value": found.auroc, "n": found.n, **_NONE, **_ends(found.interval), **facts}
        entry |= {"condition": cell.source, "target": cell.target, "detail": f"{of.method}; {cell.kind}"}
        entry |= {"clusters": found.families, "control": self._control(found.null, found.p, found.designs)}
        if cell.corrected is not None and self.draws >= DRAWS_FOR_P:
            method = f"largest of {len(of.cells)} cells in each of {self.draws} draws of exchanged labels"
            entry["test"] = {"p": cell.corrected, "method": method}
        entry["companions"] = {
            "positive": float(found.positive),
            "balanced_accuracy": found.balanced,
            "within_auroc": _number(found.within),
            "within_pairs": float(found.within_pairs),
            "null_mean": _mean(found.null),
            "null_95": _quantile(found.null),
            "erased_auroc": found.erased,
            "erased_low": found.erased_interval.low,
            "erased_high": found.erased_interval.high,
            "sources": float(found.sources),
            "targets": float(found.targets),
        }
        return entry

    def _mean(self, mean: KindMean, method: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        entry = {"metric": MEAN, "value": mean.auroc, "n": mean.n, **_NONE, **_ends(mean.interval), **facts}
        entry |= {"condition": mean.kind, "detail": method, "clusters": mean.domains}
        entry["control"] = self._control(mean.null, mean.p, ())
        entry["companions"] = {
            "cells": float(mean.cells),
            "erased_auroc": mean.erased,
            "within_auroc": _number(mean.within),
            "null_mean": _mean(mean.null),
            "null_95": _quantile(mean.null),
        }
        return entry

    def _control(self, null: Float[np.ndarray, " draw"], p: float, designs: Sequence[str]) -> dict[str, Any] | None:
        whole = ", of whole groups where labels do not vary within one" if "families" in designs else ""
        kind = f"labels exchanged alike in all models{whole}"
        return {"kind": kind, "N": self.draws, "p": _number(p), "draws": []} if len(null) else None

    def __repr__(self) -> str:
        said = "; ".join(
            f"{one.method} " + ", ".join(f"{mean.kind} {mean.auroc:.2f}" for mean in one.means if mean.kind != TWIN)
            for one in self.methods
        )
        return f"DomainProbes({len(self.domains)} domains, {len(self.left_out)} models left out; {said or 'nothing'})"


_NONE: dict[str, Any] = dict.fromkeys(
    ("layer", "coefficient", "interval", "interval_method", "clusters", "control", "detail", "target")
)


def _by_layer(mean: Any, method: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    entry = {"metric": LAYER, "value": mean.auroc, "n": mean.cells, **_NONE, **_ends(mean.interval), **facts}
    entry |= {"condition": mean.kind, "detail": method, "layer": mean.layer}
    return {**entry, "companions": {"erased_auroc": mean.erased}}


def _ends(interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return {}
    return {"interval": [interval.low, interval.high], "interval_method": interval.method}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(null: Float[np.ndarray, " draw"]) -> float | None:
    return float(null.mean()) if len(null) else None


def _quantile(null: Float[np.ndarray, " draw"]) -> float | None:
    return float(np.quantile(null, 0.95)) if len(null) else None
