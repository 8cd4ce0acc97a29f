"""Probe: one read-out vector a site with its threshold, and how it did on families that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from hooks.site import Site
from stores.printed import Printed
from workbench.statistics import Interval, auroc, auroc_interval
from workbench.subspace.directions import Directions
from workbench.subspace.rows import RowSource, listed, narrowed, site_among


@dataclass(frozen=True)
class ProbeScore:
    """How well a probe tells the classes of some rows apart. `auroc` needs no threshold; `balanced_accuracy` is the
    mean of the shares of positives above and of negatives below the probe's own. Intervals are over families of
    prompts, for this one probe: a probe of other training rows would differ by more."""

    auroc: float
    interval: Interval
    balanced_accuracy: float
    balanced_interval: Interval
    n_positive: int
    n_negative: int
    families: int


def score_of(
    scores: Float[np.ndarray, " row"], positive: Bool[np.ndarray, " row"], families: Sequence[str]
) -> ProbeScore:
    """How well scores (above 0: called positive) tell the classes apart. Raises ValueError for a class with rows of
    fewer than 2 families."""
    names = np.array(families, dtype=object)
    groups = (names[positive].tolist(), names[~positive].tolist())
    called = (scores > 0).astype(np.float64)  # the AUROC of a yes or no is the balanced accuracy
    return ProbeScore(
        auroc(scores[positive], scores[~positive]),
        auroc_interval(scores[positive], scores[~positive], *groups),
        auroc(called[positive], called[~positive]),
        auroc_interval(called[positive], called[~positive], *groups),
        int(positive.sum()),
        int((~positive).sum()),
        len(set(names.tolist())),
    )


@dataclass(frozen=True, eq=False)
class Probe(Printed):
    """What `wb.fit_probe` found. `read` holds the vectors (role "read", origin: the mean of the negative rows), and
    rows with h · vector > threshold are called positive; a vector of zeros calls nothing. `held_out` is its score a
    site on the families left out of the fit, None where none were. `shrinkage` [site] is the weight of the identity in
    the covariance (lda), NaN where there is none."""

    method: str
    scale: str
    read: Directions
    threshold: Float[np.ndarray, " site"]
    shrinkage: Float[np.ndarray, " site"]
    families: int
    held_out: tuple[ProbeScore, ...] | None = None

    def __post_init__(self) -> None:
        if self.read.role != "read":
            raise ValueError("a Probe holds read-out vectors: Directions of role='read' were expected, 'write' came.")
        for name in ("threshold", "shrinkage"):
            value = np.array(getattr(self, name), np.float64)
            if value.shape != (len(self.read.sites),):
                raise ValueError(f"{name}: expected one number a site, {len(self.read.sites)}; {value.shape} came.")
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.read.sites

    def scores(self, rows: RowSource, site: Site | str | int) -> Float[np.ndarray, " row"]:
        """h · vector - threshold of each row, in row order: above 0 is positive. Raises ValueError for rows of another
        width: carry those over with `wb.fit_transfer(...)` first."""
        place = site_among(self.sites, site)
        values = np.asarray(narrowed(rows, [place]).values(place, np.float64), np.float64)
        if values.shape[1] != self.read.d_model:
            raise ValueError(
                f"the probe has width {self.read.d_model} and the rows {values.shape[1]} at {place}: these are models "
                "of different residual spaces. Map the read-out first: wb.fit_transfer(...).map(probe.read)."
            )
        return values @ self.read.vector(place) - self.threshold[self.sites.index(place)]

    def __getitem__(self, site: Site | str | int | Sequence[Site | str | int]) -> Probe:
        """The probe of one site or layer, or of several."""
        index = [self.sites.index(site_among(self.sites, one)) for one in listed(site)]
        held_out = None if self.held_out is None else tuple(self.held_out[i] for i in index)
        chosen = self.read[[self.sites[i] for i in index]]
        return replace(
            self, read=chosen, threshold=self.threshold[index], shrinkage=self.shrinkage[index], held_out=held_out
        )

    def entries(self, *, condition: str, **facts: Any) -> list[dict[str, Any]]:
        """One entry of `summary.json` a site: the AUROC on held-out families, with the rest as companions; none where
        no family was held out. `facts` (target, detail) go into every entry."""
        out = []
        for site, score in zip(self.sites, self.held_out or (), strict=False):
            stated = {"split": "held-out families", "modality": "all", "layer": site.layer, "detail": self.method}
            out.append({**score_entry("probe_auroc", score), **stated, "condition": condition, **facts})
        return out

    def __repr__(self) -> str:
        shown = "" if self.held_out is None else (
            f", held-out AUROC {min(s.auroc for s in self.held_out):.2f}..{max(s.auroc for s in self.held_out):.2f} "
            f"over {self.held_out[0].families} families"
        )  # fmt: skip
        return (
            f"Probe({self.method}, scale {self.scale}, {len(self.sites)} sites, d_model {self.read.d_model}, "
            f"n {self.read.n_positive} + {self.read.n_negative} in {self.families} families{shown})"
        )


def score_entry(metric: str, score: ProbeScore) -> dict[str, Any]:
    """A score as an entry of `summary.json`; what it does not state is None."""
    return {
        "metric": metric,
        "value": score.auroc,
        "n": score.n_positive + score.n_negative,
        "coefficient": None,
        "interval": [score.interval.low, score.interval.high],
        "interval_method": score.interval.method,
        "clusters": score.families,
        "control": None,
        "detail": None,
        "target": None,
        "companions": {"balanced_accuracy": score.balanced_accuracy, "positive": score.n_positive},
    }
