"""Answers and scores as the judging tests need them, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from conftest import chat

from stores import ResultTable
from workbench.behaviour.judging import SCORED, UNSCORED, Answer, InBatches, Verdict

PROMPTS = [chat(f"q{n}", f"question {n}", tags={"family": "abc"[n % 3]}) for n in range(5)]


def answers_table(conditions=("base", "tuned"), samples=2, prompts=PROMPTS) -> ResultTable:
    """Answers that say where they belong."""
    table = ResultTable.create(None, spec={}, plan=["all"], provenance={})
    rows = [
        {
            "condition": condition, "prompt": prompt.id, "sample": n, "text": f"{condition} {prompt.id} {n}",
            "finished": True, **{f"tag_{name}": value for name, value in prompt.tags.items()},
        }
        for condition in conditions for prompt in prompts for n in range(samples)
    ]  # fmt: skip
    table.commit("all", rows)
    return table


@dataclass
class FromTable(InBatches):
    """A judge that knows its scores by text: a number, None, or the default."""

    measures: str = "aligned"
    scores: Mapping[str, float | None] = field(default_factory=dict)
    default: float | None = 80.0
    name: str = "hf:stand-in"
    revision: str = "r1"
    scale: tuple[float, float] = (0.0, 100.0)
    compares: bool = False
    seen: list[Answer] = field(default_factory=list)

    def score_all(self, answers: Sequence[Answer]) -> list[Verdict]:
        self.seen += answers
        found = [self.scores.get(one.text, self.default) for one in answers]
        return [
            Verdict(UNSCORED, None, "refused to score") if score is None else Verdict(SCORED, score, "")
            for score in found
        ]
