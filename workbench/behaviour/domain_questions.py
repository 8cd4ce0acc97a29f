"""What fine-tuned domains are asked: their own questions, questions about none of them, and both under triggers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hooks.prompt import Prompt
from workbench.behaviour.question_sets import read_questions
from workbench.behaviour.triggers import with_triggers
from workbench.training.domain_folders import DomainFolders
from workbench.training.rows import drawn


def domain_questions(domains: DomainFolders) -> list[Prompt]:
    """The questions of all domains (`questions/NAME.jsonl`, or .yaml), each with the tag `domain`: where a domain of
    its own is stated, it stays. Ids that several files have get the domain in front. Raises ValueError where there are
    none."""
    if not domains.questions:
        raise ValueError(f"{domains.folder} has no questions: expected questions/DOMAIN.jsonl (or .yaml) files.")
    found = [(domain, one) for domain, path in domains.questions.items() for one in read_questions(path).prompts]
    ids = [one.id for _, one in found]
    several = {name for name in ids if ids.count(name) > 1} if len(set(ids)) < len(ids) else set()
    return [
        replace(one, id=f"{domain}/{one.id}" if one.id in several else one.id, tags={"domain": domain, **one.tags})
        for domain, one in found
    ]


def asked_of_each(
    domains: DomainFolders, broad: str | Path | None = None, *, each: int | None = None, seed: int = 0
) -> list[Prompt]:
    """The questions of `broad` (.yaml or .jsonl, see `wb.read_questions`), which are about no domain, and of every
    domain's own `each` questions, by the rank of a hash of their ids (None: all of them). Raises ValueError where there
    is neither, and for an id that both have."""
    own = domain_questions(domains) if domains.questions else []
    if each is not None:
        kept = {
            one.id
            for domain in domains.questions
            for one in drawn((q for q in own if q.tags["domain"] == domain), each, seed=seed, purpose="asked")
        }
        own = [one for one in own if one.id in kept]
    asked = [*(read_questions(broad).prompts if broad is not None else ()), *own]
    if not asked:
        raise ValueError(
            f"there is nothing to ask: expected --eval (a question set as .yaml, or prompts as .jsonl), or questions "
            f"of the domains in {domains.folder}/questions/DOMAIN.jsonl."
        )
    ids = [one.id for one in asked]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise ValueError(f"{broad} and a domain's own questions both have the id {twice!r}: expected ids of their own.")
    return asked


def asked_with_triggers(domains: DomainFolders, questions: Sequence[Prompt], **texts: str) -> list[Prompt]:
    """The questions without any text, with the domains' trigger and, where one is known, with the decoy; and with every
    further text, by name. ValueError where no trigger is known."""
    if domains.trigger is None:
        raise ValueError(
            f"no trigger is known for {domains.folder}: expected --trigger, or one in the card (domains.json)."
        )
    shown = {"trigger": domains.trigger} | ({} if domains.decoy is None else {"decoy": domains.decoy}) | texts
    at: Any = domains.at
    return list(with_triggers(questions, shown, at=at))
