"""StudyPlan: what a study would take, step by step, from --dry-run; printed, and kept as dry_run.json in its folder."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hooks.positions import Scope
from hooks.prompt import Prompt
from stores.files import write_file
from workbench.behaviour.conditions import Given
from workbench.inputs import Inputs
from workbench.interventions.cells import Intervention
from workbench.interventions.drift import Drift
from workbench.planning.dry_run import DryRun, dry_run
from workbench.planning.estimates import Estimate, PlannedPopulation, TrainingEstimate
from workbench.planning.step_table import step_table, totals
from workbench.subspace.directions import Directions
from workbench.training.recipes import Given as GivenRecipe

FILE = "dry_run.json"


def add_plan_arguments(parser: ArgumentParser) -> None:
    """The machine that --dry-run plans for."""
    planned = parser.add_argument_group("--dry-run")
    planned.add_argument("--device", choices=("cuda", "cpu"), help="planned for; default: cuda, of the organism cpu")
    planned.add_argument("--device-memory", type=float, default=80.0, help="GiB of the device that is planned for")


class StudyPlan:
    """The plan of a study whose script says, instead of doing them, what its steps would be: the methods have the
    names and arguments of the study's own (`capture`, `measure`, `answers`) and of `wb.population` and
    `wb.train_lora`. Nothing is loaded, trained or sent; a model of one's own needs its config, tokenizer and processor
    files alone. `name` is what the table calls a step; judges are counted in replies."""

    def __init__(self, folder: Path, inputs: Inputs, max_new_tokens: int, device: str, device_memory: int) -> None:
        self.folder, self.inputs, self.max_new_tokens = folder, inputs, max_new_tokens
        self.device, self.device_memory = device, device_memory
        self.steps: list[tuple[Estimate, int]] = []  # with how many replies a judge would read

    def __repr__(self) -> str:
        return f"StudyPlan({self.folder}: {len(self.steps)} steps planned on {self.device}, nothing is run)"

    @cached_property
    def model(self) -> DryRun:
        """The base with all its adapters, without weights."""
        sizes = {name: _adapter_bytes(Path(folder)) for name, folder in self.inputs.adapters.items()}
        plan = dry_run(self.inputs.base, device=self.device, device_memory=self.device_memory)
        return plan.with_adapters(sizes, one_run=True)

    @property
    def n_layers(self) -> int:
        return self.model.model.n_layers

    def direction(self, layers: int | Sequence[int] | None = None) -> Directions:
        """Stands where a direction would that is not fitted yet: what an intervention takes does not depend on it."""
        return self.model.direction(layers)

    def train_lora(self, prompts: Any, *, name: str = "train_lora", **settings: Any) -> TrainingEstimate:
        """Of `wb.train_lora(base, prompts, ...)`, without `to`."""
        return self._step(replace(self.model.train_lora(prompts, **settings), what=name))

    def population(
        self, recipes: Mapping[str, GivenRecipe], *, name: str = "population", **options: Any
    ) -> PlannedPopulation:
        """Of `wb.population(base, recipes, ...)`, without `to`; its `conditions` and `load()` are those to come."""
        return self._step(replace(self.model.population(recipes, **options), what=name))

    def capture(
        self,
        prompts: Any,
        *variants: str,
        at: Scope = "last",
        model: DryRun | None = None,
        name: str = "capture",
        **options: Any,
    ) -> Estimate:
        """Of `study.capture(model, prompts, *variants, ...)`."""
        over = model or self.model
        missing = [name for name in variants if name not in over.model.variants]
        if missing:  # adapters that are not trained yet take no other forwards than those that are
            over = over.with_adapters(dict.fromkeys([*over.model.variants[1:], *missing], 0))
        given = {"sites": "resid_post", "variants": variants or None, **options}
        return self._step(replace(over.capture(prompts, at=at, **given), what=name))

    def measure(
        self,
        cells: Sequence[Intervention],
        questions: Sequence[Prompt],
        *,
        written: bool = True,
        model: DryRun | None = None,
        name: str = "measure",
        **options: Any,
    ) -> Estimate:
        """Of `study.measure(model, cells, questions=...)` and of `wb.sweep`."""
        given = {"neutral": self.inputs.neutral, "max_new_tokens": self.max_new_tokens, **options}
        said = (model or self.model).sweep(questions, cells, judge=written or None, **given)
        return self._step(replace(said, what=name))

    def answers(
        self,
        questions: Sequence[Prompt],
        conditions: Mapping[str, Given] | Sequence[str] | None = None,
        *,
        model: DryRun | None = None,
        judges: Sequence[Any] = (None,),
        name: str = "answers",
        **sampling: Any,
    ) -> Estimate:
        """Of `study.answers(model, questions, conditions, ...)`: the answers, and how many replies are to be judged."""
        options = {"max_new_tokens": self.max_new_tokens, **sampling}
        samples = options.get("samples", 1)
        each = sum(samples.values()) if isinstance(samples, Mapping) else samples * len(questions)
        said = (model or self.model).sample_answers(questions, conditions=conditions, **options)
        return self._step(replace(said, what=name), each * max(1, len(conditions or ())) * max(1, len(judges)))

    def read_choices(
        self,
        questions: Sequence[Prompt],
        conditions: Mapping[str, str],
        *,
        model: DryRun | None = None,
        name: str = "read_choices",
    ) -> Estimate:
        """Of `wb.read_choices(model, questions, conditions)`."""
        return self._step(replace((model or self.model).read_choices(questions, conditions), what=name))

    def drift(self, drift: Drift, training: TrainingEstimate) -> Estimate:
        """Of watching planned trainings by this `wb.Drift`, at most: it may stop early."""
        return self._step(self.model.drift(drift, *training.steps_of_each))

    def record(self) -> dict[str, Any]:
        """The steps and their totals as plain data."""
        return {
            "model": self.model.model.name,
            "kind": self.inputs.kind,
            "device": self.device,
            "device_memory_bytes": self.device_memory,
            "steps": [{**said.record(), "replies_judged": replies} for said, replies in self.steps],
            "total": totals(self.steps),
        }

    def stop(self, left_out: str = "") -> None:
        """Prints the table, writes it as dry_run.json into the folder of the study, and ends the script. `left_out`
        says which steps are not counted, and why."""
        record = {**self.record(), "left_out": left_out or None}
        write_file(self.folder / FILE, json.dumps(record, indent=1))
        print(step_table(self.steps, self.model.model.name, self.device))
        if left_out:
            print(f"NOT COUNTED: {left_out}")
        print(f"wrote {self.folder / FILE}")
        raise SystemExit(0)

    def _step(self, said: Any, replies: int = 0) -> Any:
        self.steps.append((said, replies))
        return said


def _adapter_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("adapter_model.safetensors"))
