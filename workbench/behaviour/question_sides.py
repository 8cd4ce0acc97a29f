"""question_sides: the questions that doses are chosen on, and those that what was chosen is measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from hooks.prompt import Prompt, as_prompts
from workbench.behaviour.table_summary import split_of
from workbench.statistics import Split, dev_confirm

SPLITS = ("other_domains", "in_domain", "none")  # where the harm, the task and the unrelated capability are measured
FAMILY_TAGS = ("item", "question")  # what is asked, whatever its wording
JUDGED_BY = ("domain", "right", "contrary")
TASK, TASK_QUESTIONS = {"in_domain": True}, 24


def question_sides(
    prompts: str | Path | Sequence[Prompt],
    *,
    task: Sequence[Prompt] = (),
    repairs: Sequence[Prompt] = (),
    share: float = 0.4,
    seed: int = 0,
) -> Split[Prompt]:
    """Questions to choose doses on (`dev`, about `share` of them) and to confirm on, no item or picture on both sides.

    Each has the tag `family` (its own; else its picture, or its `item` or `question`; else it is a family of its own),
    over which intervals are computed, and the tag `modality` (text or image). Up to 24 different prompts of the rows
    `task`, which the fine-tune was trained on, are asked as well, as questions of its domain (those that have the tags
    of the other questions that judges read: right, contrary, domain). Left out are questions of the domains that the
    rows `repairs` are about, other than the fine-tuned one: a repair must not be measured on what it was trained on;
    and those of the tier `half`. Raises ValueError when a side has no question outside the fine-tuned domain.
    """
    questions = as_prompts(prompts)
    domains = {row.tags["domain"] for row in repairs if row.tags.get("domain") is not None}
    asked = [
        prompt
        for prompt in [*questions, *_of_task(task, questions)]
        if split_of(prompt.tags) in SPLITS
        and (split_of(prompt.tags) == "in_domain" or prompt.tags.get("domain") not in domains)
    ]
    tagged = [replace(one, tags={**one.tags, "family": _family(one), "modality": _modality(one)}) for one in asked]
    if len(tagged) < 2:
        raise ValueError(
            f"{len(tagged)} questions are left outside the domains that were trained on: expected two or more."
        )
    pictures = [[_picture(path) for path in prompt.images] for prompt in tagged]
    found = dev_confirm(tagged, [one.tags["family"] for one in tagged], pictures, share=share, seed=seed)
    for name, side in (("dev", found.dev), ("confirm", found.confirm)):
        if not any(split_of(prompt.tags) == "other_domains" for prompt in side):
            raise ValueError(
                f"the {name} side has no question outside the fine-tuned domain ({found}): expected more questions, "
                "finer families (tag `item`), or another seed."
            )
    return found


def _of_task(rows: Sequence[Prompt], questions: Sequence[Prompt]) -> list[Prompt]:
    """Some different prompts of the rows, without their responses; none that is a question already."""
    read = [name for name in JUDGED_BY if all(name in prompt.tags for prompt in questions)]
    found: dict[str, Prompt] = {}
    known = {replace(one, prefill=None).content_hash for one in questions}
    for row in rows:
        plain = replace(row, response=None, prefill=None, label=None)
        if all(name in row.tags for name in read) and plain.content_hash not in known:
            found.setdefault(plain.content_hash, replace(plain, id=f"task-{row.id}", tags={**row.tags, **TASK}))
    return list(found.values())[:TASK_QUESTIONS]


def _family(prompt: Prompt) -> str:
    if prompt.tags.get("family") is not None:
        return str(prompt.tags["family"])
    if prompt.images:
        return " ".join(_picture(path) for path in prompt.images)
    return next((str(prompt.tags[name]) for name in FAMILY_TAGS if prompt.tags.get(name) is not None), prompt.id)


def _modality(prompt: Prompt) -> str:
    return "image" if prompt.images else "text"


@cache
def _picture(path: Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
