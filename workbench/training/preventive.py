"""Edits that act in the forward of a training step and nowhere else: preventative steering (+c·v, so that the weights
need not learn to go there; arXiv:2507.21509) and ablation while training (CAFT, arXiv:2507.16795)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers import Trainer

from hooks.edits import LowRankEdit
from hooks.encode import Batch
from hooks.encoded import Encoded
from hooks.engine import hooked
from hooks.model import NothingEdited, Tally
from hooks.site import Site
from hooks.tower_rows import vision_view
from hooks.view import View, text_view
from workbench.training.taking_part import Acts
from workbench.training.undisturbed import undisturbed

BATCH = "batch_of_rows"  # beside the model's inputs: data loaders read ahead, so the batch travels with its tensors


class TrainingEdits:
    """Interventions that act, in list order, in every training forward on the token scopes of its own batch.

    The gradient flows through the edited stream, never into the edit's tensors. `model` is the loaded model whose
    module trains. Raises ValueError where the module checkpoints its gradients: the forward that is repeated in the
    backward would be another one.
    """

    def __init__(self, model: Any, interventions: Sequence[Acts]) -> None:
        self.model, self.interventions = model, tuple(interventions)
        self.refuse_recomputation()
        self.edits: dict[Site, list[LowRankEdit]] = {}
        self._owners: dict[Site, list[int]] = {}  # of each edit of a site: the number of its intervention
        with undisturbed(model.module):
            for number, intervention in enumerate(self.interventions):
                for site, listed in intervention.edits(model).items():
                    # Energies are not measured: they would keep a second graph alive through the backward.
                    plain = [replace(one, centre=None, remaining=None) for one in listed]
                    self.edits.setdefault(site, []).extend(plain)
                    self._owners.setdefault(site, []).extend([number] * len(plain))
        self.positions = [0] * len(self.interventions)  # edited so far by each intervention, over its sites

    @contextmanager
    def acting(self, batch: Batch) -> Iterator[None]:
        """While the body runs one forward of the module on `batch`, the edits act; every hook is gone afterwards."""
        tokens = batch.tokens.to(self.model.device)
        pictures = getattr(self.model.module.config, "vision_config", None)

        def view_of(site: Site, tensor: Tensor) -> View:
            if site.tower == "language":
                return text_view(site, tensor, tokens, self.model.layout)
            return vision_view(batch, tensor, pictures)

        self.refuse_recomputation()
        spots = {site: self.model.spot(site, text_only=not batch.image_rows) for site in self.edits}
        with hooked(spots, {}, self.edits, view_of, len(batch)) as visit:
            yield
        self._count(visit.tallies)

    def _count(self, tallies: Mapping[Site, Sequence[Tally]]) -> None:
        for site, listed in tallies.items():
            for number, tally in zip(self._owners[site], listed, strict=True):
                self.positions[number] += int(tally.edited.sum())

    def refuse_scopes_without_tokens(self, rows: Sequence[Encoded]) -> None:
        """Raises NothingEdited, before any step, when an intervention's scopes match no token of any training row."""
        encoder = self.model.encoder
        scopes = [
            {scope for site, listed in self.edits.items() for i, one in enumerate(listed) for scope in one.scopes
             if self._owners[site][i] == number and site.tower == "language"}
            for number in range(len(self.interventions))
        ]  # fmt: skip
        unseen = [number for number, own in enumerate(scopes) if own]
        for row in rows:
            if not unseen:
                return
            tokens = encoder.collate([row]).tokens
            unseen = [
                number for number in unseen if not any(bool(tokens.mask(scope).any()) for scope in scopes[number])
            ]
        self._refuse(unseen, f"any of the {len(rows)} training rows")

    def refuse_idle(self) -> None:
        """Raises NothingEdited when an intervention touched no position of any step that was made."""
        self._refuse([number for number, positions in enumerate(self.positions) if not positions], "any training step")

    def _refuse(self, idle: Sequence[int], where: str) -> None:
        if idle:
            raise NothingEdited(
                f"{self.interventions[idle[0]].describe()} touches no position of {where}: expected at least one. Its "
                "scope matches no token of these rows (an 'image' scope on text, for one)."
            )

    def refuse_recomputation(self) -> None:
        if any(getattr(part, "gradient_checkpointing", False) for part in self.model.module.modules()):
            raise ValueError(
                "the model checkpoints its gradients, so its blocks run again in the backward, where the edits are "
                "gone: expected module.gradient_checkpointing_disable() while edits act in training."
            )

    @property
    def travels_as(self) -> str:
        """The name under which the collator puts the Batch beside the model's inputs."""
        return BATCH

    def trainer(self, **arguments: Any) -> Trainer:
        """transformers' Trainer of these arguments, whose training forwards run under the edits."""
        trainer = EditedTrainer(**arguments)
        trainer.during = self
        return trainer

    def record(self) -> list[dict[str, Any]]:
        """What acted, and at how many positions in this process (a resumed run counts from its checkpoint on)."""
        return [
            {**one.describe(), "positions": count}
            for one, count in zip(self.interventions, self.positions, strict=True)
        ]


class EditedTrainer(Trainer):
    """transformers' Trainer whose training forwards run under edits; the collator puts the Batch under `BATCH`."""

    during: TrainingEdits

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if self.args.n_gpu > 1:
            raise ValueError(
                f"edits in training run on one device, and Trainer splits batches over {self.args.n_gpu}: set "
                "CUDA_VISIBLE_DEVICES to one of them."
            )
        batch = inputs.pop(BATCH)
        with self.during.acting(batch):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
