"""Findings of a data check, and the report that holds them: counts and ids, never the text of a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stores.printed import Printed

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
LISTED = 10  # ids or lines that a finding names; its count is that of all


@dataclass(frozen=True)
class Finding(Printed):
    """One thing that a check found. `count` of `of` rows (or files, arms, tokens: `says` tells) show it; `where` names
    the first of them by id or line; `measures` are its numbers."""

    check: str
    severity: Severity
    says: str
    count: int = 0
    of: int = 0
    where: tuple[str, ...] = ()
    measures: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        share = f"{self.count} of {self.of}: " if self.of else ""
        more = ", ..." if self.where and self.count > len(self.where) else ""
        named = f" ({', '.join(self.where)}{more})" if self.where else ""
        return f"{self.severity:<7}  {self.check:<15}  {share}{self.says}{named}"


def finding(check: str, severity: Severity, says: str, where: Iterable[str], of: int, **measures: Any) -> list[Finding]:
    """One finding about the rows named in `where`, or none when there are none."""
    named = list(where)
    if not named:
        return []
    return [Finding(check, severity, says, len(named), of, tuple(named[:LISTED]), measures or None)]


@dataclass(frozen=True)
class DataReport(Printed):
    """What a data set was found to be. `counts` are facts (rows, tokens, tokens under the loss); `not_checked` says
    what was left out and which argument it wants; `shown` is text of rows, empty unless it was asked for.
    `str(report)` is the table."""

    _items = "findings"

    name: str
    counts: Mapping[str, Any]
    findings: tuple[Finding, ...]
    not_checked: tuple[str, ...] = ()
    shown: str = ""

    @property
    def passed(self) -> bool:
        """True without an error; warnings are for the reader to judge."""
        return not self.of("error")

    def of(self, severity: Severity | None = None, check: str | None = None) -> list[Finding]:
        """The findings of one severity, one check, or both."""
        return [one for one in self.findings if severity in (None, one.severity) and check in (None, one.check)]

    def record(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return {"passed": self.passed, **asdict(self)}

    def __str__(self) -> str:
        lines = [f"{self.name}: " + ", ".join(f"{name} {_short(value)}" for name, value in self.counts.items())]
        lines += [str(one) for severity in SEVERITIES for one in self.of(severity)]
        lines += [f"{'skipped':<7}  {one}" for one in self.not_checked]
        totals = {severity: len(self.of(severity)) for severity in SEVERITIES}
        lines.append(", ".join(f"{n} {severity}{'s' * (n != 1)}" for severity, n in totals.items()))
        return "\n".join([*lines, *([self.shown] if self.shown else [])])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
