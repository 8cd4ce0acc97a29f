"""What the page says and shows of a projection: its sign, its share of the full colour, where a picture has most."""

from __future__ import annotations

from workbench.reporting.blocks import Patches


def signed(value: float) -> str:
    """Two digits with their sign, and a real minus: "+0.83", "−0.31"."""
    return f"{value:+.2f}".replace("-", "−")


def side_of(value: float) -> str:
    """The side of zero: the colour, and the line under a token (whole or dotted), by which it is told."""
    return "down" if value < 0 else "up"


def share_of(value: float, scale: float) -> float:
    """How much of the full colour: 0 to 1."""
    return min(1.0, abs(value) / scale) if scale > 0 else 0.0


def patches_said(seen: Patches) -> str:
    """The picture's projections in a sentence, for those who do not see them."""
    if not seen.values:
        return "no image positions"
    places = sorted(range(len(seen.values)), key=lambda place: seen.values[place])
    low, high = (f"{signed(seen.values[place])} at {_place(place, seen.columns)}" for place in (places[0], places[-1]))
    return f"{len(seen.values)} image positions: highest {high}, lowest {low}"


def _place(place: int, columns: int) -> str:
    return f"row {place // columns + 1}, column {place % columns + 1}" if columns else f"position {place + 1}"
