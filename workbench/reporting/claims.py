"""Claims as data: what must be measured, on which side of what it must lie, and which way it fell in every base seed.

The rule, fixed before any run that it decides. A number holds when its 95 % interval lies wholly on the claimed side of
the bound and its p, where it has one, is at most 0.05; it is against when the interval lies wholly on the other side. A
claim holds in a base seed when all its numbers do, so that its p is the largest of theirs (an intersection-union test:
Berger 1982), and this p is at most 0.05 after Holm's correction over the claims; it is against when one of its numbers
is. It is "shown" when it holds in every base seed, of at least `least`; "against" when it is against in every one; "not
measured" when no base seed has its numbers; else "not shown", which is no finding of absence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from workbench.reporting.summary import Result, Summary
from workbench.statistics import holm, p_value

ALPHA, LEAST_SEEDS = 0.05, 3
Outcome = Literal["holds", "against", "open", "missing"]
Verdict = Literal["shown", "not shown", "against", "not measured"]


@dataclass(frozen=True)
class Found:
    """One number of a claim in one base seed. `why` says what stood in the way, or what it was compared with."""

    label: str
    outcome: Outcome
    value: float | None = None
    interval: tuple[float, float] | None = None
    n: int | None = None
    p: float | None = None
    why: str = ""
    share: bool = True  # a rate, or a difference of rates; False: a strength, or a count


@dataclass(frozen=True)
class Part:
    """One number that a claim needs. `where` selects results: a value, a tuple of allowed values, or a function that
    says yes or no; all that it selects must hold. `side` and `bound`: where it has to lie.

    `by` says what decides. "interval": the interval, and the p where it has one. "trend": the sign, and the p alone.
    "null": the value, and the p of its own control. "shuffled": the same, of a number that chance alone puts on either
    side of the bound: against only at a p of 0.95 or more. "draws": below (or above) every control run, at least 19.
    "between": the number minus that of `other`, an interval from the two (Newcombe 1998; Zou & Donner 2008). "order":
    every number lies on this side of every number of `other`; such counts have no interval.
    """

    label: str
    where: Mapping[str, Any]
    side: Literal["above", "below"] = "above"
    bound: float = 0.0
    by: Literal["interval", "trend", "null", "shuffled", "draws", "between", "order"] = "interval"
    other: Mapping[str, Any] = field(default_factory=dict)
    last: bool = False  # of several coefficients the largest alone (the highest rank)


@dataclass(frozen=True)
class Claim:
    """A sentence, the script whose runs decide it, and the numbers that have to hold. `name` is short; `note` says what
    the reader must know of the rule's choices."""

    name: str
    sentence: str
    script: str
    parts: tuple[Part, ...]
    note: str = ""


@dataclass(frozen=True)
class Decided:
    """A claim, by base seed what was found of it, and `p`: its own, by Holm over the claims (None: it has none)."""

    claim: Claim
    seeds: Mapping[int, tuple[Found, ...]]
    p: Mapping[int, float | None]
    least: int = LEAST_SEEDS  # base seeds that it has to hold in

    def outcome(self, seed: int) -> Outcome:
        """Of one base seed: missing before against before open."""
        outcomes = {found.outcome for found in self.seeds[seed]} or {"missing"}
        for stopped in ("missing", "against", "open"):
            if stopped in outcomes:
                return stopped
        p = self.p[seed]
        return "holds" if p is None or p <= ALPHA else "open"

    @property
    def verdict(self) -> Verdict:
        outcomes = [self.outcome(seed) for seed in self.seeds]
        if not outcomes or all(one == "missing" for one in outcomes):
            return "not measured"
        if len(outcomes) >= self.least and len(set(outcomes)) == 1 and outcomes[0] in ("holds", "against"):
            return "shown" if outcomes[0] == "holds" else "against"
        return "not shown"


def decided(
    claims: Sequence[Claim], runs: Mapping[str, Mapping[int, Summary]], *, least: int = LEAST_SEEDS
) -> list[Decided]:
    """Every claim decided on the runs (script -> base seed -> summary). Base seeds are all that any script was run
    with: a script that lacks one has not measured it. The claims' p are corrected together, base seed by base seed.
    `least` base seeds have to agree: one, where a claim is about a population of fine-tunes of one base."""
    seeds = sorted({seed for by_seed in runs.values() for seed in by_seed})
    found: dict[tuple[str, int], tuple[Found, ...]] = {}
    p: dict[tuple[str, int], float] = {}
    for seed in seeds:
        for claim in claims:
            summary = runs.get(claim.script, {}).get(seed)
            mine = tuple(one for part in claim.parts for one in _found(part, summary))
            found[claim.name, seed] = mine
            if stated := [one.p for one in mine if one.p is not None]:
                p[claim.name, seed] = max(stated)
        here = [key for key in p if key[1] == seed]
        corrected = holm([p[key] for key in here]).tolist() if here else []
        p |= dict(zip(here, corrected, strict=True))
    return [
        Decided(
            claim,
            {seed: found[claim.name, seed] for seed in seeds},
            {seed: p.get((claim.name, seed)) for seed in seeds},
            least,
        )
        for claim in claims
    ]


