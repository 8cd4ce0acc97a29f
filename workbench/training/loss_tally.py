"""LossTally: what received loss, counted at the model's own door while it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from workbench.training.datasets import NO_LOSS
from workbench.training.loss_mask import LostMask


class LossTally:
    """Counts the tokens of every training forward of a module by what they are: under the loss, tokens of images,
    images' under the loss (which has to stay 0), and the rest (prompts and templates); pads are none.

    It is a pre-forward hook, so that it sees the batch that reaches the model, whatever collator, data loader and
    trainer did to it. Forwards without labels, or in eval mode, are no training.
    """

    def __init__(self, module: nn.Module, image_token_id: int | None) -> None:
        self.image_token_id = image_token_id
        self.forwards = 0
        self._counts: Int[Tensor, " 5"] | None = None  # on the device of the ids: no step waits for it
        self._hook = module.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: nn.Module, _: tuple[Any, ...], inputs: Mapping[str, Any]) -> None:
        ids, labels = inputs.get("input_ids"), inputs.get("labels")
        if not module.training or ids is None or labels is None:
            return
        with torch.no_grad():
            under = labels != NO_LOSS
            real = inputs["attention_mask"].bool() if "attention_mask" in inputs else torch.ones_like(under)
            image = torch.zeros_like(under) if self.image_token_id is None else (ids == self.image_token_id) & real
            groups = [under, image, under & image, real & ~under & ~image, under & ~real]
            found = torch.stack([group.sum() for group in groups])
            self._counts = found if self._counts is None else self._counts + found
        self.forwards += 1

    def finish(self) -> dict[str, int]:
        """Takes the hook away and returns the counts over all forwards (each epoch counts its rows again; a run that
        was stopped counts from its checkpoint on). Raises LostMask when image tokens or pads had loss."""
        self._hook.remove()
        under, image, wrong, rest, pads = (0,) * 5 if self._counts is None else self._counts.tolist()
        if wrong or pads:
            raise LostMask(
                f"{wrong} image tokens and {pads} pads received loss in {self.forwards} training forwards: expected "
                "none. Something between the collator and the model changes labels or ids."
            )
        return {
            "forwards": self.forwards,
            "under loss": under,
            "image": image,
            "image under loss": wrong,
            "other": rest,
        }
