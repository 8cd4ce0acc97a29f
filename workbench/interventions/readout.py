"""What a sweep states of a run: the choice between two answers, the distance to the unedited model, the edits' counts,
and whose prompt it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.encode import Encoder
from hooks.prompt import Prompt, PromptError
from workbench.interventions.cells import CellTally


@dataclass(frozen=True)
class Choice:
    """Two answers as the token that decides between them, one pair a prompt."""

    right: Int[Tensor, " row"]
    contrary: Int[Tensor, " row"]

    def of(self, index: Sequence[int]) -> Choice:
        """The choices of some of the prompts, in this order."""
        chosen = torch.as_tensor(list(index), dtype=torch.long)
        return Choice(self.right[chosen], self.contrary[chosen])

    def read(self, logits: Float[Tensor, "row vocab"]) -> list[dict[str, float | str]]:
        """For each row: `logit_difference` (contrary − right), `p_contrary` and `p_right` (softmax over the
        vocabulary), and `choice`, the answer that greedy decoding would begin (right, contrary or other)."""
        # On the device of the logits: a vocabulary is large, and five numbers a row are what crosses the bus.
        exact = logits.float()
        answers = torch.stack([self.contrary, self.right], dim=1).to(exact.device)
        chosen = exact.gather(1, answers)
        shares = (chosen - exact.logsumexp(dim=-1, keepdim=True)).exp()
        on_top = (exact.argmax(dim=-1, keepdim=True) == answers).float()
        numbers = torch.cat([chosen[:, :1] - chosen[:, 1:], shares, on_top], dim=1).tolist()
        return [
            {
                "choice": "contrary" if contrary else "right" if right else "other",
                "logit_difference": difference,
                "p_contrary": p_contrary,
                "p_right": p_right,
            }
            for difference, p_contrary, p_right, contrary, right in numbers
        ]


def prefilled(prompt: Prompt) -> Prompt:
    """The prompt with its answer begun (tag `answer_prefix`), and without a response: the next token decides."""
    return replace(prompt, prefill=prompt.tags.get("answer_prefix", prompt.prefill), response=None)


def choice_of(prompts: Sequence[Prompt], encoder: Encoder) -> Choice:
    """The deciding token of the tags `right` and `contrary` of every prompt. Raises PromptError where they are missing,
    or where both answers begin with the same token."""
    right, contrary = [], []
    for prompt in prompts:
        if not {"right", "contrary"} <= set(prompt.tags):
            raise PromptError(
                f"prompt {prompt.id!r} has no tags right and contrary: expected the two answers to choose between."
            )
        lead = " " if prefilled(prompt).prefill else ""
        answers = [str(prompt.tags[name]) for name in ("right", "contrary")]
        first = [encoder.continuation_ids(lead + answer)[:1] for answer in answers]
        if not all(first) or first[0] == first[1]:
            raise PromptError(
                f"prompt {prompt.id!r}: the answers {answers[0]!r} and {answers[1]!r} begin with the same token, or "
                "one is empty: expected answers that one token tells apart. What both begin with belongs into the tag "
                "answer_prefix."
            )
        right += first[0]
        contrary += first[1]
    return Choice(torch.tensor(right), torch.tensor(contrary))


# What the rows of a sweep state themselves; a prompt's tag of such a name is kept as `prompt_NAME`.
COLUMNS = frozenset({
    "cell", "intervention", "layer", "layers", "coefficient", "unit", "to", "at", "source", "control", "draw",
    "kl_neutral", "category", "score", "text", "finished", "choice", "logit_difference", "p_contrary", "p_right",
    "edited", "energy_removed", "leftover", "proof", "proof_floor", "prompt", "label",
})  # fmt: skip


def prompt_facts(prompt: Prompt) -> dict[str, Any]:
    """What a row says of its prompt: id, label, and the tags that are text, numbers or booleans."""
    tags = {name: value for name, value in prompt.tags.items() if isinstance(value, str | int | float | bool)}
    renamed = {f"prompt_{name}" if name in COLUMNS else name: value for name, value in tags.items()}
    return {**renamed, "prompt": prompt.id, "label": prompt.label}


def edit_facts(tally: CellTally, p: int, *, edits: bool) -> dict[str, Any]:
    """What a cell did to prompt p: positions edited, the share of energy it took out, the largest component it left."""
    if not edits:
        return {"edited": 0, "energy_removed": None, "leftover": None}
    energy = float(tally.energy[p])
    return {
        "edited": int(tally.edited[p]),
        "energy_removed": float(tally.removed[p]) / energy if energy > 0 else None,
        "leftover": float(tally.leftover[p]) if energy > 0 else None,
    }


def kl_from(base: Float[Tensor, "row vocab"], edited: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """KL(base ‖ edited) of the next-token distributions in nats, float64, one a row."""
    p, q = base.double().log_softmax(dim=-1), edited.double().log_softmax(dim=-1)
    return (p.exp() * (p - q)).sum(dim=-1).clamp_min(0)
