"""What a sweep would run: its units, parts and passes, chosen as `workbench.interventions.sweep` does, and noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hooks.prompt import Prompt, as_prompts
from workbench.interventions.ablate import Ablate
from workbench.interventions.cells import Intervention
from workbench.interventions.measuring import Asked
from workbench.interventions.planner import NEARLY_EMPTY, Bounds, CellEdits
from workbench.interventions.twins import Cell, random_twins
from workbench.interventions.work import Work
from workbench.planning.model import Call, PlannedModel, PlannedPasses
from workbench.subspace import controls as control_directions
from workbench.units import kinds_of, length_sorted

KL_BYTES = 40  # of a row and token, while two distributions are compared
PROVED_ON = 8  # prompts, as in workbench.interventions.proof


def bounds_of(model: PlannedModel, tokens: int, memory: int, exact: bool = False) -> Bounds:
    """The bounds of a pass on the device that is planned for."""
    return Bounds(tokens, memory, exact, NEARLY_EMPTY.get(model.device.type, 2048))


def planned_sweep(
    model: PlannedModel,
    prompts: Sequence[Prompt],
    cells: Sequence[Intervention],
    written: bool,
    bounds: Bounds,
    options: Mapping[str, Any],
    measured: set[bool] | None = None,
) -> tuple[list[Call], int]:
    """The calls of the model, and how many batches of prompts there are. Raises TypeError for unknown options, and
    ValueError for what `sweep` refuses."""
    every, calm, new = _cells(cells, **options)
    edits: list[CellEdits] = [{} if cell.intervention is None else cell.intervention.edits(model) for cell in every]
    pairs = sum({"right", "contrary"} <= set(prompt.tags) for prompt in prompts)
    if 0 < pairs < len(prompts) or not (pairs or written):
        raise ValueError(
            f"{pairs} of {len(prompts)} prompts have the tags 'right' and 'contrary', and there is "
            f"{'a' if written else 'no'} judge: expected the tags on all, or on none and a judge."
        )
    asked = Asked.of(prompts, calm, model, pairs > 0)
    work = Work.of(model, prompts, asked.plain.lengths, edits, bounds.tokens, written=written)
    measured = set() if measured is None else measured
    model.calls.clear()

    def passes(encoded: Any, unit: Sequence[int]) -> PlannedPasses:
        return PlannedPasses(model, model.encoder.collate(encoded.taken(unit)), bounds, measured)

    lengths = asked.calm.lengths
    quiet = [passes(asked.calm, unit) for unit in length_sorted(lengths, bounds.tokens, kinds_of(model, calm, lengths))]
    for run in work.runs_of(range(len(every))):
        for batch in quiet:
            _ = batch.clean
            if edited := {c: edits[c] for c in run if edits[c]}:
                list(batch.read(edited))
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    model.calls[:] = [  # the distance to the unedited model is float64, over the rows of one cell at a time
        replace(call, kept=call.kept + KL_BYTES * call.rows * vocabulary) for call in model.calls
    ]
    _prove(model, prompts, every, bounds, measured)
    for unit, parts in zip(work.units, work.parts, strict=True):
        plain = passes(asked.plain, unit) if written else None
        begun = passes(asked.begun, unit) if pairs else None
        for part in parts:
            here = {c: edits[c] for c in part}
            if plain is not None:
                list(plain.answer(here, new))
            if begun is not None:
                list(begun.read(here))
    return list(model.calls), len(work.units)


def _cells(
    cells: Sequence[Intervention],
    *,
    controls: int = 0,
    control_kinds: Sequence[str] | None = None,
    activations: Any = None,
    twins: Mapping[str, Sequence[Intervention]] | None = None,
    neutral: Any = None,
    seed: int = 0,
    max_new_tokens: int = 16,
) -> tuple[list[Cell], list[Prompt], int]:
    if control_kinds is None:
        control_kinds = [k for k in control_directions.KINDS if k != "energy_matched" or activations is not None]
    # As many cells, and no activations are asked for: what a control takes does not depend on its direction.
    control_kinds = ["isotropic" if kind == "energy_matched" else kind for kind in control_kinds]
    every = [Cell(None), *(Cell(one) for one in cells)]
    every += list(random_twins(cells, controls, control_kinds, None, seed))
    every += [Cell(twin, kind, draw) for kind, own in (twins or {}).items() for draw, twin in enumerate(own)]
    return every, [] if neutral is None else as_prompts(neutral), max_new_tokens


def _prove(
    model: PlannedModel, prompts: Sequence[Prompt], every: Sequence[Cell], bounds: Bounds, measured: set[bool]
) -> None:
    """Each ablation that is no control is proved by one forward over a few prompts, which are read once."""
    proved = sum(isinstance(cell.intervention, Ablate) and not cell.control for cell in every)
    if not proved:
        return
    near = prompts[:64]
    kinds = kinds_of(model, near, [len(model.encoder.encode(prompt)) for prompt in near])
    few = [prompt for prompt, kind in zip(near, kinds, strict=True) if kind == kinds[0]][:PROVED_ON]
    batch = model.encode(few)
    if PlannedPasses(model, batch, bounds, measured).allowed.replay is None:
        model.note("prove", batch, logits=len(batch))
    for _ in range(proved):
        model.note("prove", batch)
