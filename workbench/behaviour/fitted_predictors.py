"""fitted_predictor: a regression on few features, judged on domains that it never saw, against its own shuffles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from stores.printed import Printed
from workbench.behaviour.predictor_table import PredictorTable
from workbench.statistics import fitted_tests as tests
from workbench.statistics.fitted_tests import AgainstShuffles, against_shuffles
from workbench.statistics.intervals import Interval
from workbench.statistics.left_out import Candidate, candidates_of, left_out, one_left_out
from workbench.statistics.shuffles import shuffled_columns
from workbench.statistics.skill import left_out_skill

Model = Literal["ridge", "logistic"]
PENALTIES = (0.1, 1.0)


@dataclass(frozen=True)
class FittedPredictor(Printed):
    """`skill`: of ridge, 1 - squared errors / those of the mean of the other domains; of logistic, the same of log
    losses; each domain left out once. `auroc`: pairs in the right order, each pair left out (None without a threshold,
    or with too few domains on a side). `predicted`: domain -> what the others say of it (logistic: chance of
    misaligned). `chosen`: features -> in how many of the folds they were chosen. `interval`: of a ridge's skill."""

    model: Model
    features: tuple[str, ...]
    candidates: int
    n: int
    threshold: float | None
    skill: AgainstShuffles
    interval: Interval | None
    auroc: AgainstShuffles | None
    predicted: dict[str, float]
    chosen: dict[str, int]

    def __str__(self) -> str:
        chosen = ", ".join(f"{name} {count}" for name, count in self.chosen.items())
        area = "" if self.auroc is None else f"\n  AUROC, pairs left out: {self.auroc}"
        return (
            f"{self.model} on {len(self.features)} features, {self.candidates} candidates, n = {self.n} domains, each "
            f"left out once; chosen: {chosen}\n  skill: {self.skill}{area}"
        )


def fitted_predictor(
    table: PredictorTable,
    *,
    model: Model = "ridge",
    threshold: float | int | None = None,
    most: int = 1,
    penalties: Sequence[float | int] = PENALTIES,
    draws: int = 999,
    seed: int = 0,
) -> FittedPredictor | None:
    """A regression of the measured misalignment (ridge), or of `measured > threshold` (logistic), on the features of
    the table; None where there is nothing to predict: domains that all measure the same, or too few on one side.

    In every fold the features (each combination of up to `most`) and the penalty are chosen by leave-one-out errors
    within the fold's own domains. Every shuffle of the domains' outcomes goes through the whole procedure, choice
    included, and p is that of the procedure among its own shuffles: never against 0, or 0.5. With one candidate
    (one feature, one penalty) nothing is chosen. A domain's seeds were averaged, and so stay together when shuffled.
    """
    if model not in ("ridge", "logistic"):
        raise ValueError(f"model={model!r} is unknown: expected 'ridge' or 'logistic'.")
    if model == "logistic" and threshold is None:
        raise ValueError("model='logistic' predicts a label: expected threshold=, stated beforehand.")
    candidates = candidates_of(table.values.shape[1], most=most, penalties=penalties)
    labels = np.zeros(table.n) if threshold is None else (table.measured > threshold).astype(np.float64)
    fewest = int(min(labels.sum(), table.n - labels.sum()))
    if not table.spread or table.n < 5 or (model == "logistic" and fewest < 2):
        return None
    folds, area, interval = one_left_out(table.n), None, None
    if model == "ridge":
        outcomes, exact = shuffled_columns(table.measured, draws=draws, seed=seed)
        skill = tests.left_out_skills(table.values, outcomes, candidates)
        if fewest:
            marked = (outcomes > threshold).astype(np.float64)
            area = tests.left_out_aurocs(table.values, outcomes, marked, candidates)
        made = left_out(table.values, outcomes[:, :1], folds, candidates)
        predicted, picked = made.predicted[:, 0, 0], made.chosen[:, 0]
        interval = left_out_skill(table.values, table.measured, candidates).interval()
    else:
        outcomes, exact = tests.shuffled_labels(labels, draws=draws, seed=seed)
        skill = tests.logistic_skills(table.values, outcomes, candidates)
        area = tests.logistic_aurocs(table.values, outcomes, candidates)
        odds = tests.left_out_log_odds(table.values, outcomes[:, :1], folds, candidates)[:, 0, 0]
        predicted = 1 / (1 + np.exp(-odds))
        picked = left_out(table.values, outcomes[:, :1], folds, candidates).chosen[:, 0]
    return FittedPredictor(
        model,
        tuple(each.name for each in table.features),
        len(candidates),
        table.n,
        None if threshold is None else float(threshold),
        against_shuffles(skill, exact=exact),
        interval,
        None if area is None else against_shuffles(area, exact=exact),
        dict(zip(table.domains, predicted.tolist(), strict=True)),
        chosen_names(table, candidates, picked),
    )


@dataclass(frozen=True)
class ShuffledPopulations(Printed):
    """The p of the predictor in populations whose labels were shuffled, so that nothing can be predicted: `uniform` is
    the p of Kolmogorov-Smirnov against evenly spread p, `below` the share under 0.05."""

    p: tuple[float, ...]
    uniform: float
    below: float

    def __str__(self) -> str:
        return f"{len(self.p)} shuffled populations: {self.below:.1%} of p below .05; uniform: KS p {self.uniform:.2g}"


def shuffled_populations(
    table: PredictorTable,
    *,
    populations: int = 200,
    most: int = 1,
    penalties: Sequence[float | int] = PENALTIES,
    draws: int = 199,
    seed: int = 0,
) -> ShuffledPopulations:
    """Whether the p of `fitted_predictor` (ridge) is honest on these very features: its p in `populations` whose
    measured values are dealt to the domains at random, each against `draws` shuffles of its own.

    ValueError for domains that all measure the same."""
    candidates = candidates_of(table.values.shape[1], most=most, penalties=penalties)
    rng = np.random.default_rng(seed)
    dealt = rng.permuted(np.broadcast_to(table.measured, (populations * (draws + 1), table.n)), axis=1).T
    skills = tests.left_out_skills(table.values, dealt, candidates).reshape(populations, draws + 1)
    p = np.array([against_shuffles(each).p for each in skills])
    return ShuffledPopulations(tuple(p.tolist()), float(stats.kstest(p, "uniform").pvalue), float((p < 0.05).mean()))


def chosen_names(table: PredictorTable, candidates: Sequence[Candidate], picked: np.ndarray) -> dict[str, int]:
    names = [" + ".join(table.features[i].name for i in candidates[choice].columns) for choice in picked]
    return dict(Counter(names).most_common())
