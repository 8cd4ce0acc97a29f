"""What a dry run says of one call: counts that are exact, bytes on disk, and an estimate of device memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stores.printed import Printed
from workbench.planning.memory import Memory
from workbench.planning.training_memory import TrainingMemory
from workbench.training.population_plan import Member, conditions_first


@dataclass(frozen=True)
class Estimate(Printed):
    """What a call would take. `forwards` are calls of the model, decoding steps included; `tokens` what they read, pads
    left out and copies of a prompt counted, answers left out; `written` tokens of answers. With `at_most` answers may
    end sooner, and so may the calls that write them; else forwards and tokens are exact. `whole_forwards` counts what
    starts behind a block, or behind a cache, by its share; `measuring` of the forwards, only in the first call on a
    model, find out what may be reused so.

    `value_bytes` on disk are exact (of answers: at most) and `disk_bytes` bounds the files around them; a table of
    results is not counted. `memory` is an estimate (`workbench.planning.memory`). Speed is never predicted.
    """

    what: str
    batches: int
    forwards: int
    tokens: int
    written: int
    whole_forwards: float
    measuring: int
    at_most: bool
    memory: Memory | TrainingMemory
    value_bytes: int = 0
    disk_bytes: int = 0
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        most = "at most " if self.at_most else ""
        lines = [
            f"{self.what}: {self.batches:,} batches, {most}{self.forwards:,} forwards "
            f"(the work of {self.whole_forwards:,.1f} whole ones), {self.tokens:,} tokens read"
            + (f", at most {self.written:,} written" if self.written else ""),
            f"  device memory at the peak: {self.memory}",
        ]
        if self.disk_bytes:
            lines.append(
                f"  disk: {most}{self.value_bytes:,} bytes of values, {self.disk_bytes:,} with all around them"
            )
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def record(self) -> dict[str, Any]:
        """As plain data."""
        left_out = ("memory", "value_bytes", "disk_bytes", "notes")
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int | float | str | bool)}
        return {
            **{name: value for name, value in counts.items() if name not in left_out},
            "value_bytes": self.value_bytes,
            "disk_bytes": self.disk_bytes,
            "peak_memory_bytes": self.memory.peak,
            "memory": vars(self.memory),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class TrainingEstimate(Estimate):
    """What fine-tuning would take. `batches` and `forwards` are of micro-batches, each with its backward; `tokens` what
    they read, `loss_tokens` of these receive loss, `pictures` come in them, and `steps` are the optimizer's: all exact,
    over all `adapters`, as the Trainer draws them (an early stop, or a watch that measures, is not in them).
    `disk_bytes` are those of adapter_model.safetensors to the byte, `value_bytes` of the numbers in it; the JSON and
    README beside them (some kB) are not counted. `checkpointed` is the peak with gradient checkpointing, which
    `train_lora` does not use; None where it could not be traced."""

    steps: int = 0
    loss_tokens: int = 0
    pictures: int = 0
    adapters: int = 1
    steps_of_each: tuple[int, ...] = ()  # adapter
    checkpointed: TrainingMemory | None = None

    def __str__(self) -> str:
        lines = [
            f"{self.what}: {self.adapters:,} adapters, {self.steps:,} steps, {self.forwards:,} forwards with their "
            f"backwards, {self.tokens:,} tokens read ({self.loss_tokens:,} with loss), {self.pictures:,} pictures",
            f"  device memory at the peak: {self.memory}",
            f"  disk: {self.disk_bytes:,} bytes of adapters",
        ]
        if self.checkpointed is not None:
            lines.insert(2, f"  with gradient checkpointing, which train_lora does not use: {self.checkpointed}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def record(self) -> dict[str, Any]:
        peak = None if self.checkpointed is None else self.checkpointed.peak
        return {**super().record(), "peak_memory_bytes_with_checkpointing": peak}


@dataclass(frozen=True)
class PlannedPopulation(TrainingEstimate):
    """A population before it is trained: what that takes, and the `members` that it will have."""

    members: Mapping[str, Member] = field(default_factory=dict)
    _loaded: Any = field(default=None, repr=False)

    @property
    def conditions(self) -> dict[str, str]:
        """The base and every member, as those of the trained population."""
        return conditions_first(self.members)

    def load(self) -> Any:
        """The plan of a model that has every member as a variant of its name (a DryRun)."""
        return self._loaded()