def selected(summary: Summary, where: Mapping[str, Any]) -> list[Result]:
    """The results that a part's `where` selects."""
    exact = {name: wanted for name, wanted in where.items() if not callable(wanted)}
    asked = {name: wanted for name, wanted in where.items() if callable(wanted)}
    return [one for one in summary.where(**exact) if all(ask(getattr(one, name)) for name, ask in asked.items())]


def _found(part: Part, summary: Summary | None) -> list[Found]:
    mine = [] if summary is None else selected(summary, part.where)
    if part.last and mine:
        top = max(one.coefficient or 0.0 for one in mine)
        mine = [one for one in mine if (one.coefficient or 0.0) == top]
    theirs = [] if summary is None or not part.other else selected(summary, part.other)
    if part.last and theirs:
        top = max(one.coefficient or 0.0 for one in theirs)
        theirs = [one for one in theirs if (one.coefficient or 0.0) == top]
    if summary is None or not mine or (part.other and not theirs):
        return [Found(part.label, "missing", why="no run" if summary is None else "not in this run")]
    if part.by == "order":
        return [_ordered(part, mine, theirs)]
    if part.by == "draws":
        cells = {_cell(one): one for one in mine}  # a number stands once for each kind of its control runs
        return [_against_draws(part, summary, one, len(cells) > 1) for one in cells.values()]
    if part.by == "between":
        mine = [_between(mine[0], theirs[0])]
    return [_of(part, one, len(mine) > 1) for one in mine]


def _of(part: Part, one: Result, several: bool) -> Found:
    p = one.control.p if part.by in ("null", "shuffled") and one.control else one.test.p if one.test else None
    label = f"{part.label}, {_place(one)}" if several else part.label
    outcome, why = _outcome(part, one, p)
    return Found(label, outcome, one.value, one.interval, one.n, p, why, share=part.by != "trend")


def _outcome(part: Part, one: Result, p: float | None) -> tuple[Outcome, str]:
    sign = 1.0 if part.side == "above" else -1.0
    low_p = p is not None and p <= ALPHA
    if part.by in ("trend", "null", "shuffled"):
        if sign * (one.value - part.bound) > 0:
            return ("holds", "") if low_p else ("open", "it has no p" if p is None else "its p")
        far = {"trend": low_p, "null": True, "shuffled": p is not None and p >= 1 - ALPHA}[part.by]
        return ("against", "") if far else ("open", "its p")
    if one.interval is None:
        return "open", "it has no interval"
    ends = [sign * (end - part.bound) for end in one.interval]
    if min(ends) <= 0 <= max(ends):
        return "open", "its interval holds the bound"
    if p is not None and not low_p:
        return "open", "its p"
    return ("holds", "") if min(ends) > 0 else ("against", "")


def _between(one: Result, other: Result) -> Result:
    """The difference of two independent rates, its interval from theirs."""
    value = one.value - other.value
    n = None if one.n is None or other.n is None else one.n + other.n
    if one.interval is None or other.interval is None:
        return replace(one, value=value, interval=None, n=n, test=None)
    down = ((one.value - one.interval[0]) ** 2 + (other.interval[1] - other.value) ** 2) ** 0.5
    up = ((one.interval[1] - one.value) ** 2 + (other.value - other.interval[0]) ** 2) ** 0.5
    return replace(one, value=value, interval=(value - down, value + up), n=n, test=None)


def _against_draws(part: Part, summary: Summary, one: Result, several: bool) -> Found:
    """A count of control runs: with 20 of them no p survives a correction, so none is asked for."""
    kinds = summary.controls(one)
    draws = next((list(own) for own in kinds.values()), None)
    if draws is None and part.other:
        twin = next((t for t in selected(summary, part.other) if _cell(t) == _cell(one) and t.control), None)
        draws = None if twin is None or twin.control is None else list(twin.control.draws)
    label = f"{part.label}, {_place(one)}" if several else part.label
    if draws is None or len(draws) < 19:
        return Found(label, "missing", one.value, one.interval, one.n, why="fewer than 19 control runs")
    beyond = round(p_value(one.value, draws, "less" if part.side == "below" else "greater") * (1 + len(draws))) - 1
    words = f"{beyond} of {len(draws)} control runs go as far"
    return Found(label, "open" if beyond else "holds", one.value, one.interval, one.n, why=words)


def _ordered(part: Part, mine: Sequence[Result], theirs: Sequence[Result]) -> Found:
    sign = 1.0 if part.side == "above" else -1.0
    here, there = [sign * one.value for one in mine], [sign * one.value for one in theirs]
    outcome: Outcome = "holds" if min(here) > max(there) else "against" if max(here) < min(there) else "open"
    ends = [_span([one.value for one in group]) for group in (mine, theirs)]
    return Found(part.label, outcome, mine[0].value, None, mine[0].n, None, f"{ends[0]} against {ends[1]}", False)


def _cell(one: Result) -> tuple[Any, ...]:
    return one.condition, one.split, one.modality, one.coefficient, one.detail


def _place(one: Result) -> str:
    layer = "" if one.layer is None else f"layer {one.layer}"
    modality = "" if one.modality == "all" else one.modality
    return ", ".join(filter(None, (one.detail, modality, layer)))


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
