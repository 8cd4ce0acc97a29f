"""What one measurement of a drift would run: the batches of `workbench.interventions.drift_measured`."""

from __future__ import annotations

from dataclasses import replace

from workbench.interventions.drift import Drift
from workbench.interventions.drift_measured import Measured
from workbench.interventions.drift_written import Written
from workbench.interventions.generate import generate
from workbench.planning.model import Call, PlannedModel


def planned_drift(model: PlannedModel, drift: Drift) -> tuple[list[Call], int]:
    """The calls of the model, and how many batches there are, in one measured step."""
    needs = drift.judge is None
    read = Measured(model, drift.read, drift.asked, drift.named, drift.at, drift.max_tokens, needs_tags=needs)
    written = Written(model, drift)
    model.calls.clear()
    batches = 0
    for _, batch in read._batches:
        model.note("read", batch)
        batches += 1
    for _, batch in read._question_batches if read.choice is not None else ():
        model.note("read", batch, logits=len(batch))
        batches += 1
    for batch in written._task:
        model.note("read", batch, logits=len(batch) * batch.inputs["input_ids"].shape[1])
        batches += 1
    if drift.judge is not None and drift.asked:
        before = len(model.calls)
        generate(model, drift.asked, max_new_tokens=drift.max_new_tokens)
        batches += len(model.calls) - before
    return [replace(call) for call in model.calls], batches
