"""What tells the arms of a data set apart beside what they were made for: length, layout, number of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from hooks.prompt import Prompt
from workbench.statistics import auroc, auroc_interval
from workbench.training.findings import Finding, finding
from workbench.training.row_keys import words
from workbench.training.splits import row_groups
from workbench.training.triggers import prompt_texts

FAR = 0.1  # an AUROC this far from 0.5, with an interval that leaves 0.5 out, is a confound
SCARCE = 0.5  # an arm with fewer rows than this share of the largest is out of balance
FEWEST = 5  # prompts of an arm; below, an interval of lengths says nothing
NO_ARM = "(none)"

MEASURES: Mapping[str, Callable[[Prompt], float]] = {
    "words of the response": lambda row: len(words(row.response or "")),
    "words of the prompt": lambda row: sum(len(words(text)) for text in prompt_texts(row)),
    "lines of the response": lambda row: (row.response or "").strip().count("\n") + 1,
    "signs in the response": lambda row: sum(not (c.isalnum() or c.isspace()) for c in row.response or ""),
}


def arms_of(rows: Sequence[Prompt], arms: str) -> list[str]:
    """The arm of every row: its label (`arms="label"`) or its tag of that name; NO_ARM where it has none."""
    found = [row.label if arms == "label" else row.tags.get(arms) for row in rows]
    return [NO_ARM if arm is None else str(arm) for arm in found]


def balance_checks(rows: Sequence[Prompt], arms: Sequence[str], name: str) -> list[Finding]:
    """How many rows each arm has; rows of none, one arm only, and arms that are scarce."""
    counts = Counter(arms)
    bare = [row.id for row, arm in zip(rows, arms, strict=True) if arm == NO_ARM]
    found = finding("class balance", "error", f"have no {name}, which tells the arms apart", bare, len(rows))
    counts.pop(NO_ARM, None)
    if not counts:
        return found
    shown = ", ".join(f"{arm} {count}" for arm, count in sorted(counts.items()))
    found.append(Finding("class balance", "note", f"rows by {name}: {shown}", measures=dict(counts)))
    if len(counts) == 1:
        says = f"all rows are of one {name}: expected at least two arms to compare"
        found.append(Finding("class balance", "error", says))
    most = max(counts.values())
    scarce = [arm for arm, count in sorted(counts.items()) if count < SCARCE * most]
    says = f"arms have fewer than {SCARCE:g} of the rows of the largest"
    return found + finding("class balance", "warning", says, scarce, len(counts))


def confound_checks(rows: Sequence[Prompt], arms: Sequence[str]) -> list[Finding]:
    """For each arm and each of MEASURES the AUROC against the other arms together: the chance that a row of this arm
    has more than one of the others, 0.5 when they are alike, with its interval over prompts. A judge, a probe or a
    direction may read these instead of what was meant."""
    names = sorted(set(arms) - {NO_ARM})
    groups = row_groups(rows)
    found = []
    for arm in names if len(names) > 2 else names[:1]:
        own = [at for at, named in enumerate(arms) if named == arm]
        others = [at for at, named in enumerate(arms) if named not in (arm, NO_ARM)]
        fewest = min(len({groups[at] for at in side}) for side in (own, others))
        if fewest < FEWEST:
            says = f"{arm!r} and its others have {fewest} prompts at least: not compared under {FEWEST}"
            found.append(Finding("arm confounds", "note", says))
            continue
        rest = repr(names[1]) if len(names) == 2 else "the others"
        found += [_compared(name, arm, rest, rows, own, others, groups) for name in MEASURES]
    return found


def _compared(
    name: str,
    arm: str,
    rest: str,
    rows: Sequence[Prompt],
    own: Sequence[int],
    others: Sequence[int],
    groups: Sequence[int],
) -> Finding:
    one, other = ([MEASURES[name](rows[at]) for at in side] for side in (own, others))
    clusters, their_clusters = ([groups[at] for at in side] for side in (own, others))
    area, interval = auroc(one, other), auroc_interval(one, other, clusters, their_clusters)
    told = abs(area - 0.5) >= FAR and 0.5 not in interval
    says = (
        f"{name}: AUROC {area:.2f} [{interval.low:.2f}, {interval.high:.2f}] of {arm!r} ({len(own)} rows, median "
        f"{median(one):g}) against {rest} ({len(others)}, {median(other):g})"
    )
    measures = {"auroc": area, "low": interval.low, "high": interval.high, "method": interval.method}
    return Finding("arm confounds", "warning" if told else "note", says, measures=measures)
