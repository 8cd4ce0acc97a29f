"""Ways to foresee a flip, compared over several runs of one recipe: the run's own line, a line through another signal
to the level at which the other runs flipped, and, the one to beat, the step at which the other runs flipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stores.printed import Printed
from workbench.training.drift_rules import Series, Signal, crossing, forecasts

OWN_LINE = "a line through its own answers"
OTHERS = "when the other runs flipped"
Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class ForecastErrors(Printed):
    """One way of forecasting. `errors`: by run, the mean of |predicted - actual| in steps over its measured steps
    before the flip; `silent`: at which share of those steps it foresaw no flip before the end of the training (counted
    as a flip at its end); `forecasts`: how many steps there were."""

    by: str
    errors: Mapping[str, float]
    silent: float
    forecasts: int

    @property
    def mean(self) -> float | None:
        """Over runs; None where there was no prediction at all."""
        return float(np.mean(list(self.errors.values()))) if self.errors else None


def compared_forecasts(
    runs: Mapping[str, Rows],
    behaviour: Signal,
    signals: Mapping[str, Signal],
    *,
    flips_at: float | int = 0.0,
    window: int = 3,
    lasting: int = 1,
) -> list[ForecastErrors]:
    """How far off each way was, run by run, at the measured steps before the flip from the `window`-th on.

    A line is of least squares through the last `window` measurements; a signal's line leads to the mean level that it
    had at the flips of the other runs, so nothing of a run's own future enters its forecast. Runs that never flipped
    take no part; with fewer than 2 that did there are no others to learn from, and nothing is returned.
    """
    listed = {name: list(rows) for name, rows in runs.items()}
    behaved = {name: behaviour.series(rows) for name, rows in listed.items()}
    crossed = {name: crossing(series, flips_at, lasting=lasting) for name, series in behaved.items()}
    flips = {name: flip for name, flip in crossed.items() if flip is not None}
    if len(flips) < 2:
        return []
    ways: dict[str, dict[str, list[float | None]]] = {name: {} for name in (OWN_LINE, *signals, OTHERS)}
    for name, flip in flips.items():
        others = [other for other in flips if other != name]
        steps = [step for step, _ in behaved[name]][window - 1 :]
        steps = [step for step in steps if step < flip]
        ways[OWN_LINE][name] = _at(steps, behaved[name], flips_at, window)
        ways[OTHERS][name] = [float(np.mean([flips[other] for other in others]))] * len(steps)
        for label, signal in signals.items():
            level = float(np.mean([_value_at(signal.series(listed[other]), flips[other]) for other in others]))
            ways[label][name] = _at(steps, signal.series(listed[name]), level, window)
    ends = {name: behaved[name][-1][0] for name in flips}
    return [_errors(label, predicted, flips, ends) for label, predicted in ways.items()]


def _at(steps: list[int], series: Series, level: float | int, window: int) -> list[float | None]:
    """The forecasts made at these steps; a series that is at its level already forecasts that very step."""
    made = {one.step: one.predicted for one in forecasts(series, level, window=window)}
    now = dict(series)
    return [float(step) if now[step] >= level else made.get(step) for step in steps]


def _value_at(series: Series, step: float) -> float:
    at, values = np.array(series, np.float64).T
    return float(np.interp(step, at, values))


def _errors(
    by: str, predicted: Mapping[str, list[float | None]], flips: Mapping[str, float], ends: Mapping[str, int]
) -> ForecastErrors:
    off: dict[str, list[float]] = {}
    silent = 0
    for run, made in predicted.items():
        seen = [one if one is not None and one < ends[run] else None for one in made]
        silent += seen.count(None)
        off[run] = [abs((ends[run] if one is None else one) - flips[run]) for one in seen]
    asked = sum(map(len, off.values()))
    errors = {run: float(np.mean(each)) for run, each in off.items() if each}
    return ForecastErrors(by, errors, silent / asked if asked else 0.0, asked)
