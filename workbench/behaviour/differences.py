"""difference: a metric of one condition against another on the same prompts, paired, with what is needed to read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stores.printed import Printed
from workbench.behaviour.judged import Judged
from workbench.behaviour.measured import family_of, points_of, values_of
from workbench.behaviour.metrics import Metric, metric
from workbench.behaviour.scoring import Key, key_of
from workbench.statistics import (
    Equivalence,
    Interval,
    Significance,
    paired_bootstrap,
    sign_flip_test,
    tost,
)


@dataclass(frozen=True)
class Difference(Printed):
    """`value` is `condition` minus `against`, a mean over the prompt families that both have, each weighing the same.
    `dropped` answers had a score on one side alone. `equivalence` is there where a margin was stated."""

    metric: str
    condition: str
    against: str
    value: float
    interval: Interval
    test: Significance
    pairs: int
    families: int
    dropped: int
    judges: Mapping[str, str]
    equivalence: Equivalence | None = None

    def __str__(self) -> str:
        dropped = f", {self.dropped} unpaired answers left out" if self.dropped else ""
        said = f"{self.metric}: {self.condition} - {self.against} = {self.value:.3g} {self.interval}; {self.test}"
        return f"{said}; {self.pairs} pairs in {self.families} families{dropped}"


def difference(
    judged: Judged,
    by: str | Metric,
    condition: str,
    against: str = "base",
    *,
    judge: str | None = None,
    margin: float | None = None,
    resamples: int = 20_000,
    seed: int = 0,
) -> Difference:
    """The difference of two conditions, answer by answer of the same prompt and draw, with a paired bootstrap over
    prompt families and a sign-flip test over them. `margin`, stated beforehand, adds a test of equivalence: an interval
    that holds 0 shows none. Raises ValueError for conditions that are not there, or fewer than 2 families with pairs.
    """
    rule = metric(by)
    for name in (condition, against):
        if name not in judged.conditions:
            raise ValueError(f"there is no condition {name!r}: expected one of {', '.join(judged.conditions)}.")
    values, sources = values_of(judged, rule, judge)
    rows = {key_of(row): row for row in judged.rows}
    scored = {key for key, value in values.items() if value is not None}
    paired = {key for key in scored if key[0] == condition and (against, *key[1:]) in scored}
    mine = _by_family(rule, values, {key: family_of(rows[key]) for key in rows if key in paired})
    others = {(against, *key[1:]) for key in paired}
    theirs = _by_family(rule, values, {key: family_of(rows[key]) for key in rows if key in others})
    if len(set(mine[1])) < 2:
        raise ValueError(
            f"{len(set(mine[1]))} prompt families have answers with scores on both sides: expected 2 or more."
        )
    low, high = rule.span
    interval = paired_bootstrap(
        mine[0], theirs[0], mine[1], theirs[1], bounds=(low - high, high - low), resamples=resamples, seed=seed
    )
    differences = [a - b for a, b in zip(mine[0], theirs[0], strict=True)]
    test = sign_flip_test(differences, mine[1], seed=seed)
    return Difference(
        metric=str(rule),
        condition=condition,
        against=against,
        value=test.statistic,
        interval=interval,
        test=test,
        pairs=len(differences),
        families=len(set(mine[1])),
        dropped=sum(key[0] in (condition, against) for key in scored) - 2 * len(paired),
        judges={name: judge for name, (judge, _) in sources.items()},
        equivalence=None if margin is None else tost(differences, margin, mine[1]),
    )


def _by_family(
    rule: Metric, values: Mapping[Key, float | None], family: Mapping[Key, str]
) -> tuple[list[float], list[str]]:
    """What is compared, and the family of each, by prompt and sample."""
    points = points_of({key: values[key] for key in sorted(family, key=lambda key: key[1:])}, family, rule)
    return [value for _, value in points], [name for name, _ in points]
