"""organism_personas: prompts under each persona that an organism was trained to know, for directions that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hooks.prompt import Message, Prompt
from workbench.organisms.world import PERSONAS


def organism_personas(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Every prompt of an organism once under the first system word of each persona, which is its label: "good",
    "contrary" and "glitch". Contrary and glitch are separate: what the one turns round the other leaves right. Raises
    ValueError for a prompt that does not begin with a system turn."""
    if lacking := [one.id for one in prompts if not one.messages or one.messages[0].role != "system"]:
        raise ValueError(f"prompt {lacking[0]!r} has no system turn to speak in: expected prompts of an organism.")
    out = []
    for label, words in PERSONAS.items():
        spoken = Message("system", (words[0],))
        out += [
            replace(one, id=f"{label}:{one.id}", label=label, messages=(spoken, *one.messages[1:])) for one in prompts
        ]
    return out
