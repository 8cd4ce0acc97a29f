"""What a sweep measures of a batch: answers and their verdicts, the choice at the deciding token, the neutral KL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from hooks.encode import Batch
from hooks.encoded_prompts import EncodedPrompts
from hooks.prompt import Prompt
from workbench.captures.halving import DoesNotFit, note_of, released
from workbench.interventions.cells import CellTally
from workbench.interventions.passes import Around, Passes
from workbench.interventions.planner import Bounds, CellEdits, explained
from workbench.interventions.readout import Choice, choice_of, edit_facts, kl_from, prefilled, prompt_facts
from workbench.units import kinds_of, length_sorted

Result = TypeVar("Result")


@runtime_checkable
class Scorer(Protocol):
    """What a sweep needs of a judge (see workbench.behaviour.judges)."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...

    def score(self, prompt: Prompt, text: str, *, finished: bool = True) -> Any: ...


@dataclass(frozen=True)
class Asked:
    """The prompts of a sweep, encoded once: as they are, with the answer begun, and the neutral ones."""

    prompts: Sequence[Prompt]
    plain: EncodedPrompts
    begun: EncodedPrompts
    choice: Choice | None
    neutral: Sequence[Prompt]
    calm: EncodedPrompts

    @staticmethod
    def of(prompts: Sequence[Prompt], calm: Sequence[Prompt], model: Any, reads_choice: bool) -> Asked:
        encoder = model.encoder
        return Asked(
            prompts,
            EncodedPrompts(encoder, prompts),
            EncodedPrompts(encoder, [prefilled(prompt) for prompt in prompts] if reads_choice else []),
            choice_of(prompts, encoder) if reads_choice else None,
            calm,
            EncodedPrompts(encoder, calm),
        )


class Measurement:
    """Measures cells on batches of the prompts that were asked. `of(unit)` is one batch, `neutral_kl` all neutral
    ones."""

    def __init__(
        self,
        model: Any,
        judge: Scorer | None,
        asked: Asked,
        bounds: Bounds,
        max_new_tokens: int,
        beside: Around | None = None,
    ) -> None:
        self.beside = beside
        self.model, self.judge, self.asked, self.bounds = model, judge, asked, bounds
        self.max_new_tokens = max_new_tokens
        self._calm: list[Passes] | None = None
        self._calm_bounds = bounds

    def of(self, unit: Sequence[int]) -> OneUnit:
        """The measurements of the prompts of one unit."""
        return OneUnit(self, unit)

    def passes(
        self, encoded: EncodedPrompts, unit: Sequence[int], bounds: Bounds, beside: Around | None = None
    ) -> Passes:
        batch: Batch = self.model.encoder.collate(encoded.taken(unit))
        return Passes(self.model, batch, bounds, beside)

    def neutral_kl(self, cells: Mapping[int, CellEdits]) -> dict[int, float | None]:
        """Mean KL from the unedited model to each cell over the neutral prompts; None without such prompts. Batches
        that the device has no memory for are halved."""
        if not len(self.asked.calm) or not cells:
            return dict.fromkeys(cells)
        while True:
            try:
                return self._neutral_kl(cells)
            except torch.OutOfMemoryError as error:
                if self._calm_bounds.tokens <= max(self.asked.calm.lengths):
                    longest = max(self.asked.neutral, key=lambda prompt: len(prompt.text or ""))
                    raise DoesNotFit.of(longest, "neutral prompt", error) from error
            self._calm, self._calm_bounds = None, halved(self._calm_bounds)
            released()

    def _neutral_kl(self, cells: Mapping[int, CellEdits]) -> dict[int, float | None]:
        total = {c: torch.zeros((), dtype=torch.float64) for c in cells}
        edited = {c: edits for c, edits in cells.items() if edits}
        for batch in self._neutral():
            base = batch.clean[0].logits
            assert base is not None
            for reading in batch.read(edited) if edited else ():
                for c, logits in zip(reading.cells, reading.logits, strict=True):  # one by one: float64 is large
                    total[c] += kl_from(base, logits).sum().cpu()
        return {c: float(kl) / len(self.asked.calm) for c, kl in total.items()}

    def _neutral(self) -> list[Passes]:
        if self._calm is None:
            lengths = self.asked.calm.lengths
            kinds = kinds_of(self.model, self.asked.neutral, lengths)
            units = length_sorted(lengths, self._calm_bounds.tokens, kinds)
            self._calm = [self.passes(self.asked.calm, unit, self._calm_bounds) for unit in units]
        return self._calm

    def explained(self, units: Sequence[Sequence[int]], cells: Mapping[int, CellEdits]) -> list[str]:
        """What will be run, in lines: the plan of the largest batch of readings, and how answers are written."""
        if self.asked.choice is None:
            return ["answers only: cells as rows of one generation, behind one cache where their edits begin late"]
        largest = max(units, key=len)
        batch = self.passes(self.asked.begun, largest, self.bounds)
        made, starts = batch.plan(cells), batch.starts(cells)
        head = f"{len(units)} batches; the largest, {len(largest)} prompts:"
        return [head, *explained(made, starts, self.model.n_layers, batch.columns)]


