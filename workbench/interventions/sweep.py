"""sweep: every cell of a grid of interventions on every prompt, with its controls, into one table that resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hooks.backends.hf import HuggingFaceModel
from hooks.model import NothingEdited
from hooks.positions import Scope
from hooks.prompt import Prompt, as_prompts
from hooks.site import Site
from stores import ResultTable, content_key, provenance
from workbench.captures.beside import Beside
from workbench.interventions.cells import Intervention, fingerprint
from workbench.interventions.measuring import Asked, Measurement, Scorer
from workbench.interventions.planner import NEARLY_EMPTY, Bounds
from workbench.interventions.proof import Proof, Prover, proof_facts
from workbench.interventions.readout import prefilled
from workbench.interventions.twins import Cell, random_twins, refuse_other_lengths
from workbench.interventions.work import Work, memory_of
from workbench.progress import Progress
from workbench.subspace import controls as control_directions
from workbench.subspace.rows import RowSource

TABLE_VERSION = 2


def sweep(
    model: HuggingFaceModel,
    prompts: str | Path | Sequence[Prompt],
    cells: Sequence[Intervention],
    *,
    judge: Scorer | None = None,
    controls: int = 0,
    control_kinds: Sequence[str] | None = None,
    activations: RowSource | None = None,
    twins: Mapping[str, Sequence[Intervention]] | None = None,
    neutral: str | Path | Sequence[Prompt] | None = None,
    to: str | Path | None = None,
    capture_to: str | Path | None = None,
    sites: str | Site | Sequence[str | Site] = "resid_post",
    at: Scope = "last",
    seed: int = 0,
    max_new_tokens: int = 16,
    max_tokens: int = 8192,
    memory: int | None = None,
    exact: bool = False,
    explain: bool = False,
    progress: bool = True,
) -> ResultTable:
    """One row for every (cell, prompt): the unedited model first, then each intervention, then `controls` random twins
    of each kind for each of them (the same draws at every layer and coefficient, so that a maximum over cells has a
    null).

    With a `judge` every prompt is answered and scored (`category`, `text`); prompts with the tags `right` and
    `contrary` are also read at the token that decides (`choice`, `logit_difference`, `p_contrary`). Each row states
    `edited` (positions), `energy_removed` (share of Σ‖h − μ‖²) and `leftover` (largest component left, relative to
    ‖h‖): of the reading, or of the written answer where the scope has no token of the reading. With `neutral` prompts
    it states `kl_neutral` (nats, mean over them). `activations` are rows for the energy-matched controls, captured
    where the cells edit. For an ablation `proof` says what is left of its direction, layer by layer, and `proof_floor`
    what rounding explains; AblationIncomplete is raised where it is more. A sweep that was stopped goes on in `to` from
    its last batch; raises NothingEdited when a cell touched no prompt.

    Each batch is read once; a cell runs from the block, or the column, where it begins to differ, several cells a pass
    of at most `max_tokens` (see `workbench.interventions.planner`; `explain` prints what was chosen and why). The shape
    of a pass moves numbers within rounding; with `exact` every cell is a pass of its own, whose logits are those of a
    whole forward to the last bit. `memory` bounds, in bytes, what is recorded (default: 2 GiB, or a quarter of the
    device's free memory). `capture_to` keeps the residuals of the unedited forwards at `sites` and `at` in a store, as
    `wb.capture` of the same prompts (with their answers begun) would: one clean pass for both.
    """
    listed = as_prompts(prompts)
    calm = [] if neutral is None else as_prompts(neutral)
    if control_kinds is None:
        control_kinds = [
            kind for kind in control_directions.KINDS if kind != "energy_matched" or activations is not None
        ]
    every = [Cell(None), *(Cell(one) for one in cells)]
    every += list(random_twins(cells, controls, control_kinds, activations, seed))
    every += [Cell(twin, kind, draw) for kind, own in (twins or {}).items() for draw, twin in enumerate(own)]
    edits = [{} if cell.intervention is None else cell.intervention.edits(model) for cell in every]
    refuse_other_lengths(every, edits)

    pairs = sum({"right", "contrary"} <= set(prompt.tags) for prompt in listed)
    if 0 < pairs < len(listed):
        raise ValueError(
            f"{pairs} of {len(listed)} prompts have the tags 'right' and 'contrary': expected all, or none."
        )
    reads_choice = pairs > 0
    if judge is None and not reads_choice:
        raise ValueError(
            "sweep has nothing to measure: expected a judge, or prompts with the tags 'right' and 'contrary'."
        )
    asked = Asked.of(listed, calm, model, reads_choice)
    work = Work.of(model, listed, asked.plain.lengths, edits, max_tokens, written=judge is not None)
    spec = {
        "table": "sweep",
        "version": TABLE_VERSION,
        "model": model.identity,
        "variant": model.active or "base",
        "judge": None if judge is None else [judge.name, judge.revision],
        "cells": [{**cell.describe(), "edits": fingerprint(edit)} for cell, edit in zip(every, edits, strict=True)],
        "prompts": content_key([prompt.record() for prompt in listed]),
        "neutral": content_key([prompt.record() for prompt in calm]),
        "generation": {"max_new_tokens": max_new_tokens, "greedy": True},
        "max_tokens": max_tokens,  # it decides the batches, by which the table is planned
        "exact": exact,
        "seed": seed,
    }
    bounds = Bounds(max_tokens, memory or memory_of(model), exact, NEARLY_EMPTY.get(model.device.type, 2048))
    beside = None
    if capture_to is not None:
        if not reads_choice:
            raise ValueError(
                "capture_to keeps what a sweep reads, and this one only writes: expected prompts with tags."
            )
        read = [prefilled(prompt) for prompt in listed]
        beside = Beside(model, read, work.units, sites=sites, at=at, to=capture_to)
    measure = Measurement(model, judge, asked, bounds, max_new_tokens, None if beside is None else beside.around)
    table = ResultTable.create(to, spec=spec, plan=work.keys, provenance=provenance.collect(seed=seed, **model.facts))
    missing = set(table.missing())
    if explain and missing:
        print("\n".join(measure.explained(work.units, dict(enumerate(edits)))))
    name = "sweep" if to is None else f"sweep {Path(to).name}"
    with Progress(name, len(work.keys), done=len(work.keys) - len(missing), show=progress) as bar:
        divergences: dict[int, float | None] = {}
        proofs: dict[int, Proof | None] = {}
        prover = Prover(model, listed)
        for unit, parts in work.left(missing):
            batches = measure.of(unit)
            for key, members in parts:
                for run in work.runs_of([c for c in members if c not in divergences]):
                    divergences |= measure.neutral_kl({c: edits[c] for c in run})
                new = [c for c in members if c not in proofs and not every[c].control]
                proofs |= {c: prover.of(every[c].intervention) for c in new}
                rows = batches.rows({c: edits[c] for c in members})
                table.commit(
                    key,
                    [
                        {
                            "cell": c,
                            **every[c].describe(),
                            "kl_neutral": divergences[c],
                            **proof_facts(proofs.get(c)),
                            **row,
                        }
                        for c in members
                        for row in rows[c]
                    ],
                )
                bar.update()
        for unit in work.units:
            if beside is not None and beside.lacks([listed[i].id for i in unit]):  # its rows stood before
                measure.of(unit).read_clean()
    _refuse_idle(table, every)
    return table


def _refuse_idle(table: ResultTable, cells: Sequence[Cell]) -> None:
    touched = {row["cell"] for row in table.rows() if row["edited"]}
    idle = [cell for c, cell in enumerate(cells) if cell.intervention is not None and c not in touched]
    if idle:
        raise NothingEdited(
            f"{len(idle)} cells of this sweep touched no position of any prompt, the first {idle[0].describe()}: "
            "expected a scope that the prompts have."
        )
