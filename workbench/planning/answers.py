"""What the sampling of answers would run: the units and generations of `workbench.behaviour.answering`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hooks.encoded_prompts import EncodedPrompts
from hooks.prompt import Prompt
from workbench.behaviour.answering import Sampling
from workbench.behaviour.conditions import Given, conditions_of, parts_of, variants_a_batch
from workbench.interventions.readout import prefilled
from workbench.planning.model import Call, PlannedModel, PlannedPasses
from workbench.planning.sweeps import bounds_of
from workbench.units import kinds_of, length_sorted


def planned_answers(
    model: PlannedModel,
    prompts: Sequence[Prompt],
    samples: int | Mapping[str, int],
    conditions: Mapping[str, Given] | Sequence[str] | None,
    how: Sampling,
    max_tokens: int,
    memory: int,
    measured: set[bool] | None = None,
) -> tuple[list[Call], int]:
    """The calls of the model, and how many batches of observations there are. `measured` holds for which batches, with
    pictures or without, shortcuts were measured already."""
    new = how.max_new_tokens
    copies = 3 if how.temperature == 0 else 9 if how.top_p < 1 else 7  # of the logits (workbench.planning.memory)
    encoded = EncodedPrompts(model.encoder, prompts)
    named = conditions_of(model, conditions)
    edits = {one.name: one.edits(model) for one in named}
    asked = [
        i
        for i, prompt in enumerate(prompts)
        for _ in range(samples if isinstance(samples, int) else samples[prompt.id])
    ]
    lengths = [encoded.lengths[i] + new for i in asked]
    units = length_sorted(lengths, max_tokens, kinds_of(model, [prompts[i] for i in asked], lengths))
    parts = parts_of(model, named, variants_a_batch(units, lengths, max_tokens)).values()
    measured = set() if measured is None else measured
    model.calls.clear()
    for unit in units:
        of = [asked[n] for n in unit]
        once = list(dict.fromkeys(of))
        index = [once.index(i) for i in of]
        for part in parts:
            batch = model.encoder.collate(encoded.taken(once), "left")
            columns = batch.inputs["input_ids"].shape[1]
            bounds = bounds_of(model, max_tokens * columns // (columns + new), memory)
            passes = PlannedPasses(model.variant(part[0].variant), batch, bounds, measured)
            variants = [one.variant for one in part]
            if len(set(variants)) > 1:
                passes.across(variants, new, index, copies=copies)
                continue
            here: dict[int, Any] = dict(enumerate(edits[one.name] for one in part))
            list(passes.answer(here, new, index, copies=copies))
    return list(model.calls), len(units)


def planned_choices(
    model: PlannedModel, prompts: Sequence[Prompt], conditions: int, max_tokens: int
) -> tuple[list[Call], int]:
    """The calls that `read_choices` makes, and how many batches of prompts there are: one a batch and condition."""
    begun = [prefilled(prompt) for prompt in prompts]
    encoded = EncodedPrompts(model.encoder, begun)
    units = length_sorted(encoded.lengths, max_tokens, kinds_of(model, begun, encoded.lengths))
    model.calls.clear()
    for unit in units:
        batch = model.encoder.collate(encoded.taken(unit))
        for _ in range(conditions):
            model.note("read", batch, logits=len(batch))
    return list(model.calls), len(units)
