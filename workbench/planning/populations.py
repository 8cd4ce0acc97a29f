"""What one fine-tuning, or a population of them, would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hooks.prompt import Prompt
from workbench.planning.estimates import TrainingEstimate
from workbench.planning.memory import weight_bytes
from workbench.planning.model import PlannedModel
from workbench.planning.training import PlannedAdapter, TrainingFacts, training_memory
from workbench.planning.training_memory import TrainingMemory
from workbench.training.adapters import whole_settings

OneOrMany = TypeVar("OneOrMany", bound=TrainingEstimate)


@dataclass(frozen=True)
class Job:
    """One adapter to be trained."""

    rows: Sequence[Prompt]
    settings: Mapping[str, Any]
    seed: int

    @staticmethod
    def of(rows: Sequence[Prompt], settings: Mapping[str, Any], seed: int, start: Any = None) -> Job:
        own = dict(settings)
        return Job(rows, whole_settings(own.pop("recipe", None), own, start), seed)


def planned_trainings(
    model: PlannedModel, known: TrainingFacts, jobs: Sequence[Job], what: str, kind: type[OneOrMany], **more: Any
) -> OneOrMany:
    """The sum over the jobs, one after the other, and the peak of the largest adapter on the largest batch."""
    forwards = tokens = loss = pictures = 0
    steps: list[int] = []
    longest: list[tuple[int, list[Prompt]]] = [(-1, []), (-1, [])]  # by columns, and by pictures
    for job in jobs:
        facts = known.rows(job.rows, job.settings["max_length"])
        drawn = known.drawn(len(facts), job.settings, job.seed)
        steps.append(drawn.steps)
        forwards += len(drawn.batches)
        for batch in drawn.batches:
            rows = [facts[place] for place in batch]
            tokens += sum(row.tokens for row in rows)
            loss += sum(row.loss for row in rows)
            shown = sum(row.images for row in rows)
            pictures += shown
            for n, size in enumerate((len(rows) * max(row.tokens for row in rows), shown)):
                if size > longest[n][0]:
                    longest[n] = (size, [job.rows[place] for place in batch])
    adapters = [known.adapter(job.settings) for job in jobs]
    widest = max(adapters, key=lambda one: one.tensor_bytes, default=None)
    memory, checkpointed, notes = _peaks(model, known, widest, [batch for _, batch in longest if batch])
    return kind(
        what=what,
        batches=forwards,
        forwards=forwards,
        tokens=tokens,
        written=0,
        whole_forwards=float(forwards),
        measuring=0,
        at_most=False,
        memory=memory,
        value_bytes=sum(one.tensor_bytes for one in adapters),
        disk_bytes=sum(one.file_bytes for one in adapters),
        notes=tuple(notes),
        steps=sum(steps),
        steps_of_each=tuple(steps),
        loss_tokens=loss,
        pictures=pictures,
        adapters=len(jobs),
        checkpointed=checkpointed,
        **more,
    )


def _peaks(
    model: PlannedModel, known: TrainingFacts, widest: PlannedAdapter | None, batches: Sequence[Sequence[Prompt]]
) -> tuple[TrainingMemory, TrainingMemory | None, list[str]]:
    if widest is None:
        return TrainingMemory(weight_bytes(model.module), 0, 0, 0, 0), None, ["nothing is trained"]
    different = {tuple(row.content_hash for row in batch): batch for batch in batches}.values()
    found: list[TrainingMemory | None] = []
    why = ""
    for checkpointing in (False, True):
        try:
            peaks = [training_memory(widest, known, batch, checkpointing=checkpointing) for batch in different]
            found.append(max(peaks, key=lambda one: one.peak))
        except Exception as error:  # a forward that needs values, on a device without: the rest is known all the same
            why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            found.append(None)
    memory, checkpointed = found
    if memory is not None:
        return memory, checkpointed, []
    bare = training_memory(widest, known, [])
    return bare, None, [f"the peak is without activations: this model's step could not be traced ({why})"]
