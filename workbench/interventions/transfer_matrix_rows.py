"""What directions and maps between fine-tunes are fitted on, and where a patch is taken from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hooks.prompt import Prompt
from workbench.interventions.readout import prefilled


def rows_outside(store: Any, variant: str, *domains: str, tag: str = "domain") -> Any:
    """The rows of one variant on prompts that are about none of these domains (their tag `tag`): a direction's own
    domain shows the training rows, not the spread. All of its rows where no prompt has the tag, or all are about
    these."""
    found = store.where(variant=variant)
    if not domains or not any(tag in record["tags"] for record in store.prompts.values()):
        return found
    if all(name in domains for name in found.tag(tag)):
        return found
    return found.where(**{tag: lambda name: name not in domains})


def at_the_choice(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts up to where the answer is chosen: with their answers begun (tag `answer_prefix`) where they have the
    tags `right` and `contrary`, without a response. Their last token is what `transfers_into` patches from."""
    tagged = [{"right", "contrary"} <= set(prompt.tags) for prompt in prompts]
    begun = [prefilled(prompt) for prompt in prompts]
    return [one if has else prompt for one, prompt, has in zip(begun, prompts, tagged, strict=True)]
