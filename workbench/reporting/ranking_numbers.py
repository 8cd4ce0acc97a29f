"""How sections on domains write numbers: shares as per cent, scores of 0 to 100 as they are, differences with sign."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from workbench.behaviour.metrics import METRICS, P_CONTRARY, RULE_RATES
from workbench.reporting.style import percent
from workbench.reporting.summary import Result

ALPHA = 0.05  # at which pairs are said to be told apart, after Holm's correction
APART = " - "  # between the two sides of a difference
_KNOWN = {**METRICS, **RULE_RATES, P_CONTRARY.name: P_CONTRARY}


def is_share(metric: str, values: Iterable[float] = ()) -> bool:
    """Whether a metric is a fraction: a published one by its scale, another where all its values lie in 0..1."""
    known = _KNOWN.get(metric.partition(" ")[0])
    return known.span == (0.0, 1.0) if known is not None else all(0 <= value <= 1 for value in values)


def number(value: float, *, share: bool) -> str:
    """One value of a metric."""
    return percent(value) if share else f"{value:.3g}".replace("-", "−")


def with_ends(found: Result | None, *, share: bool) -> str | None:
    """The value with its interval: "98 % (93 to 100 %)"."""
    if found is None:
        return None
    value = number(found.value, share=share)
    if found.interval is None:
        return value
    low, high = (number(end, share=share) for end in found.interval)
    return f"{value} ({low[:-2] if share else low} to {high})"


def change(found: Result) -> str:
    """A difference with sign and interval, of shares as a fraction: "+0.35 [+0.20, +0.50]"."""
    ends = "" if found.interval is None else f" [{_signed(found.interval[0])}, {_signed(found.interval[1])}]"
    return f"{_signed(found.value)}{ends}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-0.00", "+0.00").replace("-", "−")


def p_of(found: Result | None) -> str | None:
    """The p of its test, two digits."""
    return None if found is None or found.test is None else f"{found.test.p:.2g}"


def clear(found: Result) -> bool:
    """True where its p is at most ALPHA."""
    return found.test is not None and found.test.p <= ALPHA


def span(ends: Sequence[float] | None) -> str | None:
    """A range of ranks: "1 to 3"."""
    return None if ends is None else f"{ends[0]:g}" if ends[0] == ends[1] else f"{ends[0]:g} to {ends[1]:g}"
