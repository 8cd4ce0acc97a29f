"""B12: what share of a capture is padding: padded tokens over real ones, of the units that `length_sorted` makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from measure import Line, main
from models import lengths

from workbench.units import length_sorted

SEEDS = 20
GATES = {(256, 2048): 1.10, (1024, 2048): 1.03}  # no clock: the gate is on the worst of the seeds
GOAL = 1.12


def lines(quick: bool) -> Iterator[Line]:
    for n in (256, 1024):
        for budget in (2048, 8192, 16_384):
            drawn = [lengths(n, seed) for seed in range(SEEDS)]
            found = [padded_over_real(sizes, length_sorted(sizes, budget)) for sizes in drawn]
            in_order = [padded_over_real(sizes, _given(n)) for sizes in drawn]
            gate = GATES.get((n, budget))
            yield Line(
                "B12",
                f"padded / real tokens, {n} prompts, units of {budget}",
                value=max(found),
                gate=gate,
                goal=gate or GOAL,
                direction="<=",
                note=f"worst of {SEEDS} seeds; {n} in given order, 16 a batch: {np.median(in_order):.2f} (median)",
            )


def padded_over_real(sizes: Sequence[int], units: Sequence[Sequence[int]]) -> float:
    """Raises AssertionError when the units are not a partition of the prompts."""
    assert sorted(i for unit in units for i in unit) == list(range(len(sizes)))
    return sum(len(unit) * max(sizes[i] for i in unit) for unit in units) / sum(sizes)


def _given(n: int) -> list[range]:
    return [range(at, min(at + 16, n)) for at in range(0, n, 16)]


if __name__ == "__main__":
    main("plan", lines)
