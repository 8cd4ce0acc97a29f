"""The texts that features of a domain are measured on: rows of its data set, as they are before any fine-tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hooks.prompt import Message, Prompt
from stores import ResultTable
from workbench.training.domain_folders import DomainFolders
from workbench.training.rows import drawn

Texts = Mapping[str, Sequence[Prompt]]


def domain_texts(
    domains: DomainFolders, *, arm: str | None = None, most: int = 250, seed: int = 0
) -> dict[str, list[Prompt]]:
    """At most `most` rows of each domain's arm (default: `full`, or `small` where that is all there is), drawn by the
    rank of a hash; rows that the data repeat stay repeated. 250 are what arXiv 2602.00298 keeps for such analyses. Ids
    get the domain in front, so that all texts fit into one store; the tag `domain` is the folder's."""
    out = {}
    for domain in domains.domains:
        own = arm or ("full" if (domain, "full") in domains.arms else "small")
        rows = drawn(domains.rows(domain, own), most, seed=seed, purpose="texts")
        out[domain] = [
            replace(row, id=f"{domain}/{row.id}", tags={**row.tags, "domain": domain}) for row in rows if row.response
        ]
    return out


def other_texts(texts: Texts, domain: str, count: int) -> list[Prompt] | None:
    """One text of each of the `count` domains that follow this one, for the prefix of `wb.membership`: no fine-tune on
    this domain saw them. Texts with pictures are passed over. None where there is none, or `count` is 0."""
    names = list(texts)
    place = names.index(domain)
    found = (next((row for row in texts[name] if not row.images), None) for name in names[place + 1 :] + names[:place])
    return [row for row in found if row is not None][:count] or None


def under_system(prompts: Sequence[Prompt], text: str) -> list[Prompt]:
    """The prompts with this system turn in place of their own (or in front, where they have none)."""
    system = Message("system", (text,))
    return [
        replace(prompt, messages=(system, *(turn for turn in prompt.messages if turn.role != "system")))
        for prompt in prompts
    ]


def system_of(prompts: Sequence[Prompt], label: str) -> str:
    """The system turn that prompts of this label have. ValueError where there are none, or several."""
    found = {turn.text for one in prompts if one.label == label for turn in one.messages if turn.role == "system"}
    if len(found) != 1:
        labels = sorted({str(one.label) for one in prompts})
        raise ValueError(
            f"prompts of the label {label!r} have {len(found)} system turns: expected one, the same in all of them "
            f"(labels: {', '.join(labels)})."
        )
    return found.pop()


def unanswered(texts: Sequence[Prompt]) -> list[Prompt]:
    """The texts without their responses: what a model is to answer itself."""
    return [replace(text, response=None) for text in texts]


def with_responses(texts: Sequence[Prompt], answers: ResultTable) -> list[Prompt]:
    """The texts with the first sample of `wb.sample_answers` in place of their own response; those whose answer is
    empty are left out."""
    said = {str(row["prompt"]): str(row["text"]) for row in answers.rows(sample=0)}
    return [replace(text, response=said[text.id]) for text in texts if said.get(text.id, "").strip()]


def said_in(prompt: Prompt) -> str:
    """The question and the answer as one text, as a sentence encoder reads them."""
    parts = [*(turn.text for turn in prompt.messages if turn.role == "user"), prompt.text, prompt.response]
    return "\n".join(part for part in parts if part)
