"""One row a domain: its measured misalignment with its interval, and one value of every feature."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from stores import ResultTable
from stores.printed import Printed
from workbench.behaviour.membership_comparison import membership_mean
from workbench.behaviour.predictor_features import BEFORE, PredictorFeature, predictor_feature
from workbench.statistics import Interval, t_interval
from workbench.statistics.values import alike

Value = float | int | Sequence[float | int]
Rows = ResultTable | Sequence[Mapping[str, Any]]
_SCORES = ("loss", "zlib", "min_k_", "recall", "paper_b_")
_SIDES = ("", "reference_", "adjusted_")


@dataclass(frozen=True)
class PredictorTable(Printed):
    """`measured` [domain] with `intervals` (None where none was given), and `values` [domain, feature]. Seeds are
    averaged: `seeds` says over how many, and n is the number of domains, never of rows."""

    domains: tuple[str, ...]
    measured: Float[np.ndarray, " n"]
    intervals: tuple[Interval | None, ...]
    features: tuple[PredictorFeature, ...]
    values: Float[np.ndarray, "n k"]
    seeds: tuple[int, ...]

    @property
    def n(self) -> int:
        return len(self.domains)

    @property
    def spread(self) -> bool:
        """Whether the domains differ at all in what was measured: nothing can be predicted where not."""
        return not alike(self.measured)

    @cached_property
    def reliability(self) -> float | None:
        """Share of the variance between domains that is no error of measurement, from the intervals (95 %, taken as
        normal); no feature can correlate better than its square root. None where an interval is missing or infinite."""
        if not self.spread or any(
            each is None or not np.isfinite([each.low, each.high]).all() for each in self.intervals
        ):
            return None
        errors = np.array([(each.high - each.low) / 2 / 1.96 for each in self.intervals if each is not None])
        return float(np.clip(1 - np.mean(errors**2) / self.measured.var(ddof=1), 0.0, 1.0))

    def rows(self) -> list[dict[str, Any]]:
        """One dict a domain: what was measured, its interval, and every feature by name."""
        return [
            {
                "domain": domain,
                "measured": float(measured),
                "interval_low": None if interval is None else interval.low,
                "interval_high": None if interval is None else interval.high,
                **{feature.name: float(value) for feature, value in zip(self.features, values, strict=True)},
            }
            for domain, measured, interval, values in zip(
                self.domains, self.measured, self.intervals, self.values, strict=True
            )
        ]

    def of(self, names: Collection[str]) -> PredictorTable:
        """The same with these features only, in their order here. Raises KeyError for one that is not there."""
        if lacking := sorted(set(names) - {each.name for each in self.features}):
            raise KeyError(f"no feature {lacking[0]!r}: there are {', '.join(each.name for each in self.features)}.")
        kept = [i for i, each in enumerate(self.features) if each.name in names]
        features = tuple(self.features[i] for i in kept)
        return PredictorTable(self.domains, self.measured, self.intervals, features, self.values[:, kept], self.seeds)


def predictor_table(
    measured: Mapping[str, Any],
    features: Mapping[str, Mapping[str, Value]],
    registered: Iterable[PredictorFeature] = (),
) -> PredictorTable:
    """The table that predictors are read from.

    `measured`: domain -> a number, the numbers of several seeds (their mean, with a t interval), or anything with
    `.value` and `.interval`, such as `wb.outcomes` and `wb.misalignment` give. `features`: name -> domain -> a number,
    or one a seed. Signs are those of `wb.predictor_feature`, or of your own `registered` features. Raises ValueError
    for a feature that lacks a domain or holds one more, for fewer than 4 domains, and for values that are not finite.
    """
    domains = tuple(measured)
    own = {each.name: each for each in registered}
    if len(domains) < 4 or not features:
        raise ValueError(
            f"predictor_table: {len(domains)} domains, {len(features)} features: expected 4 and 1 or more."
        )
    for name, values in features.items():
        if odd := sorted(set(values) ^ set(domains)):
            raise ValueError(
                f"feature {name!r} and the measured domains differ in {odd[0]!r} (and {len(odd) - 1} more): expected "
                "the same domains on both sides. Leave a domain out of all of them where one value is missing."
            )
    found = [_measured(measured[domain], domain) for domain in domains]
    columns = [
        [_mean(values[domain], f"{name} of {domain}") for domain in domains] for name, values in features.items()
    ]
    signed = tuple(own[name] if name in own else predictor_feature(name) for name in features)
    outcomes, intervals, seeds = zip(*found, strict=True)
    return PredictorTable(domains, np.array(outcomes), tuple(intervals), signed, np.array(columns).T, tuple(seeds))


def membership_features(
    tables: Mapping[str, Rows], scores: Sequence[str] | None = None, *, weight: str = "sample", prefix: str = ""
) -> dict[str, dict[str, float]]:
    """name -> domain -> mean over the domain's texts, of every score that all tables of `wb.membership` hold: raw, of
    the reference and adjusted by it. `tables`: domain -> its rows. `prefix="before:"` says that the scored model was
    not fine-tuned yet. `weight` as in `wb.membership_mean`."""
    listed = {domain: _rows(rows, domain) for domain, rows in tables.items()}
    names = list(scores) if scores is not None else _scores_in(listed.values())
    return {
        f"{prefix}{name}": {
            domain: membership_mean(rows, name, weight=weight)["all"] for domain, rows in listed.items()
        }
        for name in names
    }


def feature_kinds(table: PredictorTable) -> dict[str, PredictorTable]:
    """The membership scores of a table by kind, as far as there are some: "raw" (of the fine-tuned model), "reference"
    (of its base), "adjusted" (by its base; ratios too), and "before" (of the base, and adjusted by another reference,
    before any fine-tuning)."""
    kinds: dict[str, list[str]] = {"raw": [], "reference": [], "adjusted": [], "before": []}
    for feature in table.features:
        kinds[kind_of(feature.name)].append(feature.name)
    return {kind: table.of(names) for kind, names in kinds.items() if names}


def kind_of(name: str) -> str:
    """The kind of a membership score by its name."""
    if name.startswith(BEFORE):
        return "before"
    if name.startswith("adjusted_") or name in ("log_ratio", "loss_ratio"):
        return "adjusted"
    return "reference" if name.startswith("reference_") else "raw"


def _scores_in(tables: Iterable[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Columns that are scores and have a number in every row of every table, in their order."""
    rows = [row for table in tables for row in table]
    kinds = tuple(side + score for side in _SIDES for score in _SCORES)
    names = [name for name in rows[0] if name.startswith(kinds) or name in ("log_ratio", "loss_ratio")]
    return [name for name in names if all(isinstance(row.get(name), int | float) for row in rows)]


def _rows(rows: Rows, domain: str) -> list[Mapping[str, Any]]:
    listed = list(rows.rows() if isinstance(rows, ResultTable) else rows)
    if not listed:
        raise ValueError(f"membership_features: the table of {domain!r} has no rows; expected the scores of its texts.")
    return listed


def _measured(given: Any, domain: str) -> tuple[float, Interval | None, int]:
    if hasattr(given, "value"):
        return _mean(given.value, domain), getattr(given, "interval", None), len(getattr(given, "by_seed", ())) or 1
    many = np.atleast_1d(np.asarray(given, np.float64))
    return _mean(given, domain), t_interval(many) if len(many) > 1 else None, len(many)


def _mean(given: Any, name: str) -> float:
    values = np.atleast_1d(np.asarray(given, np.float64))  # None becomes NaN
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"{name}: expected a finite number, or one for each seed, and {given!r} came.")
    return float(values.mean())
