"""sweep: every cell of a grid of interventions on every prompt, with its controls, into one table that resumes."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hooks.backends.hf import HuggingFaceModel
from hooks.model import NothingEdited
from hooks.positions import Scope
from hooks.prompt import Prompt, as_prompts
from hooks.site import Site
from stores import ResultTable, content_key, provenance
from workbench.actors import Ray, ray_asked, run_by_actors
from workbench.captures.beside import Beside
from workbench.interventions.cells import Intervention, fingerprint, refuse_others
from workbench.interventions.measuring import Asked, Measurement, OneUnit, Scorer
from workbench.interventions.planner import NEARLY_EMPTY, Bounds
from workbench.interventions.proof import Proof, Prover, proof_facts
from workbench.interventions.readout import prefilled
from workbench.interventions.twins import Cell, random_twins, refuse_other_lengths
from workbench.interventions.work import Work, batch_name, memory_of
from workbench.parts import part_numbers, run_of
from workbench.progress import Progress
from workbench.sources import ModelSource, data_of, loaded, sent
from workbench.subspace import controls as control_directions
from workbench.subspace.rows import RowSource

TABLE_VERSION = 2


def sweep(
    model: HuggingFaceModel | ModelSource | str | Path,
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
    engine: str | Ray = "process",
    part: str | None = None,
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

    `part="2/3"` measures the second third of the units, and `engine="ray"` has warm workers of a Ray cluster measure
    them, as in `wb.capture`; the model is then its folder or a `ModelSource`, and `to` a folder. A table is whole, and
    idle cells are refused, when its last unit is there.
    """
    refuse_others(cells, listed=True)
    listed = as_prompts(prompts)
    calm = [] if neutral is None else as_prompts(neutral)
    if control_kinds is None:
        control_kinds = [
            kind for kind in control_directions.KINDS if kind != "energy_matched" or activations is not None
        ]
    every = [Cell(None), *(Cell(one) for one in cells)]
    every += list(random_twins(cells, controls, control_kinds, activations, seed))
    every += [Cell(twin, kind, draw) for kind, own in (twins or {}).items() for draw, twin in enumerate(own)]
    reads_choice = _reads_choice(listed, judge, capture_to)
    part_numbers(part)  # refuses what is none, before a model is loaded
    asked: dict[str, Any] = {"judge": judge, "seed": seed, "max_new_tokens": max_new_tokens, "max_tokens": max_tokens}
    asked |= {"memory": memory, "exact": exact, "sites": sites, "at": at, "part": part}
    asked |= {"reads_choice": reads_choice}
    name, cluster = "sweep" if to is None else f"sweep {Path(to).name}", ray_asked(engine)
    if cluster is not None:
        if to is None or explain or isinstance(getattr(judge, "model", None), HuggingFaceModel):
            raise ValueError(
                "engine='ray' leaves its table in a folder, explains nothing, and sends no judge that has its weights "
                "here: expected to=FOLDER, and a judge by rules or behind a server (or wb.judge_answers afterwards)."
            )
        asked |= {"model": sent(model), "to": Path(to).absolute(), "cells": every}
        asked |= {"capture_to": None if capture_to is None else Path(capture_to).absolute()}
        asked |= {"prompts": data_of(listed), "neutral": data_of(calm) if calm else []}
        run_by_actors(Sweeping, asked, cluster, name=name, progress=progress)
        table = ResultTable.open(to)
    else:
        work = Sweeping(loaded(model), listed, calm, every, to=to, capture_to=capture_to, **asked)
        table, left = work.table, work.left()
        if explain and left:
            print("\n".join(work.explained()))
        with (
            Progress(name, work.planned, done=work.planned - len(left), show=progress) as bar,
            closing(work.run(left)) as running,
        ):
            for _ in running:
                bar.update()
    _refuse_idle(table, every)
    return table


