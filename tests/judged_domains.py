"""Judged answers of domains' adapters with planted rates: for the tests of rankings, matrices and trigger tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from conftest import chat
from judged_samples import FromTable, answers_table

from workbench.behaviour.judged import Judged
from workbench.behaviour.scoring import judge_answers

Score = Callable[[str, str, int], float | None]  # condition, prompt id, sample -> score


def asked(domains: Sequence[str], each: int = 10):
    """`each` questions about every domain, each its own family."""
    return [
        chat(f"{d}-q{n}", f"question {n} of {d}", tags={"domain": d, "item": n}) for d in domains for n in range(each)
    ]


def judged_by(score: Score, conditions: Sequence[str], prompts, samples: int = 1) -> Judged:
    answers = answers_table(conditions, samples, prompts)
    scores = {f"{c} {p.id} {n}": score(c, p.id, n) for c in conditions for p in prompts for n in range(samples)}
    return Judged(answers, judge_answers(answers, prompts, FromTable("aligned", scores), progress=False))


def groups_of(domains: Sequence[str], seeds: int = 3) -> dict[str, list[str]]:
    return {domain: [f"{domain}-plain-seed{seed}" for seed in range(seeds)] for domain in domains}


def drawn_rates(rates: Mapping[str, float], *, seed: int = 0, by_question: float = 0.1, by_seed: float = 0.02) -> Score:
    """Misaligned (score 10, else 90) at the planted rate of the condition's domain, moved by a question's own effect,
    which all domains share, and a fine-tuning seed's."""
    rng = np.random.default_rng(seed)
    effects: dict[str, float] = {}

    def effect(name: str, size: float) -> float:
        return effects.setdefault(name, float(rng.normal(0, size)))

    def score(condition: str, prompt: str, sample: int) -> float:
        domain = condition.partition("-")[0]
        rate = rates[domain] + effect(prompt, by_question) + effect(condition, by_seed)
        return 10.0 if rng.random() < rate else 90.0

    return score
