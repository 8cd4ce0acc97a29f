"""diversity: how varied the texts of each domain are, all domains at one number of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from workbench.behaviour.predictor_table import PredictorTable, predictor_table
from workbench.statistics.intervals import Interval
from workbench.statistics.vendi import (
    ORDERS,
    Kernel,
    at_size,
    half_sample_intervals,
    mean_distance,
    vendi_scores,
)

MOST_TEXTS = 500  # as in arXiv:2602.00298; eigenvalues of larger sets take seconds a draw
Vectors = Float[np.ndarray, "n d"]


@dataclass(frozen=True)
class Diversity:
    """One measure of one domain at `size` of its `texts`. `grows` is the value at `size` over the one at half of it: a
    measure that counts different texts grows with their number, so values of other sizes cannot be compared with it
    (1: it does not)."""

    domain: str
    measure: str
    value: float
    interval: Interval
    texts: int
    size: int
    grows: float


def diversity(
    embeddings: Mapping[str, Vectors],
    *,
    orders: Sequence[float | int] = ORDERS,
    kernel: Kernel = "shifted",
    centre: bool = False,
    size: int | None = None,
    draws: int = 100,
    seed: int = 0,
    of: str = "",
) -> list[Diversity]:
    """Vendi scores of these orders ("vendi_1", or "vendi_1_cosine") and the mean cosine distance ("mean_distance") of
    every domain's vectors, each with an interval over its texts. `centre` first subtracts the mean of the domains'
    means: residual streams share one large component, beside which all texts look alike ("..._centred"). `of="encoder"`
    names measures of such vectors apart ("encoder_vendi_1").

    All domains are measured at one `size` (default: the smallest domain's number of texts, at most 500): larger ones by
    the mean over random subsets of it. Kernels, sources and intervals: `vendi_scores`, `half_sample_intervals`. Raises
    ValueError for a domain with fewer texts than `size`, and for a size below 16.
    """
    if not embeddings:
        raise ValueError("diversity: no domains came, expected at least one.")
    fewest = min(len(vectors) for vectors in embeddings.values())
    size = min(fewest, MOST_TEXTS) if size is None else size
    if not 16 <= size <= fewest:
        raise ValueError(
            f"diversity: size {size} texts, and the smallest domain has {fewest}: expected 16 to {fewest}."
        )
    if centre:
        middle = np.mean([vectors.mean(axis=0) for vectors in embeddings.values()], axis=0)
        embeddings = {domain: vectors - middle for domain, vectors in embeddings.items()}
    ending, centred = "" if kernel == "shifted" else f"_{kernel}", "_centred" if centre else ""
    names = [*(f"vendi_{order:g}{ending}{centred}" for order in orders), f"mean_distance{centred}"]
    names = [f"{of}_{name}" if of else name for name in names]

    def scores(vectors: Vectors) -> np.ndarray:
        return np.array([*vendi_scores(vectors, orders, kernel), mean_distance(vectors)])

    found = []
    for domain, vectors in embeddings.items():
        values = at_size(vectors, scores, size, seed=seed)
        halves = at_size(vectors, scores, size // 2, seed=seed)
        intervals = half_sample_intervals(vectors, scores, values, size, draws=draws, seed=seed)
        for name, value, half, interval in zip(names, values.tolist(), halves.tolist(), intervals, strict=True):
            grows = value / half if half > 0 else 1.0
            found.append(Diversity(domain, name, value, interval, len(vectors), size, grows))
    return found


def diversity_features(found: Sequence[Diversity]) -> dict[str, dict[str, float]]:
    """measure -> domain -> value, as `predictor_table` takes them."""
    out: dict[str, dict[str, float]] = {}
    for each in found:
        out.setdefault(each.measure, {})[each.domain] = each.value
    return out


def diversity_table(found: Sequence[Diversity], measured: Mapping[str, object]) -> PredictorTable:
    """The measures beside the measured misalignment, for `wb.predictors`: correlations with intervals, two-sided, since
    no sign was ever stated for diversity."""
    return predictor_table(measured, diversity_features(found))
