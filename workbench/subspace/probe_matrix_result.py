"""ProbeMatrix: every model's probe on every model's rows, a layer, with its null and what is left after erasure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from stores.printed import Printed
from workbench.statistics import DRAWS_FOR_P, Selected, max_statistic
from workbench.subspace.probe_result import Probe, ProbeScore, score_entry
from workbench.subspace.rows import site_among

Choose = Literal["source", "cell", "all"]
SPLIT = "probe matrix"  # what `split` says of the entries


@dataclass(frozen=True, eq=False)
class ProbeCell(Printed):
    """The probe of `source` on the confirm families of `target` at one site.

    `dev_auroc` is the same on the dev families (NaN without any): for choosing a layer, no result. `erased` is the
    score on the same rows after LEACE fitted on them: the control, whose class means are equal along every probe.
    `erased_by_train` is the score after LEACE fitted on the target's train families: how far an eraser of other rows
    reaches. `null` [draw] are the AUROCs under exchanged labels, `p` the share at least as large; `least_p` what the
    design allows.
    """

    site: Site
    source: str
    target: str
    confirm: ProbeScore
    erased: ProbeScore
    erased_by_train: ProbeScore
    dev_auroc: float
    null: Float[np.ndarray, " draw"]
    p: float
    least_p: float

    @property
    def auroc(self) -> float:
        return self.confirm.auroc


@dataclass(frozen=True, eq=False)
class ProbeMatrix(Printed):
    """What `wb.probe_matrix` found. `cells` holds every site, source and target, in this order; `probes` the fitted
    probes by model, `designs` what the null exchanges in each target ("within" families, or whole "families").

    `prompts` counts the prompts of each side (of all models together), `unlabelled` the rows a model that had no label,
    `left_out` names models that could not be used, with the reason.
    """

    _items = "cells"

    models: tuple[str, ...]
    sites: tuple[Site, ...]
    method: str
    scale: str
    cells: tuple[ProbeCell, ...]
    probes: Mapping[str, Probe]
    designs: Mapping[str, str]
    draws: int
    prompts: Mapping[str, int]
    unlabelled: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _places(self) -> dict[tuple[Site, str, str], ProbeCell]:
        return {(cell.site, cell.source, cell.target): cell for cell in self.cells}

    def cell(self, source: str, target: str, site: Site | str | int) -> ProbeCell:
        """One cell of the matrix of one site."""
        key = (site_among(self.sites, site), source, target)
        if key not in self._places:
            raise ValueError(f"no cell {source!r} -> {target!r}: expected two of the models {', '.join(self.models)}.")
        return self._places[key]

    @property
    def auroc(self) -> Float[np.ndarray, "site source target"]:
        """AUROC on confirm families."""
        return self._array([cell.confirm.auroc for cell in self.cells])

    @property
    def interval(self) -> Float[np.ndarray, "site source target 2"]:
        """Ends of its 95 % interval, over the target's families."""
        ends = [(cell.confirm.interval.low, cell.confirm.interval.high) for cell in self.cells]
        return np.stack([self._array(side) for side in zip(*ends, strict=True)], axis=-1)

    @property
    def dev_auroc(self) -> Float[np.ndarray, "site source target"]:
        """AUROC on dev families: for choosing, no result."""
        return self._array([cell.dev_auroc for cell in self.cells])

    @property
    def erased(self) -> Float[np.ndarray, "site source target"]:
        """AUROC on confirm families after LEACE of these rows: the control without linear class information."""
        return self._array([cell.erased.auroc for cell in self.cells])

    @property
    def erased_by_train(self) -> Float[np.ndarray, "site source target"]:
        """AUROC on confirm families after LEACE of the target's train families."""
        return self._array([cell.erased_by_train.auroc for cell in self.cells])

    @property
    def balanced_accuracy(self) -> Float[np.ndarray, "site source target"]:
        """Balanced accuracy on confirm families at the source's own threshold."""
        return self._array([cell.confirm.balanced_accuracy for cell in self.cells])

    @property
    def p(self) -> Float[np.ndarray, "site source target"]:
        """Permutation p of each cell by itself; for several cells at once see `corrected_p`."""
        return self._array([cell.p for cell in self.cells])

    def corrected_p(self, cells: Sequence[ProbeCell]) -> Float[np.ndarray, " n"]:
        """p of these cells, corrected for looking at all of them: against the largest AUROC of each draw."""
        return max_statistic([cell.auroc for cell in cells], np.stack([cell.null for cell in cells], axis=1))

    def best(self, source: str, target: str, choose: Choose = "source") -> Selected:
        """The layer chosen on dev families, and the AUROC there on confirm families, which took no part in the choice.

        `choose="source"`: where the probe does best on its own model's dev families, as one who has no labels of the
        target must. "cell": on the target's. "all": one layer for the whole matrix, by the mean over its cells.
        """
        chosen = self._dev(source, target, choose)
        order = np.argsort(-chosen, kind="stable")
        winner, top = self.sites[order[0]], float(chosen[order[0]])
        tied = tuple(self.sites[i] for i in order[1:] if chosen[i] == top)
        cell = self.cell(source, target, winner)
        return Selected(winner, cell.auroc, cell.confirm.interval, top, len(self.sites), tied)

    def best_cells(self, choose: Choose = "source") -> tuple[ProbeCell, ...]:
        """The cell of every source and target at the layer that `best` chooses."""
        pairs = [(source, target) for source in self.models for target in self.models]
        return tuple(self.cell(*pair, self.best(*pair, choose).winner) for pair in pairs)  # type: ignore[arg-type]

    def entries(self, *, choose: Choose = "source", **facts: Any) -> list[dict[str, Any]]:
        """Entries of `summary.json`: `probe_auroc` of every layer, source (`condition`) and target, and after them
        `best_probe_auroc` at the layer chosen on dev, whose `test` is corrected for looking at the whole matrix.
        `companions` hold the AUROC after erasure, the balanced accuracy, and what exchanged labels give."""
        best = self.best_cells(choose)
        stated = self.draws >= DRAWS_FOR_P
        corrected = self.corrected_p(best).tolist() if stated else [None] * len(best)
        out = [self._entry("probe_auroc", cell, self.method, facts) for cell in self.cells]
        for cell, p in zip(best, corrected, strict=True):
            chosen = self.best(cell.source, cell.target, choose)
            said = f"{self.method}; layer best on dev families ({choose}), dev AUROC {chosen.dev_value:.3f}"
            entry = self._entry("best_probe_auroc", cell, said, facts)
            if p is not None:
                method = f"largest of {len(best)} cells in each of {self.draws} draws of exchanged labels"
                entry["test"] = {"p": p, "method": method}
            out.append(entry)
        return out

    def _entry(self, metric: str, cell: ProbeCell, detail: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        entry = score_entry(metric, cell.confirm)
        what = "within families" if self.designs[cell.target] == "within" else "of whole families"
        p = cell.p if self.draws >= DRAWS_FOR_P else None
        entry["control"] = {"kind": f"labels exchanged {what}", "N": self.draws, "p": p, "draws": []}
        entry["companions"] |= {
            "erased_auroc": cell.erased.auroc,
            "erased_low": cell.erased.interval.low,
            "erased_high": cell.erased.interval.high,
            "erased_by_train_auroc": cell.erased_by_train.auroc,
            "null_mean": float(cell.null.mean()) if len(cell.null) else None,
            "null_95": float(np.quantile(cell.null, 0.95)) if len(cell.null) else None,
            "least_p": cell.least_p,
        }
        places = {"split": SPLIT, "modality": "all", "layer": cell.site.layer, "condition": cell.source}
        return {**entry, **places, "target": cell.target, "detail": detail, **facts}

    def _dev(self, source: str, target: str, choose: Choose) -> Float[np.ndarray, " site"]:
        dev = self.dev_auroc
        if np.isnan(dev).any():
            raise ValueError("no families were kept for choosing: expected shares=(train, dev) with a dev share.")
        if choose == "all":
            return dev.mean(axis=(1, 2))
        if choose not in ("source", "cell"):
            raise ValueError(f"choose={choose!r} is unknown: expected 'source', 'cell' or 'all'.")
        self.cell(source, target, self.sites[0])
        row, column = self.models.index(source), self.models.index(source if choose == "source" else target)
        return dev[:, row, column]

    def _array(self, values: Sequence[float]) -> np.ndarray:
        return np.array(values, np.float64).reshape(len(self.sites), len(self.models), len(self.models))

    def __repr__(self) -> str:
        own = np.diagonal(self.auroc, axis1=1, axis2=2)
        return (
            f"ProbeMatrix({self.method}, {len(self.models)} models, {len(self.sites)} sites, prompts "
            f"{' / '.join(f'{side} {n}' for side, n in self.prompts.items())}, own AUROC {own.min():.2f}.."
            f"{own.max():.2f}, {self.draws} draws{f', left out {len(self.left_out)}' if self.left_out else ''})"
        )
