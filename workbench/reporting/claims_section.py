"""The claims on a page: which way each fell, what decided it in every base seed, and what the rule was."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.reporting import claims as rules
from workbench.reporting.blocks import Block, Cell, Details, Link, Table, Text
from workbench.reporting.claims import Decided, Found
from workbench.reporting.dose_section import shown
from workbench.reporting.summary import Result

ORDER = ("shown", "not shown", "against", "not measured")
OUTCOMES = {"holds": "holds", "against": "against", "open": "open", "missing": "not measured"}
RULE = (
    "The rule was written before {before}. A number holds when its 95\u00a0% interval lies wholly on the claimed side "
    "and its p, where it has one, is at most 0.05. A claim holds in a base seed when all of its numbers do and the "
    "largest of their p is at most 0.05 after Holm's correction over the claims. Shown: in every base seed, of at "
    "least {least}. Against: the opposite in every one. Everything else is not shown, which is no finding of absence. "
    "Intervals are of one number each, uncorrected."
)
ONE_BASE = " One base seed decides here: its fine-tuning seeds are replicates of the training, not of the base."


def claims(decided: Sequence[Decided], written_before: str = "these runs") -> list[Block]:
    """One line of counts, a table of verdicts, and under each claim its numbers by base seed. `written_before`: which
    runs had not been seen when the rule was written."""
    least = max((one.least for one in decided), default=rules.LEAST_SEEDS)
    rule = RULE.format(before=written_before, least=least) + (ONE_BASE if least == 1 else "")
    counts = [f"{sum(one.verdict == verdict for one in decided)} {verdict}" for verdict in ORDER]
    words = f"Of {len(decided)} readings of the paper's claims: {', '.join(counts)}."
    seeds = sorted({seed for one in decided for seed in one.seeds})
    columns = ["claim", "verdict", *(f"base seed {seed}" for seed in seeds), "runs"]
    rows: list[list[Cell]] = [
        [
            one.claim.sentence,
            one.verdict,
            *(_said(one, seed) for seed in seeds),
            Link(one.claim.script, one.claim.script),
        ]
        for one in decided
    ]
    blocks: list[Block] = [Text("Which of the claims these runs show", [words, rule]), Table(columns, rows)]
    return [*blocks, *(_numbers(one) for one in decided)]


def _said(one: Decided, seed: int) -> str:
    p = one.p[seed]
    return OUTCOMES[one.outcome(seed)] + ("" if p is None else f", p = {p:.2g}")


def _numbers(one: Decided) -> Block:
    rows: list[list[Cell]] = []
    for seed, found in one.seeds.items():
        rows += [[seed, *_row(number)] for number in found]
    columns = ["base seed", "number", "value and 95\u00a0% interval", "n", "p", "outcome", "why"]
    parts = "; ".join(f"{part.label} {part.side} {part.bound:g}, by {part.by}" for part in one.claim.parts)
    words = f"{one.claim.sentence} Decided by: {parts}. {one.claim.note}"
    return Details(f"{one.verdict}: {one.claim.name}", [Text("", [words]), Table(columns, rows)])


def _row(found: Found) -> list[Cell]:
    value = None
    if found.value is not None:
        value = shown(Result("", found.value, "", interval=found.interval)) if found.share else f"{found.value:.3g}"
    p = None if found.p is None else f"{found.p:.2g}"
    return [found.label, value, found.n, p, OUTCOMES[found.outcome], found.why or None]
