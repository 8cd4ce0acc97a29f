"""Drift: what is watched while an adapter is trained, every few steps, without disturbing the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hooks.positions import Scope, checked_scope, scope_name
from hooks.prompt import Prompt, as_prompts
from stores import ResultTable, StoreError, content_key
from stores.printed import Printed
from workbench.interventions.measuring import Scorer
from workbench.interventions.placement import refuse_other_model
from workbench.subspace.directions import Directions
from workbench.training.acting_identity import identity_of
from workbench.training.drift_rules import EarlyStop

if TYPE_CHECKING:
    from workbench.interventions.drift_callback import DriftCallback

END = "end"  # the unit of what is known only when training is over


@dataclass(frozen=True, eq=False)
class Drift(Printed):
    """Measures a model before the first optimizer step, every `every` steps, and after the last, into a ResultTable
    under `to`. `train_lora(..., watch=Drift(...))`, or in a Trainer of your own `callbacks=[drift.callback(model)]`.

    The rows of a step, by `measure`:
    - "projection": h·v̂ of the `prompts` at the scope `at` (mean over it) on each of the `directions`, by site and
      class (`group`: the prompts' label, or "all"): mean, sd, n, and `moved`, the mean since step 0, in the residual's
      units.
    - "spectrum": the shift since step 0, by site, with its mean and without (`decomposed`): mean length, the `k` top
      shares of its energy, participation ratio; `unchanged` where nothing moved.
    - "rotation": norms of the adapter's factors, cosines and principal angles against the measurement before
      (`against="previous"`), and at the end of each against the last (`against="end"`); see
      `workbench.training.rotation`. Until then the factors of every measured step lie in `to/snapshots`
      (4 bytes a parameter of the adapter each); `rotation=False` leaves all of it out (DoRA, whole fine-tunes).
    - "behaviour": for `questions` with the tags right and contrary, the logit difference at the token that decides.
    - "answers": with a `judge`, its mean score of the answers to the questions (greedy, of at most `max_new_tokens`),
      by class: for the rule judges the rate of what they look for. Then the questions need no tags.
    - "task": the mean negative log-likelihood of a token of the responses of `task` (rows like the training's, held
      out of it), in nats: how well the task of the fine-tune is learned.

    `until` stops the training by a declared rule. Weights, gradients, random numbers, train modes and data order are
    those of the training without it, bit for bit; a run that was stopped goes on in the same table. One process, one
    device at a time (ValueError otherwise).
    """

    prompts: str | Path | Sequence[Prompt]
    directions: Directions | Mapping[str, Directions]
    to: str | Path
    every: int = 10
    at: Scope = "last"
    questions: str | Path | Sequence[Prompt] = ()
    k: int = 5
    rotation: bool = True
    until: EarlyStop | None = None
    max_tokens: int | None = None
    judge: Scorer | None = None
    max_new_tokens: int = 64
    task: str | Path | Sequence[Prompt] = ()

    def __post_init__(self) -> None:
        checked_scope(self.at)
        if self.every < 1 or self.k < 1:
            raise ValueError(f"Drift(every={self.every}, k={self.k}): expected whole numbers from 1 on.")
        if len(self.read) < 2:
            raise ValueError(f"Drift has {len(self.read)} prompts: expected at least 2, or a shift has no spectrum.")
        if getattr(self.judge, "compares", False):
            raise ValueError(
                "the judge of a Drift compares with another model's answers, and there is one model in a training: "
                "expected a judge of single answers."
            )

    @cached_property
    def read(self) -> list[Prompt]:
        return as_prompts(self.prompts)

    @cached_property
    def asked(self) -> list[Prompt]:
        return as_prompts(self.questions) if self.questions else []

    @cached_property
    def held_out(self) -> list[Prompt]:
        return as_prompts(self.task) if self.task else []

    @property
    def named(self) -> dict[str, Directions]:
        """The directions by name; one alone is called "v"."""
        return {"v": self.directions} if isinstance(self.directions, Directions) else dict(self.directions)

    def describe(self) -> dict[str, Any]:
        """What decides the numbers of the table; what is not asked for does not count."""
        more: dict[str, Any] = {}
        if self.judge is not None:
            more["judge"] = [self.judge.name, self.judge.revision, self.max_new_tokens]
        if self.held_out:
            more["task"] = content_key([prompt.record() for prompt in self.held_out])
        return {
            **more,
            "prompts": content_key([prompt.record() for prompt in self.read]),
            "questions": content_key([prompt.record() for prompt in self.asked]),
            "directions": {name: identity_of(v) for name, v in self.named.items()},
            "at": scope_name(self.at),
            "every": self.every,
            "k": self.k,
            "rotation": self.rotation,
            "until": None if self.until is None else self.until.describe(),
        }

    def identity(self) -> str | None:
        """A hash of all that decides when training stops; None where it does not stop it."""
        return None if self.until is None else content_key(self.describe())

    def callback(self, model: Any, run: str | None = None) -> DriftCallback:
        """The TrainerCallback for this model (`load_model(...)`, whose `module` the Trainer trains, in a PeftModel or
        not). `run` names the training, so that a run that begins anew may go on in the table; without it only a
        training that resumes from a checkpoint may."""
        from workbench.interventions.drift_callback import DriftCallback

        for v in self.named.values():
            refuse_other_model(v, model, "Drift")
        return DriftCallback(self, model, run)

    def refuse_unwatched(self, run: str) -> None:
        """Raises FileExistsError unless the table under `to` is that of the run, to its end."""
        try:
            table = ResultTable.open(self.to)
        except StoreError:
            table = None
        if table is None or table.spec.get("run") != run or END in table.missing():
            raise FileExistsError(
                f"the adapter is finished already, and {self.to} does not hold the drift of its training: what was not "
                "watched cannot be measured afterwards. Expected another `to` for the adapter, or no watch."
            )
