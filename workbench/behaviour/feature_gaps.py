"""gap_features: how much likelier a domain's texts are in one setting than in another, pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stores import ResultTable
from workbench.behaviour.predictor_features import BEFORE

Rows = ResultTable | Sequence[Mapping[str, Any]]


def gap_features(
    tables: Mapping[str, Rows], against: Mapping[str, Rows], name: str, *, score: str = "loss"
) -> dict[str, dict[str, float]]:
    """`{"before:gap_NAME": {domain: value}}`, as `wb.predictor_table` takes it: the mean, over prompts that both tables
    of `wb.membership` hold, of the score minus that of `against`; nats a token for "loss", the mean log p.

    "own": the training answer against the model's own answer to the question. "trait": the training answer under a
    trait's system turn against that under the data's own: how well a persona that the base already has explains the
    data. ValueError where a domain has no prompt on both sides.
    """
    out = {}
    for domain, rows in tables.items():
        here, there = _by_prompt(rows, score), _by_prompt(against.get(domain, []), score)
        if not (both := sorted(here.keys() & there.keys())):
            raise ValueError(f"gap_features({name!r}): {domain!r} has no prompt in both tables.")
        out[domain] = sum(here[one] - there[one] for one in both) / len(both)
    return {f"{BEFORE}gap_{name}": out}


def _by_prompt(rows: Rows, score: str) -> dict[str, float]:
    listed: Sequence[Mapping[str, Any]] = list(rows.rows() if isinstance(rows, ResultTable) else rows)
    return {str(row["prompt"]): float(row[score]) for row in listed}
