"""dry_run: what a capture, a sweep, sampled answers or fine-tuning would take, from a model's config alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from hooks.positions import Scope
from hooks.prompt import Prompt, as_prompts
from hooks.site import Site
from workbench.behaviour.answering import Sampling
from workbench.behaviour.conditions import Given
from workbench.interventions.cells import Intervention
from workbench.interventions.drift import Drift
from workbench.planning.answers import planned_answers, planned_choices
from workbench.planning.captures import planned_capture
from workbench.planning.drifts import planned_drift
from workbench.planning.estimates import Estimate, PlannedPopulation, TrainingEstimate
from workbench.planning.memory import peak_of, weight_bytes
from workbench.planning.model import Call, PlannedModel, planned
from workbench.planning.populations import Job, planned_trainings
from workbench.planning.sweeps import bounds_of, planned_sweep
from workbench.planning.training import TrainingFacts
from workbench.subspace.directions import Directions
from workbench.training.mixtures import mix
from workbench.training.population_plan import Member, in_part
from workbench.training.population_plan import planned as planned_members
from workbench.training.recipes import Given as GivenRecipe
from workbench.training.recipes import recipe_from

MEASURING = "measure shortcuts"


def dry_run(
    source: Any,
    *,
    tokenizer: Any = None,
    processor: Any = None,
    dtype: str | torch.dtype = "auto",
    device: str = "cuda",
    device_memory: int = 80 * 2**30,
    variants: Sequence[str] = (),
    adapter_bytes: int = 0,
) -> DryRun:
    """A model without weights, that says what `capture`, `sweep`, `sample_answers`, `train_lora` and `population` would
    take.

    `source` is a local folder with config.json and the files of its tokenizer and processor, or a config (a dict of
    one), with `tokenizer` and `processor`. Nothing is downloaded and no weight is made; prompts are encoded, pictures
    and all, so that tokens are counted, not guessed. `variants` names the adapters that would be loaded, and
    `adapter_bytes` what they take on the device. `device` and `device_memory` are those of the machine to be used: the
    default size of a batch depends on the one, what a sweep may record on the other.

    The counts take it that the model passes the checks of a load: padding changes nothing, and blocks and prefixes can
    be reused (else a sweep reads more). Those checks, and the load, are not counted, nor are a few short forwards that
    look once at which rows a model's adapters read.
    """
    model = planned(source, tokenizer, processor, dtype=dtype, device=device, variants=variants)
    return DryRun(model, device_memory, adapter_bytes)


class DryRun:
    """A plan; each method has the arguments of the function of its name (see `dry_run`). Each call is planned as the
    first on its model, or, with `one_run`, as what comes after the calls before: what a model allows is then measured
    once."""

    def __init__(self, model: PlannedModel, device_memory: int, adapter_bytes: int, *, one_run: bool = False) -> None:
        self.model, self._adapter_bytes, self._device_memory = model, adapter_bytes, device_memory
        self._facts = TrainingFacts(model)
        self._measured: set[bool] | None = set() if one_run else None
        weights = weight_bytes(model.module) + adapter_bytes
        # As workbench.interventions.work.memory_of takes it from the device itself.
        free = device_memory - weights
        self._memory = max(0, free // 4) if model.device.type == "cuda" else 2 * 2**30
        self._notes = (
            () if free > 0 or model.device.type != "cuda" else ("the weights alone are more than the device has",)
        )

    def __repr__(self) -> str:
        return f"DryRun({self.model!r}, device memory {self._device_memory / 2**30:.1f} GiB)"

    def direction(self, layers: int | Sequence[int] | None = None) -> Directions:
        """A direction of this width at the outputs of these layers (default: all), to plan interventions with before
        there is one: what they take does not depend on its values."""
        listed = range(self.model.n_layers) if layers is None else [layers] if isinstance(layers, int) else layers
        # A generator of its own: one seeded with 0 would draw the very direction that a control of seed 0 is.
        vectors = np.random.default_rng([0, 1]).normal(size=(len(listed), self.model.d_model))
        flat = np.zeros_like(vectors)
        norms = np.ones(len(listed))
        sites = [Site(layer) for layer in listed]
        return Directions.of(sites, vectors, origin=flat, residual_norm=norms, model=self.model.name)

    def capture(
        self,
        prompts: str | Path | Iterable[Prompt],
        *,
        sites: str | Site | Iterable[str | Site] = "resid_post",
        at: Scope | Mapping[str, Scope] = "last",
        pool: str = "none",
        variants: Sequence[str] | None = None,
        together: bool = False,
        responses: str = "given",
        max_tokens: int | None = None,
        **writing: Any,
    ) -> Estimate:
        """Of `wb.capture` into a new store; interventions change none of it, and are not asked for."""
        found = planned_capture(
            self.model, as_prompts(prompts), sites, at, pool, variants, together, responses, max_tokens, writing
        )
        return self._estimate(
            "capture", found.calls, found.batches, value_bytes=found.value_bytes, disk_bytes=found.disk_bytes
        )

    def sweep(
        self,
        prompts: str | Path | Sequence[Prompt],
        cells: Sequence[Intervention],
        *,
        judge: Any = None,
        max_tokens: int = 8192,
        memory: int | None = None,
        **options: Any,
    ) -> Estimate:
        """Of `wb.sweep` into a new table (`controls`, `control_kinds`, `activations`, `twins`, `neutral`, `seed`,
        `max_new_tokens` and `exact` as there). `judge`: anything but None means that answers are written; what a judge
        itself takes is not counted."""
        listed = as_prompts(prompts)
        bounds = bounds_of(self.model, max_tokens, memory or self._memory, bool(options.pop("exact", False)))
        calls, batches = planned_sweep(self.model, listed, cells, judge is not None, bounds, options, self._measured)
        return self._estimate("sweep", calls, batches)

    def sample_answers(
        self,
        prompts: str | Path | Sequence[Prompt],
        *,
        samples: int | Mapping[str, int] = 1,
        conditions: Mapping[str, Given] | Sequence[str] | None = None,
        max_tokens: int = 8192,
        **sampling: Any,
    ) -> Estimate:
        """Of `wb.sample_answers` into a new table."""
        sampling.pop("seed", None)
        how = Sampling(**sampling)
        calls, batches = planned_answers(
            self.model, as_prompts(prompts), samples, conditions, how, max_tokens, self._memory, self._measured
        )
        return self._estimate("sample_answers", calls, batches)

    def read_choices(
        self, prompts: Sequence[Prompt], conditions: Mapping[str, str], *, max_tokens: int = 8192
    ) -> Estimate:
        """Of `wb.read_choices` into a new table."""
        return self._estimate("read_choices", *planned_choices(self.model, prompts, len(conditions), max_tokens))

    def train_lora(
        self,
        prompts: str | Path | Sequence[Prompt],
        *,
        recipe: str | None = None,
        filler: str | Path | Sequence[Prompt] | None = None,
        fraction: float = 1.0,
        hold: Literal["total", "harmful"] = "total",
        start: str | Path | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> TrainingEstimate:
        """Of `wb.train_lora` on this base, on one device; interventions change none of it, and are not asked for."""
        rows = as_prompts(prompts)
        if filler is not None or fraction < 1:
            rows = list(mix(rows, as_prompts(filler) if filler is not None else [], fraction, hold=hold, seed=seed))
        job = Job.of(rows, {**settings, **({"recipe": recipe} if recipe else {})}, seed, start)
        return planned_trainings(self.model, self._facts, [job], "train_lora", TrainingEstimate)

    def population(
        self,
        recipes: Mapping[str, GivenRecipe],
        *,
        seeds: Sequence[int] = (0, 1, 2),
        part: str | None = None,
        **settings: Any,
    ) -> PlannedPopulation:
        """Of `wb.population` on this base, and the members' names before there are members. With `part` the counts are
        of that part alone, `members` are all."""
        wanted = {name: recipe_from(name, given, settings) for name, given in recipes.items()}
        plan, rows = planned_members(f"planned {self.model.name}", wanted, seeds)
        mine = [plan.members[name] for name in in_part(list(plan.members), part)]
        jobs = [Job.of(rows[one.recipe], one.settings, one.seed) for one in mine]
        more = {"members": plan.members, "_loaded": functools.cache(lambda: self._loaded(plan.members))}
        return planned_trainings(self.model, self._facts, jobs, "population", PlannedPopulation, **more)

    def with_adapters(self, adapters: Mapping[str, int], *, one_run: bool | None = None) -> DryRun:
        """The plan of this base with other adapters loaded: name -> bytes on the device."""
        one_run = self._measured is not None if one_run is None else one_run
        model = self.model.with_variants(list(adapters))
        return DryRun(model, self._device_memory, sum(adapters.values()), one_run=one_run)

    def drift(self, drift: Drift, *steps: int) -> Estimate:
        """Of the measurements of a `wb.Drift` over trainings of so many optimizer steps each: before the first,
        every `drift.every`, after the last. Its judge is not counted."""
        calls, batches = planned_drift(self.model, drift)
        moments = sum(len({*range(0, one, drift.every), one}) for one in steps)
        return self._estimate("drift", calls * moments, batches * moments)

    def _loaded(self, members: Mapping[str, Member]) -> DryRun:
        jobs = {name: Job.of([], one.settings, one.seed) for name, one in members.items()}
        return self.with_adapters({name: self._facts.adapter(job.settings).tensor_bytes for name, job in jobs.items()})

    def _estimate(self, what: str, calls: Sequence[Call], batches: int, **disk: int) -> Estimate:
        work = [call for call in calls if call.kind != MEASURING]
        depth = self.model.n_layers
        shares = [
            (depth - call.start) / depth * call.columns / (call.columns + call.behind)
            + max(0, call.new - 1) / call.columns
            for call in work
        ]
        written = sum(call.rows * call.new for call in work if call.kind == "answer")
        measuring = len(calls) - len(work)
        notes = [f"{measuring} of the forwards find out, once a model, what may be reused"] if measuring else []
        return Estimate(
            what=what,
            batches=batches,
            forwards=sum(call.calls for call in calls),
            tokens=sum(call.tokens for call in work),
            written=written,
            whole_forwards=math.fsum(shares),
            measuring=measuring,
            at_most=written > 0,
            memory=peak_of(self.model, calls, self._adapter_bytes),
            notes=(*self._notes, *notes),
            **disk,
        )
