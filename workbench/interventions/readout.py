"""What is read off a run without sampling: the choice between two answers, and the distance to the unedited model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.encode import Encoder
from hooks.prompt import Prompt, PromptError


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
        exact = logits.float().cpu()
        probability = exact.softmax(dim=-1)
        rows = torch.arange(len(exact))
        top = exact.argmax(dim=-1)
        names = [
            "contrary" if t == c else "right" if t == r else "other"
            for t, r, c in zip(top, self.right, self.contrary, strict=True)
        ]
        difference = exact[rows, self.contrary] - exact[rows, self.right]
        numbers = zip(
            difference.tolist(),
            probability[rows, self.contrary].tolist(),
            probability[rows, self.right].tolist(),
            strict=True,
        )
        return [
            {"choice": name, "logit_difference": d, "p_contrary": c, "p_right": r}
            for name, (d, c, r) in zip(names, numbers, strict=True)
        ]


def prefilled(prompt: Prompt) -> Prompt:
    """The prompt with the beginning of its answer (tag `answer_prefix`) given, and no response, so that the next token
    decides."""
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
        first = [encoder.continuation_ids(lead + str(prompt.tags[name]))[0] for name in ("right", "contrary")]
        if first[0] == first[1]:
            raise PromptError(
                f"prompt {prompt.id!r}: {prompt.tags['right']!r} and {prompt.tags['contrary']!r} begin with the same "
                "token."
            )
        right.append(first[0])
        contrary.append(first[1])
    return Choice(torch.tensor(right), torch.tensor(contrary))


def kl_from(base: Float[Tensor, "row vocab"], edited: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """KL(base ‖ edited) of the next-token distributions in nats, float64, one a row."""
    p, q = base.double().log_softmax(dim=-1), edited.double().log_softmax(dim=-1)
    return (p.exp() * (p - q)).sum(dim=-1).clamp_min(0)
