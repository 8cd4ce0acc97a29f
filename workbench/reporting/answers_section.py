"""Section: what the models said, every prompt's answers side by side, with the judge's categories and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.reporting.blocks import Answers, Asked, Block, Said, Text
from workbench.reporting.sections import missing
from workbench.reporting.summary import Summary

FIRST = ("base", "tuned", "ablation", "steer")  # the comparison that a reader is shown first, where a run has it
AT_FIRST = 4
FACTS = ("domain", "modality")


def answers(summary: Summary) -> list[Block]:
    """The browser of the answers that the run has kept; the line that there are none, else."""
    blocks: list[Block] = [Text("What the models say")]
    if not summary.samples:
        return [*blocks, missing("samples of generations (samples.json)")]
    conditions = list(dict.fromkeys(_condition(sample) for sample in summary.samples))
    asked: dict[str, list[Mapping[str, Any]]] = {}
    for sample in summary.samples:
        asked.setdefault(str(sample.get("id") or sample.get("prompt", "")), []).append(sample)
    caption = (
        "Generated answers with the judge's category. The first prompts of every domain and modality, not chosen by "
        "their answers."
    )
    shown = [_asked(listed, conditions) for listed in asked.values()]
    return [*blocks, Answers(shown, conditions, first_shown(conditions), caption)]


def first_shown(conditions: Sequence[str]) -> list[str]:
    """At most four conditions: the base, the fine-tuned, the ablated and a steered model first, then the others in
    their order. Of several coefficients the one next to +1 stands for all."""
    families: dict[str, list[str]] = {}
    for name in conditions:
        families.setdefault(_family(name), []).append(name)
    order = [*(name for name in FIRST if name in families), *(name for name in families if name not in FIRST)]
    chosen = {min(families[name], key=lambda each: abs((_dose(each) or 0.0) - 1)) for name in order[:AT_FIRST]}
    return [name for name in conditions if name in chosen]


def _asked(samples: Sequence[Mapping[str, Any]], conditions: Sequence[str]) -> Asked:
    said = {_condition(sample): _said(sample) for sample in samples}
    facts = {name: str(samples[0][name]) for name in FACTS if samples[0].get(name) is not None}
    pictures = [str(uri) for sample in samples for uri in sample.get("images") or ()]
    return Asked(str(samples[0].get("prompt", "")), [said[c] for c in conditions if c in said], facts, pictures)


def _said(sample: Mapping[str, Any]) -> Said:
    given = sample.get("scores")
    scores = given if isinstance(given, Mapping) else {}
    return Said(
        _condition(sample),
        str(sample.get("text", "")),
        str(sample.get("category", "unjudged")),
        str(sample.get("reason") or ""),
        {str(name): float(value) if isinstance(value, int | float) else None for name, value in scores.items()},
    )


def _condition(sample: Mapping[str, Any]) -> str:
    return str(sample.get("condition", "")).replace("_", " ")


def _family(name: str) -> str:
    return name if _dose(name) is None else name.rpartition(" ")[0]


def _dose(name: str) -> float | None:
    """The coefficient at the end of a condition's name ("steer +0.5"); None where there is none."""
    last = name.rpartition(" ")[2]
    try:
        return float(last) if last[:1] in ("+", "-") else None
    except ValueError:
        return None
