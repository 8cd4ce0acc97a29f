"""Interleaved pairs: how many times faster ours is than a peer, with an interval, and ours against itself beside it."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from clocks import SETTING, Clock, calls_of, clock

RESAMPLES = 4000
FLOOR_WITHIN = 0.05  # ours against ours must come out as 1 within this share, or nothing can be said


@dataclass(frozen=True)
class Ratio:
    """Peer time / ours time: the median over the rounds and its 95 % bootstrap interval. `ours` and `peer` are median
    seconds of one call; `floor` is ours measured against itself in the same rounds; `also` holds the other peers."""

    median: float
    low: float
    high: float
    ours: float = math.nan
    peer: float = math.nan
    pairs: int = 0
    floor: Ratio | None = None
    also: Mapping[str, Ratio] = field(default_factory=dict)

    @property
    def quiet(self) -> bool:
        """Whether the floor's whole interval lies within 5 % of 1."""
        return self.floor is None or (self.floor.low >= 1 - FLOOR_WITHIN and self.floor.high <= 1 + FLOOR_WITHIN)


def paired(
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    pairs: int = 15,
    also: Mapping[str, Callable[[], object]] | None = None,
    seconds: Clock | None = None,
    least: float = 0.02,
    patience: float = 180.0,
    between: Callable[[], object] | None = None,
) -> Ratio:
    """Peer time over ours time, from at least `pairs` rounds. In each round ours, the peer, the peers in `also` and
    ours once more are measured in an order that rotates and turns round, so that each is first, and follows each other,
    about equally often. A round's ratio is the peer's time over the mean of its two ours; garbage is collected between.

    The clock is `clocks.clock()` unless `seconds` is given: CPU seconds of this process, or CUDA events. What takes
    less than `least` seconds is called several times a measurement. While ours against ours is not within 5 % of 1,
    rounds are added, up to three times as many or until `patience` seconds were measured: the stop looks at ours
    against ours alone, never at the ratio. `between` is called before every measurement, outside the clock.
    """
    seconds = seconds or clock()
    if SETTING.tiny:
        pairs, least, patience = 2, 0.0, 0.0
    others = dict(also or {})
    calls = {"ours": ours, "peer": peer, **{f"also {name}": other for name, other in others.items()}}
    times = {name: calls_of(call, seconds, least) for name, call in calls.items()}
    calls["again"], times["again"] = ours, times["ours"]
    taken: dict[str, list[float]] = {name: [] for name in calls}
    spent = 0.0
    with _garbage_resting():
        for done in count(1):
            for name in _order(list(calls), done):
                gc.collect()
                if between is not None:
                    between()
                taken[name].append(seconds(calls[name], times[name]))
                spent += taken[name][-1] * times[name]
            if done >= pairs and (done >= 3 * pairs or spent > patience or _against(taken, "peer").quiet):
                break
    return _against(taken, "peer", {name: _against(taken, f"also {name}") for name in others})


def _order(names: Sequence[str], turn: int) -> list[str]:
    at = turn % len(names)
    order = [*names[at:], *names[:at]]
    return order[::-1] if (turn // len(names)) % 2 else order


@contextmanager
def _garbage_resting() -> Iterator[None]:
    """No collection inside a timed call. What lives already is frozen, so that collecting between calls is cheap."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()


def _against(taken: Mapping[str, Sequence[float]], name: str, also: Mapping[str, Ratio] | None = None) -> Ratio:
    first, again, peer = (np.asarray(taken[key]) for key in ("ours", "again", name))
    floor = Ratio(*interval(again / first), float(np.median(first)), float(np.median(again)), len(first))
    ours = (first + again) / 2
    spread = interval(peer / ours)
    return Ratio(*spread, float(np.median(ours)), float(np.median(peer)), len(peer), floor, also or {})


def interval(ratios: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Median, and the percentile bootstrap's 95 % interval of the median; the same for the same numbers."""
    ratios = np.asarray(ratios, dtype=float)
    drawn = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)
