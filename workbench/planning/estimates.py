"""dry_run: what a capture, a sweep or the sampling of answers would take, from a model's config alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hooks.positions import Scope
from hooks.prompt import Prompt, as_prompts
from hooks.site import Site
from workbench.behaviour.answering import Sampling
from workbench.behaviour.conditions import Given
from workbench.interventions.cells import Intervention
from workbench.planning.answers import planned_answers
from workbench.planning.captures import planned_capture
from workbench.planning.memory import Memory, peak_of, weight_bytes
from workbench.planning.model import Call, PlannedModel, planned
from workbench.planning.sweeps import bounds_of, planned_sweep
from workbench.subspace.directions import Directions

MEASURING = "measure shortcuts"


@dataclass(frozen=True)
class Estimate:
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
    memory: Memory
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
    """A model without weights, that says what `capture`, `sweep` and `sample_answers` would take.

    `source` is a local folder with config.json and the files of its tokenizer and processor, or a config (a dict of
    one), with `tokenizer` and `processor`. Nothing is downloaded and no weight is made; prompts are encoded, pictures
    and all, so that tokens are counted, not guessed. `variants` names the adapters that would be loaded, and
    `adapter_bytes` what they take on the device. `device` and `device_memory` are those of the machine to be used: the
    default size of a batch depends on the one, what a sweep may record on the other.

    The counts take it that the model passes the checks of a load: padding changes nothing, and blocks and prefixes can
    be reused (else a sweep reads more). Those checks, and the load, are not counted.
    """
    model = planned(source, tokenizer, processor, dtype=dtype, device=device, variants=variants)
    return DryRun(model, device_memory, adapter_bytes)


class DryRun:
    """A plan; each method has the arguments of the function of its name (see `dry_run`)."""

    def __init__(self, model: PlannedModel, device_memory: int, adapter_bytes: int) -> None:
        self.model, self._adapter_bytes = model, adapter_bytes
        weights = weight_bytes(model.module) + adapter_bytes
        # As workbench.interventions.work.memory_of takes it from the device itself.
        free = device_memory - weights
        self._memory = max(0, free // 4) if model.device.type == "cuda" else 2 * 2**30
        self._notes = (
            () if free > 0 or model.device.type != "cuda" else ("the weights alone are more than the device has",)
        )

    def direction(self, layers: int | Sequence[int] | None = None) -> Directions:
        """A direction of this width at the outputs of these layers (default: all), to plan interventions with before
        there is one: what they take does not depend on its values."""
        listed = range(self.model.n_layers) if layers is None else [layers] if isinstance(layers, int) else layers
        vectors = np.random.default_rng(0).normal(size=(len(listed), self.model.d_model))
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
        calls, batches = planned_sweep(self.model, listed, cells, judge is not None, bounds, options)
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
            self.model, as_prompts(prompts), samples, conditions, how, max_tokens, self._memory
        )
        return self._estimate("sample_answers", calls, batches)

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
