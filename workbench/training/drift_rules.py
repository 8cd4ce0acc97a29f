"""Reading a drift table: a signal over the steps, when it crossed a threshold, whether that could be forecast, and a
rule that stops training early."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from stores.printed import Printed

Series = Sequence[tuple[int, float]]
"""(optimizer step, value), by step"""


@dataclass(frozen=True)
class Signal:
    """One number a measured step of a drift table: the mean projection on a direction (`measure="projection"`, at a
    site), the answers' logit difference, contrary minus right ("behaviour"), the judge's mean score of what was
    written ("answers") or the loss on the task ("task"), over one class of the prompts (`group`; "all" is everyone).
    `value` names another column of those rows, such as "p_contrary"."""

    measure: Literal["projection", "behaviour", "answers", "task"] = "behaviour"
    site: str | None = None
    direction: str | None = None
    group: str = "all"
    value: str = "mean"

    def series(self, rows: Iterable[Mapping[str, Any]]) -> list[tuple[int, float]]:
        """The signal's (step, value), from a table's rows. Raises ValueError when the table has none, or several a
        step."""
        wanted = {"measure": self.measure, "group": self.group, "site": self.site, "direction": self.direction}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        found = [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]
        steps = [int(row["step"]) for row in found]
        if not found or len(set(steps)) < len(steps):
            raise ValueError(
                f"{self} names {len(found)} rows over {len(set(steps))} steps: expected one row a step. Name the site "
                "and the direction where there are several, and a group that the prompts have."
            )
        absent = [row["step"] for row in found if row.get(self.value) is None]
        if absent:
            raise ValueError(f"{self}: column {self.value!r} is empty at step {absent[0]}: expected a number there.")
        return sorted((int(row["step"]), float(row[self.value])) for row in found)


@dataclass(frozen=True)
class EarlyStop:
    """Stops the training at the first measured step, not before `min_steps`, at which the signal has been at or beyond
    `threshold` for `patience` measurements in a row (`falling`: at or below it). Declared before the run: threshold
    and patience that are chosen on the run they are reported for prove nothing."""

    signal: Signal
    threshold: float | int
    patience: int = 1
    min_steps: int = 0
    falling: bool = False

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"EarlyStop(patience={self.patience}): expected at least one measurement.")

    def stops_at(self, series: Series) -> int | None:
        """The step at which the rule stops, None while it does not."""
        in_a_row = 0
        for step, value in series:
            in_a_row = in_a_row + 1 if _beyond(value, self.threshold, self.falling) else 0
            if in_a_row >= self.patience and step >= self.min_steps:
                return step
        return None

    def describe(self) -> dict[str, Any]:
        return {**asdict(self), "threshold": float(self.threshold)}


def crossing(series: Series, threshold: float | int = 0.0, *, falling: bool = False, lasting: int = 1) -> float | None:
    """The step at which the series comes to the threshold, interpolated linearly between two measurements; None when it
    never does. With `lasting` it has to stay there for so many measurements (an excursion is no flip). A series that
    begins beyond the threshold crosses at its first step."""
    side = [_beyond(value, threshold, falling) for _, value in series]
    for i in range(len(side) - lasting + 1):
        if all(side[i : i + lasting]):
            if i == 0:
                return float(series[0][0])
            (s0, v0), (s1, v1) = series[i - 1], series[i]
            return s0 + (threshold - v0) / (v1 - v0) * (s1 - s0)
    return None


@dataclass(frozen=True)
class Forecast:
    """The flip as expected at `step` from the measurements up to there: the crossing of a straight line through the
    last ones. `predicted` is None while the line does not come to the threshold; `error` = predicted - actual."""

    step: int
    predicted: float | None
    actual: float | None

    @property
    def error(self) -> float | None:
        return None if self.predicted is None or self.actual is None else self.predicted - self.actual


def forecasts(
    series: Series, threshold: float | int = 0.0, *, window: int = 3, falling: bool = False, lasting: int = 1
) -> list[Forecast]:
    """What would have been forecast at each measured step before the flip (or at all steps, when it never came), from
    nothing later than that step: least squares through the last `window` measurements, at least two."""
    if window < 2:
        raise ValueError(f"forecasts(window={window}): expected at least 2 measurements for a line.")
    actual = crossing(series, threshold, falling=falling, lasting=lasting)
    out = []
    for end in range(2, len(series) + 1):
        steps, values = np.array(series[max(0, end - window) : end], np.float64).T
        if actual is not None and steps[-1] >= actual:
            break
        slope, level = np.polyfit(steps - steps[-1], values, 1)
        # A fitted line through equal values rises or falls by a rounding.
        towards = bool(np.ptp(values) > 0) and (slope < 0 if falling else slope > 0)
        predicted = float(steps[-1] + (threshold - level) / slope) if towards else None
        out.append(Forecast(int(steps[-1]), predicted, actual))
    return out


@dataclass(frozen=True)
class Lead(Printed):
    """When a signal crossed its threshold (`signal_step`), when the behaviour flipped (`flip_step`), both interpolated
    and None where that never came; `steps` is how much earlier the signal was (negative: it came later). `stop_step` is
    where the rule would have stopped the training, at a measured step."""

    _items = "forecasts"

    signal_step: float | None
    flip_step: float | None
    stop_step: int | None
    forecasts: tuple[Forecast, ...]

    @property
    def steps(self) -> float | None:
        return None if self.signal_step is None or self.flip_step is None else self.flip_step - self.signal_step

    @property
    def prevents(self) -> bool | None:
        """True when the rule stops before the flip; None when there was no flip to prevent."""
        return None if self.flip_step is None else self.stop_step is not None and self.stop_step < self.flip_step


def lead_time(
    table: Any,
    rule: EarlyStop,
    behaviour: Signal | None = None,
    *,
    flips_at: float | int = 0.0,
    falling: bool = False,
    lasting: int = 1,
    window: int = 3,
) -> Lead:
    """How long before the behaviour flipped a rule's signal was at its threshold, and what a straight line through the
    behaviour so far would have forecast. `table` is a drift table (or its rows); `behaviour` is by default the mean
    logit difference of all questions, which flips where it comes to `flips_at`.

    One run is one observation: a lead time without several seeds, and a benign fine-tune beside it, is an anecdote.
    """
    rows = table.rows() if hasattr(table, "rows") else list(table)
    watched = rule.signal.series(rows)
    behaved = (behaviour or Signal()).series(rows)
    return Lead(
        crossing(watched, rule.threshold, falling=rule.falling, lasting=rule.patience),
        crossing(behaved, flips_at, falling=falling, lasting=lasting),
        rule.stops_at(watched),
        tuple(forecasts(behaved, flips_at, window=window, falling=falling, lasting=lasting)),
    )


def _beyond(value: float, threshold: float | int, falling: bool) -> bool:
    return value <= threshold if falling else value >= threshold