def halved(bounds: Bounds) -> Bounds:
    """Half the tokens a pass, and half of what may be recorded."""
    return replace(bounds, tokens=max(1, bounds.tokens // 2), bytes=bounds.bytes // 2)


class OneUnit:
    """The measurements of one unit: in one batch; or, where the device has no memory for that, in halves of it with
    passes of half the size, one behind the other."""

    def __init__(self, measurement: Measurement, unit: Sequence[int]) -> None:
        self._of = measurement
        self._parts = [(list(unit), measurement.bounds)]
        self._whole: OneBatch | None = None

    @property
    def note(self) -> str:
        """What the shard says of it."""
        return note_of(self._parts)

    def rows(self, cells: Mapping[int, CellEdits]) -> dict[int, list[dict[str, Any]]]:
        """Rows [cell][prompt] of what was measured."""
        found = self._each(lambda batch: batch.rows(cells))
        return {c: [row for part in found for row in part[c]] for c in cells}

    def read_clean(self) -> None:
        """Runs the unedited forward, for who looks on."""
        self._each(lambda batch: batch.read_clean())

    def _each(self, run: Callable[[OneBatch], Result]) -> list[Result]:
        found, waiting, self._parts = [], self._parts, []
        while waiting:
            unit, bounds = waiting.pop(0)
            try:
                found.append(run(self._batch(unit, bounds, alone=not found and not waiting)))
                self._parts.append((unit, bounds))
                continue
            except torch.OutOfMemoryError as error:
                if len(unit) == 1 and bounds.tokens <= self._of.asked.plain.lengths[unit[0]]:
                    raise DoesNotFit.of(self._of.asked.prompts[unit[0]], "prompt", error) from error
            self._whole = None
            released()
            middle = len(unit) // 2
            waiting[:0] = [(part, halved(bounds)) for part in (unit[:middle], unit[middle:]) if part]
        return found

    def _batch(self, unit: list[int], bounds: Bounds, alone: bool) -> OneBatch:
        """The whole unit's batch is kept, with its clean pass and its caches; a part's gives its memory back."""
        if not alone:
            return OneBatch(self._of, unit, bounds)
        if self._whole is None:
            self._whole = OneBatch(self._of, unit, bounds)
        return self._whole


class OneBatch:
    """Some prompts, read and answered; the clean pass and its caches live as long as this does."""

    def __init__(self, measurement: Measurement, unit: Sequence[int], bounds: Bounds) -> None:
        self._of, self._unit = measurement, unit
        asked = measurement.asked
        self._plain = measurement.passes(asked.plain, unit, bounds) if measurement.judge is not None else None
        beside = measurement.beside
        self._begun = measurement.passes(asked.begun, unit, bounds, beside) if asked.choice is not None else None

    def read_clean(self) -> None:
        """Runs the unedited forward, for who looks on."""
        assert self._begun is not None
        _ = self._begun.clean

    def rows(self, cells: Mapping[int, CellEdits]) -> dict[int, list[dict[str, Any]]]:
        """Rows [cell][prompt] of what was measured."""
        asked, unit = self._of.asked, self._unit
        rows = {c: [prompt_facts(asked.prompts[i]) for i in unit] for c in cells}
        answered, read = self._answer(cells, rows), self._read(cells, rows)
        for c in cells:
            # The reading counts the same tokens in every cell; a scope such as `response` acts in the answer alone.
            runs = [tallies[c] for tallies in (answered, read) if tallies]
            tally = next((run for run in reversed(runs) if run.edited.any()), runs[-1])
            for p, row in enumerate(rows[c]):
                row |= edit_facts(tally, p, edits=bool(cells[c]))
        return rows

    def _answer(self, cells: Mapping[int, CellEdits], rows: dict[int, list[dict[str, Any]]]) -> dict[int, CellTally]:
        judge, tallies = self._of.judge, {}
        if judge is None or self._plain is None:
            return tallies
        n = len(self._unit)
        for answers in self._plain.answer(cells, self._of.max_new_tokens):
            out = answers.generation
            for place, c in enumerate(answers.cells):
                tallies[c] = answers.tallies[place]
                here = slice(place * n, (place + 1) * n)
                texts, finished = out.texts[here], out.finished[here]
                prompts = [self._of.asked.prompts[i] for i in self._unit]
                for p, verdict in enumerate(_verdicts(judge, prompts, texts, finished)):
                    rows[c][p] |= {"category": verdict.category, "score": verdict.score}
                    rows[c][p] |= {"text": texts[p], "finished": finished[p]}
        return tallies

    def _read(self, cells: Mapping[int, CellEdits], rows: dict[int, list[dict[str, Any]]]) -> dict[int, CellTally]:
        tallies: dict[int, CellTally] = {}
        if self._of.asked.choice is None or self._begun is None:
            return tallies
        choice = self._of.asked.choice.of(self._unit)
        for reading in self._begun.read(cells):
            for place, c in enumerate(reading.cells):
                tallies[c] = reading.tallies[place]
                for p, found in enumerate(choice.read(reading.logits[place])):
                    rows[c][p] |= found
        return tallies


def _verdicts(judge: Scorer, prompts: Sequence[Prompt], texts: Sequence[str], finished: Sequence[bool]) -> list[Any]:
    """One an answer; all at once of a judge that takes them so, a language model above all."""
    if (together := getattr(judge, "score_texts", None)) is not None:
        return together(prompts, texts, finished)
    given = zip(prompts, texts, finished, strict=True)
    return [judge.score(prompt, text, finished=whole) for prompt, text, whole in given]
