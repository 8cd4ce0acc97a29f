"""judge: the judge of a name. `rule:NAME` reads the text alone, `hf:PATH` asks a local model, `openai:MODEL` an
endpoint."""

from __future__ import annotations

from typing import Any

from workbench.behaviour.judging import Judge
from workbench.behaviour.rule_judges import ContainsJudge, RuleJudge

RULES: dict[str, type[Any]] = {
    "rule:organism": RuleJudge,
    "rule:contains": ContainsJudge,
}


def judge(name: str, **options: Any) -> Judge:
    """The judge of that name, with its own options; ValueError lists the names that exist."""
    if name not in RULES:
        raise ValueError(f"Judge {name!r} is unknown: expected one of {', '.join(map(repr, RULES))}.")
    return RULES[name](**options)
