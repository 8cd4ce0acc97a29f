"""What fine-tuning would run and write: the rows that the Trainer draws, the adapter's file, the memory of a step."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hooks.prompt import Prompt
from workbench.planning.memory import weight_bytes
from workbench.planning.model import PlannedModel
from workbench.planning.training_memory import TrainingMemory, step_bytes, trained_parameters
from workbench.training.adapters import with_lora
from workbench.training.datasets import NO_LOSS, encoded_rows, with_labels
from workbench.training.model_parts import adapted_parts

SHAPED_BY = ("rank", "targets", "tower", "projector", "dropout")  # the settings that decide what an adapter is made of
DRAWN_BY = ("steps", "epochs", "batch_size", "accumulate")  # the settings that decide which rows are drawn when
_SAFETENSORS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}


@dataclass(frozen=True)
class Drawn:
    """The batches of every forward, as places in the rows, in order, and the optimizer steps they make."""

    batches: tuple[tuple[int, ...], ...]
    steps: int


@dataclass(frozen=True)
class RowFacts:
    """Of one training row: its tokens, those that receive loss, and its pictures."""

    tokens: int
    loss: int
    images: int


class _Notes(nn.Module):
    """Stands where the model would, and notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, places: Tensor) -> dict[str, Tensor]:
        self.seen.append(tuple(places.tolist()))
        return {"loss": self.weight.sum()}


def drawn(rows: int, settings: Mapping[str, Any], seed: int) -> Drawn:
    """What `transformers.Trainer` draws from so many rows, on one device: its own loop runs, on a stand-in that notes
    the rows, so that epochs, last batches and accumulation are counted as they are made."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    notes = _Notes()
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            max_steps=settings["steps"],
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=settings["batch_size"],
            gradient_accumulation_steps=settings["accumulate"],
            seed=seed,
            data_seed=seed,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(
            model=notes,
            args=arguments,
            train_dataset=list(range(rows)),  # type: ignore[arg-type]
            data_collator=lambda places: {"places": torch.tensor(places)},
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Drawn(tuple(notes.seen), trainer.state.global_step)


@dataclass(frozen=True)
class PlannedAdapter:
    """One adapter of given settings: `tensor_bytes` of its numbers, `file_bytes` of adapter_model.safetensors."""

    peft: Any
    tensor_bytes: int
    file_bytes: int

    @staticmethod
    def of(model: PlannedModel, settings: Mapping[str, Any]) -> PlannedAdapter:
        with torch.random.fork_rng(devices=[]):  # an adapter is begun with random numbers, also where it has none
            peft = with_lora(copy.deepcopy(model.module), dict(settings))
        adapted_parts(peft, settings)
        tensors = trained_parameters(peft)
        return PlannedAdapter(peft, sum(one.nbytes for one in tensors.values()), safetensors_bytes(tensors))


class TrainingFacts:
    """Of training rows, draws and adapters, each found once however many recipes share it; pixels are not kept."""

    def __init__(self, model: PlannedModel) -> None:
        self._model, self._encoder = model, model.encoder
        self._known: dict[str, RowFacts] = {}
        self._drawn: dict[str, Drawn] = {}
        self._adapters: dict[str, PlannedAdapter] = {}

    def rows(self, rows: Sequence[Prompt], max_length: int | None) -> list[RowFacts]:
        """Raises PromptError for rows that `train_lora` refuses."""
        return [self._one(row, max_length) for row in rows]

    def drawn(self, rows: int, settings: Mapping[str, Any], seed: int) -> Drawn:
        key = json.dumps([rows, seed, *(settings[name] for name in DRAWN_BY)])
        if key not in self._drawn:
            self._drawn[key] = drawn(rows, settings, seed)
        return self._drawn[key]

    def adapter(self, settings: Mapping[str, Any]) -> PlannedAdapter:
        """Raises ValueError for targets that the model does not have."""
        key = json.dumps([settings.get(name) for name in SHAPED_BY])
        if key not in self._adapters:
            self._adapters[key] = PlannedAdapter.of(self._model, settings)
        return self._adapters[key]

    def inputs(self, rows: Sequence[Prompt]) -> dict[str, Tensor]:
        """What the model would be given for these rows, labels included."""
        return with_labels(self._encoder.collate(encoded_rows(rows, self._encoder)))

    def _one(self, row: Prompt, max_length: int | None) -> RowFacts:
        key = row.content_hash
        if key not in self._known or (max_length is not None and self._known[key].tokens > max_length):
            (one,) = encoded_rows([row], self._encoder, max_length)
            labels = with_labels(self._encoder.collate([one]))["labels"]
            self._known[key] = RowFacts(len(one), int((labels != NO_LOSS).sum()), one.n_images)
        if not self._known[key].loss:
            raise ValueError(f"training row {row.id!r} has no token that receives loss: expected a response.")
        return self._known[key]


def safetensors_bytes(tensors: Mapping[str, Tensor]) -> int:
    """The size of the .safetensors file with these tensors and the metadata that peft writes, to the byte."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
        begin, end = end, end + tensors[name].nbytes
        facts = {"dtype": _SAFETENSORS[tensors[name].dtype], "shape": list(tensors[name].shape)}
        header[name] = {**facts, "data_offsets": [begin, end]}
    length = len(json.dumps(header, separators=(",", ":")).encode())
    return 8 + length + -length % 8 + end  # the header is filled up to whole eights


def training_memory(
    adapter: PlannedAdapter, facts: TrainingFacts, largest: Sequence[Prompt], *, checkpointing: bool = False
) -> TrainingMemory:
    """Of steps on batches like this one (see `workbench.planning.training_memory`); without rows, of what stays between
    steps."""
    tensors = trained_parameters(adapter.peft)
    begun = sum(one.nbytes for name, one in tensors.items() if "lora_B" in name or "lora_embedding_B" in name)
    frozen = weight_bytes(adapter.peft) - adapter.tensor_bytes
    step = 0
    if largest:  # in a copy, where checkpointing and gradients stay
        with torch.random.fork_rng(devices=[]):
            step = step_bytes(copy.deepcopy(adapter.peft), facts.inputs(largest), checkpointing=checkpointing)
    return TrainingMemory(
        weights=frozen,
        adapter=adapter.tensor_bytes + begun,
        gradients=adapter.tensor_bytes,
        optimizer=2 * adapter.tensor_bytes,
        activations=step,
    )