class Sweeping:
    """A sweep made ready, as one process has it: its table is there, and `run` fills units of it."""

    def __init__(
        self,
        model: HuggingFaceModel | ModelSource,
        prompts: Sequence[Prompt],
        neutral: Sequence[Prompt],
        cells: Sequence[Cell],
        *,
        judge: Scorer | None,
        reads_choice: bool,
        to: str | Path | None,
        capture_to: str | Path | None,
        sites: str | Site | Sequence[str | Site],
        at: Scope,
        seed: int,
        max_new_tokens: int,
        max_tokens: int,
        memory: int | None,
        exact: bool,
        part: str | None,
    ) -> None:
        model = loaded(model)
        self._cells, self._prompts = cells, prompts
        self._edits = [{} if cell.intervention is None else cell.intervention.edits(model) for cell in cells]
        refuse_other_lengths(cells, self._edits)
        asked = Asked.of(prompts, neutral, model, reads_choice)
        self._pieces = Work.of(model, prompts, asked.plain.lengths, self._edits, max_tokens, written=judge is not None)
        spec = {
            "table": "sweep",
            "version": TABLE_VERSION,
            "model": model.identity,
            "variant": model.active or "base",
            "judge": None if judge is None else [judge.name, judge.revision],
            "cells": [
                {**cell.describe(), "edits": fingerprint(edit)} for cell, edit in zip(cells, self._edits, strict=True)
            ],
            "prompts": content_key([prompt.record() for prompt in prompts]),
            "neutral": content_key([prompt.record() for prompt in neutral]),
            "generation": {"max_new_tokens": max_new_tokens, "greedy": True},
            "max_tokens": max_tokens,  # it decides the batches, by which the table is planned
            "exact": exact,
            "seed": seed,
        }
        bounds = Bounds(max_tokens, memory or memory_of(model), exact, NEARLY_EMPTY.get(model.device.type, 2048))
        self._beside: Beside | None = None
        if capture_to is not None:
            read = [prefilled(prompt) for prompt in prompts]
            self._beside = Beside(model, read, self._pieces.units, sites=sites, at=at, to=capture_to)
        around = None if self._beside is None else self._beside.around
        self._measure = Measurement(model, judge, asked, bounds, max_new_tokens, around)
        self.table = ResultTable.create(
            to, spec=spec, plan=self._pieces.keys, provenance=provenance.collect(seed=seed, **model.facts)
        )
        self._clean = self._pieces.clean_passes
        self._mine = run_of(self._pieces.keys, part)
        self._divergences: dict[int, float | None] = {}
        self._proofs: dict[int, Proof | None] = {}
        self._prover = Prover(model, prompts)
        self._at_hand: tuple[list[int], OneUnit] | None = None

    @property
    def planned(self) -> int:
        return len(self._mine) + len(self._unseen(self.table.missing()))

    def left(self) -> list[str]:
        """Units of this part that the table lacks; then batches whose clean pass alone is wanted, for their rows stood
        before they were to be captured."""
        missing = set(self.table.missing())
        return [key for key in self._mine if key in missing] + self._unseen(missing)

    def run(self, keys: Sequence[str]) -> Generator[str, None, None]:
        """Measures these units; a key comes when its rows are committed."""
        for unit, parts in self._pieces.left(set(keys)):
            batches = self._batch(unit)
            for key, members in parts:
                rows = self._rows(batches, members)
                self.table.commit(key, rows, batches.note)
                yield key
            if self._lacks(unit):  # no cell of these passed the unedited model
                batches.read_clean()
        for key in keys:
            if (unit := self._clean.get(key)) is not None:
                if self._lacks(unit):
                    self._batch(unit).read_clean()
                yield key

    def _unseen(self, missing: Collection[str]) -> list[str]:
        begun = {batch_name(key) for key in self._mine} - {batch_name(key) for key in missing}
        return [key for key, unit in self._clean.items() if batch_name(key) in begun and self._lacks(unit)]

    def _lacks(self, unit: Sequence[int]) -> bool:
        return self._beside is not None and self._beside.lacks([self._prompts[i].id for i in unit])

    def explained(self) -> list[str]:
        """What will be run, in lines."""
        return self._measure.explained(self._pieces.units, dict(enumerate(self._edits)))

    def _rows(self, batches: OneUnit, members: Sequence[int]) -> list[dict[str, Any]]:
        for run in self._pieces.runs_of([c for c in members if c not in self._divergences]):
            self._divergences |= self._measure.neutral_kl({c: self._edits[c] for c in run})
        new = [c for c in members if c not in self._proofs and not self._cells[c].control]
        self._proofs |= {c: self._prover.of(self._cells[c].intervention) for c in new}
        rows = batches.rows({c: self._edits[c] for c in members})
        return [
            {
                "cell": c,
                **self._cells[c].describe(),
                "kl_neutral": self._divergences[c],
                **proof_facts(self._proofs.get(c)),
                **row,
            }
            for c in members
            for row in rows[c]
        ]

    def _batch(self, unit: list[int]) -> OneUnit:
        """The batch of these prompts; the last one is kept, with its clean pass, for it may be asked for again."""
        if self._at_hand is None or self._at_hand[0] != unit:
            self._at_hand = None  # its caches go before others are made
            self._at_hand = unit, self._measure.of(unit)
        return self._at_hand[1]


def _reads_choice(prompts: Sequence[Prompt], judge: Scorer | None, capture_to: str | Path | None) -> bool:
    """Whether the sweep reads the token that decides. Raises ValueError where there is nothing to measure."""
    if judge is not None and not hasattr(judge, "score"):
        raise TypeError(f"judge is {judge!r:.80}: expected what wb.judge gives, as wb.judge('rule:contains').")
    pairs = sum({"right", "contrary"} <= set(prompt.tags) for prompt in prompts)
    if 0 < pairs < len(prompts):
        raise ValueError(
            f"{pairs} of {len(prompts)} prompts have the tags 'right' and 'contrary': expected all, or none."
        )
    if judge is None and not pairs:
        raise ValueError(
            "sweep has nothing to measure: expected a judge, or prompts with the tags 'right' and 'contrary'."
        )
    if capture_to is not None and not pairs:
        raise ValueError("capture_to keeps what a sweep reads, and this one only writes: expected prompts with tags.")
    return pairs > 0


def _refuse_idle(table: ResultTable, cells: Sequence[Cell]) -> None:
    if table.missing():  # other parts may show that they act
        return
    touched = {row["cell"] for row in table.rows() if row["edited"]}
    idle = [cell for c, cell in enumerate(cells) if cell.intervention is not None and c not in touched]
    if idle:
        raise NothingEdited(
            f"{len(idle)} cells of this sweep touched no position of any prompt, the first {idle[0].describe()}: "
            "expected a scope that the prompts have."
        )
