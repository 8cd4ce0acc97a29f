"""A line of a benchmark: what was measured, against what gate, and the verdict; as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clocks import SETTING
from pairs import Ratio

PASS, SHORT, NOISY, REPORTED, ABSENT = "pass", "short", "too noisy", "reported", "not installed"
TINY = "not judged"
EXIT = {PASS: 0, REPORTED: 0, ABSENT: 0, TINY: 0, SHORT: 1, NOISY: 2}


@dataclass(frozen=True)
class Line:
    """One measured claim. `direction=">="`: the ratio is peer time / ours time, and its interval's lower end must reach
    the gate. `"<="`: the ratio (always given as `paired` gives it) is shown as ours time / peer time, and its upper end
    must stay at or below the gate. What is no timing carries a plain `value` (with its `unit`) instead of a ratio.
    Without a gate it is only reported. With neither ratio nor value the peer is not installed: say so in the note.
    """

    id: str
    what: str
    ratio: Ratio | None = None
    gate: float | None = None
    goal: float | None = None
    direction: str = ">="
    peer: str = ""
    note: str = ""
    value: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if self.direction not in (">=", "<="):
            raise ValueError(f"Line {self.id}: expected direction '>=' or '<=', got {self.direction!r}.")
        if self.ratio is not None and self.value is not None:
            raise ValueError(f"Line {self.id} has a ratio and a value: expected one of them.")

    @property
    def shown(self) -> tuple[float, float, float] | None:
        """(median, low, high) in the line's own direction."""
        if self.value is not None:
            return self.value, self.value, self.value
        if self.ratio is None:
            return None
        median, low, high = self.ratio.median, self.ratio.low, self.ratio.high
        return (median, low, high) if self.direction == ">=" else (1 / median, 1 / high, 1 / low)

    @property
    def verdict(self) -> str:
        if self.shown is None:
            return ABSENT
        if SETTING.tiny:
            return TINY
        if self.gate is None:
            return REPORTED
        if self.ratio is not None and not self.ratio.quiet:
            return NOISY
        _, low, high = self.shown
        return PASS if (low >= self.gate if self.direction == ">=" else high <= self.gate) else SHORT

    def record(self) -> dict[str, Any]:
        """As JSON: seconds and ratios rounded to four figures."""
        shown, ratio = self.shown, self.ratio
        fields: dict[str, Any] = {
            "id": self.id,
            "what": self.what,
            "peer": self.peer,
            "direction": self.direction,
            "gate": self.gate,
            "goal": self.goal,
            "verdict": self.verdict,
            "note": self.note,
        }
        if self.value is not None:
            fields |= {"value": rounded(self.value), "unit": self.unit}
        if ratio is not None and shown is not None:
            fields |= {"ours_s": rounded(ratio.ours), "peer_s": rounded(ratio.peer), "pairs": ratio.pairs}
            fields |= {"ratio": rounded(shown[0]), "interval": [rounded(shown[1]), rounded(shown[2])]}
            if ratio.floor is not None:
                floor = ratio.floor
                fields["floor"] = [rounded(end) for end in (floor.median, floor.low, floor.high)]
        return fields


def rounded(number: float) -> float | None:
    """Four figures; None for what is no number, which JSON does not know."""
    return float(f"{number:.4g}") if math.isfinite(number) else None


def worst(verdicts: Sequence[str]) -> int:
    """Exit code of a run: 1 when any gate is short, else 2 when any line is too noisy, else 0."""
    codes = {EXIT[verdict] for verdict in verdicts}
    return 1 if 1 in codes else max(codes, default=0)


HEADINGS = ("id", "what", "peer", "ours", "peer takes", "ratio", "interval", "floor", "gate", "goal", "verdict")


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """The lines (as `Line.record` gives them) as one aligned table, the notes below it."""
    rows = [HEADINGS, *(cells(record) for record in records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [f"{record['id']}: {record['note']}" for record in records if record["note"]]
    return "\n".join([*text, *dict.fromkeys(notes)])


def cells(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What a table shows of one line, in the order of HEADINGS."""
    sign = record["direction"].replace(">=", "≥").replace("<=", "≤")
    unit = record.get("unit", "")
    if "value" in record:
        value = record["value"]
        measured = ("", "", "no number" if value is None else f"{value:g}{' ' if unit else ''}{unit}", "", "")
    elif "ratio" in record:
        low, high = record["interval"]
        median, least, most = record.get("floor", (None, None, None))
        floor = "" if median is None else f"{median:.2f} [{least:.2f}, {most:.2f}]"
        ratio, spread = f"{record['ratio']:.2f}x", f"[{low:.2f}, {high:.2f}]"
        measured = (seconds(record["ours_s"]), seconds(record["peer_s"]), ratio, spread, floor)
    else:
        measured = ("", "", "", "", "")
    bounds = ["" if record[key] is None else f"{sign} {record[key]:g}" for key in ("gate", "goal")]
    return record["id"], record["what"], record["peer"], *measured, *bounds, record["verdict"]


def seconds(number: float | None) -> str:
    """Seconds in the unit that suits them."""
    if number is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if number >= size or unit == "us":
            return f"{number / size:.3g} {unit}"
    raise AssertionError
