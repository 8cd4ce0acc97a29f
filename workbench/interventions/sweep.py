"""sweep: every cell of a grid of interventions on every prompt, with its controls, into one table that resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hooks.backends.hf import HuggingFaceModel
from hooks.encode import Batch
from hooks.encoded_prompts import EncodedPrompts
from hooks.model import Edits, NothingEdited
from hooks.prompt import Prompt, as_prompts
from stores import ResultTable, content_key, provenance
from workbench.interventions.cells import CellTally, Grid, Intervention, fingerprint, grouped
from workbench.interventions.proof import Proof, proof_facts, proved
from workbench.interventions.readout import Choice, choice_of, edit_facts, kl_from, prefilled, prompt_facts
from workbench.progress import Progress
from workbench.subspace import controls as control_directions
from workbench.subspace.directions import Directions
from workbench.subspace.rows import RowSource
from workbench.units import kinds_of, length_sorted

TABLE_VERSION = 1


@runtime_checkable
class Scorer(Protocol):
    """What a sweep needs of a judge (see workbench.behaviour.judges)."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...

    def score(self, prompt: Prompt, text: str, *, finished: bool = True) -> Any: ...


@dataclass(frozen=True)
class Cell:
    """One point of the grid. `control`: None for the intervention itself, else its twin's kind, `draw` its number."""

    intervention: Intervention | None
    control: str | None = None
    draw: int | None = None

    def describe(self) -> dict[str, Any]:
        facts = (
            {"intervention": "none", "layer": None, "layers": None}
            if self.intervention is None
            else self.intervention.describe()
        )
        return {**facts, "control": self.control, "draw": self.draw}


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
    seed: int = 0,
    max_new_tokens: int = 16,
    max_tokens: int = 8192,
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
    """
    listed = as_prompts(prompts)
    calm = [] if neutral is None else as_prompts(neutral)
    if control_kinds is None:
        control_kinds = [
            kind for kind in control_directions.KINDS if kind != "energy_matched" or activations is not None
        ]
    every = [Cell(None), *(Cell(one) for one in cells)]
    every += list(_controls(cells, controls, control_kinds, activations, seed))
    every += [Cell(twin, kind, draw) for kind, own in (twins or {}).items() for draw, twin in enumerate(own)]
    edits = [{} if cell.intervention is None else cell.intervention.edits(model) for cell in every]

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
    asked = _Asked.of(listed, calm, model, reads_choice)
    lengths = asked.plain.lengths
    units = length_sorted(lengths, max_tokens, kinds_of(model, listed, lengths))
    widest = max(len(unit) * max(lengths[i] for i in unit) for unit in units)
    groups = list(grouped(edits, max(1, max_tokens // widest)))
    plan = {
        f"cells{members[0]}-{members[-1]}.{u}": (g, u)
        for g, (members, _) in enumerate(groups)
        for u in range(len(units))
    }
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
        "seed": seed,
    }
    table = ResultTable.create(to, spec=spec, plan=list(plan), provenance=provenance.collect(seed=seed, **model.facts))
    missing = set(table.missing())
    runner = _Runner(model, judge, asked, max_new_tokens, max_tokens)
    name = "sweep" if to is None else f"sweep {Path(to).name}"
    with Progress(name, len(plan), done=len(plan) - len(missing), show=progress) as bar:
        divergences: dict[int, list[float | None]] = {}
        proofs: dict[int, Proof] = {}
        for key, (g, u) in plan.items():
            if key not in missing:
                continue
            members, grid = groups[g]
            if g not in divergences:
                divergences = {g: runner.neutral_kl(grid)}
                proofs = proved(model, listed, {c: every[c].intervention for c in members if not every[c].control})
            rows = runner.measure(grid, units[u])
            table.commit(
                key,
                [
                    {"cell": c, **every[c].describe(), "kl_neutral": kl, **proof_facts(proofs.get(c)), **row}
                    for c, kl, cell_rows in zip(members, divergences[g], rows, strict=True)
                    for row in cell_rows
                ],
            )
            bar.update()
    _refuse_idle(table, every)
    return table


def _controls(
    cells: Sequence[Intervention], n: int, kinds: Sequence[str], activations: RowSource | None, seed: int
) -> Iterator[Cell]:
    for kind in kinds if n else ():
        if kind not in control_directions.KINDS:
            raise ValueError(f"control kind {kind!r} is unknown: expected among {', '.join(control_directions.KINDS)}.")
        if kind == "energy_matched" and activations is None:
            raise ValueError(
                "energy-matched controls are combinations of captured activations: give them, "
                "activations=store.where(...)."
            )
        drawn: dict[int, list[Any]] = {}
        for intervention in cells:
            v = getattr(intervention, "direction", None)
            if not isinstance(v, Directions):
                raise ValueError(
                    f"{type(intervention).__name__} has no Directions to draw controls for: use controls=0."
                )
            if kind == "energy_matched":
                _refuse_other_scope(intervention, activations)
            if id(v) not in drawn:
                make = getattr(control_directions, kind)
                drawn[id(v)] = make(v, activations, n, seed) if kind == "energy_matched" else make(v, n, seed)
            for draw, twin in enumerate(drawn[id(v)]):
                yield Cell(replace(intervention, direction=twin), kind, draw)  # type: ignore[type-var]


def _refuse_other_scope(intervention: Intervention, activations: RowSource | None) -> None:
    scope, at = (activations.info.get("scope") if activations is not None else None), intervention.describe().get("at")
    if scope and at and scope != at:
        raise ValueError(
            f"energy-matched controls need activations of the positions that are edited, {at!r}; these were captured "
            f"at {scope!r}, where other directions hold the energy: capture(..., at={at!r})."
        )


@dataclass(frozen=True)
class _Asked:
    """The prompts of a sweep, encoded once: as they are, with the answer begun, and the neutral ones."""

    prompts: Sequence[Prompt]
    plain: EncodedPrompts
    begun: EncodedPrompts
    choice: Choice | None
    neutral: Sequence[Prompt]
    calm: EncodedPrompts

    @staticmethod
    def of(prompts: Sequence[Prompt], calm: Sequence[Prompt], model: HuggingFaceModel, reads_choice: bool) -> _Asked:
        encoder = model.encoder
        return _Asked(
            prompts,
            EncodedPrompts(encoder, prompts),
            EncodedPrompts(encoder, [prefilled(prompt) for prompt in prompts] if reads_choice else []),
            choice_of(prompts, encoder) if reads_choice else None,
            calm,
            EncodedPrompts(encoder, calm),
        )


@dataclass(frozen=True)
class _Runner:
    """Measures the cells of one grid on some prompts."""

    model: HuggingFaceModel
    judge: Scorer | None
    asked: _Asked
    max_new_tokens: int
    max_tokens: int

    def measure(self, grid: Grid, unit: Sequence[int]) -> list[list[dict[str, Any]]]:
        """Rows [cell][prompt] for the prompts of one unit."""
        n, cells, model = len(unit), len(grid.edits), self.model
        rows = [[prompt_facts(self.asked.prompts[i]) for i in unit] for _ in range(cells)]
        tallies: list[list[CellTally]] = []
        if self.judge is not None:
            batch = grid.batch(model.encoder.collate(self.asked.plain.taken(unit), "left"))
            banks = grid.banks(n, model.d_model)
            out = model.generate(batch, edits=banks, must_edit=False, max_new_tokens=self.max_new_tokens)
            tallies.append(grid.per_cell(out.tallies, n))
            for c in range(cells):
                for p, i in enumerate(unit):
                    text, finished = out.texts[c * n + p], out.finished[c * n + p]
                    verdict = self.judge.score(self.asked.prompts[i], text, finished=finished)
                    rows[c][p] |= {"category": verdict.category, "score": verdict.score}
                    rows[c][p] |= {"text": text, "finished": finished}
        if self.asked.choice is not None:
            batch = grid.batch(model.encoder.collate(self.asked.begun.taken(unit)))
            trace = model.run(batch, edits=grid.banks(n, model.d_model), must_edit=False)
            tallies.append(grid.per_cell(trace.tallies, n))
            choice = self.asked.choice.of(unit)
            assert trace.logits is not None
            for c, logits in enumerate(trace.logits.reshape(cells, n, -1)):
                for p, read in enumerate(choice.read(logits)):
                    rows[c][p] |= read
        for c in range(cells):
            # The reading counts the same tokens in every cell; a scope such as `response` acts in the answer alone.
            tally = next((run[c] for run in reversed(tallies) if run[c].edited.any()), tallies[-1][c])
            for p in range(n):
                rows[c][p] |= edit_facts(tally, p, edits=bool(grid.edits[c]))
        return rows

    def neutral_kl(self, grid: Grid) -> list[float | None]:
        """Mean KL from the unedited model to each cell over the neutral prompts; None without such prompts."""
        calm, cells = self.asked.calm, len(grid.edits)
        if not len(calm):
            return [None] * cells
        total = torch.zeros(cells, dtype=torch.float64)
        kinds = kinds_of(self.model, self.asked.neutral, calm.lengths)
        for unit in length_sorted(calm.lengths, max(1, self.max_tokens // cells), kinds):
            batch = self.model.encoder.collate(calm.taken(unit))
            base = self._logits(batch, {})
            edited = self._logits(grid.batch(batch), grid.banks(len(batch), self.model.d_model))
            for c, each in enumerate(
                edited.reshape(cells, *base.shape)
            ):  # one by one: a vocabulary in float64 is large
                total[c] += float(kl_from(base, each).sum())
        return [float(kl) / len(calm) if cell else 0.0 for cell, kl in zip(grid.edits, total, strict=True)]

    def _logits(self, batch: Batch, edits: Edits) -> Tensor:
        logits = self.model.run(batch, edits=edits, must_edit=False).logits
        assert logits is not None
        return logits


def _refuse_idle(table: ResultTable, cells: Sequence[Cell]) -> None:
    touched = {row["cell"] for row in table.rows() if row["edited"]}
    idle = [cell for c, cell in enumerate(cells) if cell.intervention is not None and c not in touched]
    if idle:
        raise NothingEdited(
            f"{len(idle)} cells of this sweep touched no position of any prompt, the first {idle[0].describe()}: "
            "expected a scope that the prompts have."
        )
