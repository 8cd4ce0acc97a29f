"""sample_answers: what models answer, several samples a prompt, into one table that resumes.

Every observation (a prompt's n-th sample) has a seed of its own, the same in all conditions: models are compared under
common random numbers, and no answer depends on which others shared its batch (beyond the rounding of a batch's shape).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hooks.adapter_rows import RowsUnknown
from hooks.encode import Batch
from hooks.encoded_prompts import EncodedPrompts
from hooks.model import Generation, NothingEdited
from hooks.prompt import Prompt, as_prompts
from hooks.sampling import SeededSampling
from stores import ResultTable, content_key, provenance
from workbench.behaviour.answer_faults import faults_of
from workbench.behaviour.conditions import Condition, Given, conditions_of, parts_of, variants_a_batch
from workbench.captures.halving import Place, in_parts, note_of, released
from workbench.interventions.cells import CellTally
from workbench.interventions.passes import Passes
from workbench.interventions.planner import NEARLY_EMPTY, Bounds
from workbench.interventions.work import memory_of
from workbench.progress import Progress
from workbench.units import kinds_of, length_sorted

ANSWERS_VERSION = 2  # 2: variants may share a batch


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. A temperature of 0 is greedy; top_k 0 and top_p 1 leave all tokens."""

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class Observation:
    """One answer to be written: the `sample`-th to a prompt."""

    prompt: int  # its place in the list
    sample: int
    seed: int


def sample_answers(
    model: Any,
    prompts: str | Path | Sequence[Prompt],
    *,
    samples: int | Mapping[str, int] = 1,
    conditions: Mapping[str, Given] | Sequence[str] | None = None,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    max_tokens: int = 8192,
    to: str | Path | None = None,
    progress: bool = True,
) -> ResultTable:
    """One row for every condition, prompt and sample (`samples` may give a number for each prompt id): `text`,
    `token_ids` (separated by spaces), `finished`, `empty`, `repeated`, the `rendered` prompt, the `seed`.

    `conditions` names what is compared, see `conditions_of`: `{"base": "base", "tuned": "tuned", "steered": ("tuned",
    wb.Steer(v, layer=12, coefficient=-2.0))}`. Conditions of one variant are rows of shared batches, of at most
    `max_tokens` prompt and answer tokens; so are variants without interventions, as many as fit. `model` may be an
    endpoint (`wb.endpoint("openai:NAME")`): the same table,
    without conditions. A run that was stopped goes on in `to`. Raises NothingEdited when a condition's interventions
    touched no prompt, PromptError for a system turn that the chat template drops.
    """
    listed = as_prompts(prompts)
    how = Sampling(max_new_tokens, temperature, top_p, top_k, repetition_penalty)
    asked = [
        Observation(i, n, seed_of(seed, prompt.id, n))
        for i, prompt in enumerate(listed)
        for n in range(samples if isinstance(samples, int) else samples[prompt.id])
    ]
    writer = _writer(model, listed, conditions, how)
    units = writer.units(asked, max_tokens)
    spec = {
        "table": "answers",
        "version": ANSWERS_VERSION,
        "model": model.identity,
        "conditions": writer.described,
        "prompts": content_key([prompt.record() for prompt in listed]),
        "observations": content_key([[listed[one.prompt].id, one.sample, one.seed] for one in asked]),
        "sampling": asdict(how),
        "max_tokens": max_tokens,  # it decides the batches
    }
    plan = [f"{part}.batch{u}" for u in range(len(units)) for part in writer.parts]
    table = ResultTable.create(to, spec=spec, plan=plan, provenance=provenance.collect(seed=seed, **model.facts))
    missing = set(table.missing())
    with Progress("answers", len(plan), done=len(plan) - len(missing), show=progress) as bar:
        for u, unit in enumerate(units):
            for part in writer.parts:
                if (key := f"{part}.batch{u}") in missing:
                    rows, note = _in_order(writer, part, [asked[i] for i in unit], listed)
                    table.commit(key, rows, note)
                    bar.update()
    writer.check(table)
    return table


def _in_order(
    writer: Any, part: str, asked: Sequence[Observation], listed: Sequence[Prompt]
) -> tuple[list[dict[str, Any]], str]:
    """The rows of one part's conditions, condition by condition, and the note for their shard."""

    def written(places: Sequence[Place]) -> list[dict[str, Any]]:
        some = [asked[place.at] for place in places]
        try:
            return list(writer.rows(part, some))
        except torch.OutOfMemoryError:
            if len(some) > 1 or len(writer.parts[part]) == 1:
                raise
        released()
        return list(writer.rows(part, some, tight=True))

    pieces = in_parts([Place(n, listed[one.prompt].id) for n, one in enumerate(asked)], written)
    rows = [row for piece in pieces for row in piece]
    first = list(dict.fromkeys(row.get("condition") for row in rows))
    return sorted(rows, key=lambda row: first.index(row.get("condition"))), note_of(pieces)


def seed_of(seed: int, prompt: str, sample: int) -> int:
    """The seed of one observation: of the run's seed, the prompt's id and the sample's number, nothing else."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{prompt}\0{sample}".encode()).digest()[:6], "big")


def _writer(model: Any, prompts: Sequence[Prompt], conditions: Any, how: Sampling) -> Any:
    if hasattr(model, "answers"):
        from workbench.behaviour.endpoint_answers import EndpointWriter

        return EndpointWriter(model, prompts, conditions, how)
    return LocalWriter(model, prompts, conditions_of(model, conditions), how)


class LocalWriter:
    """Answers of a model in this process. A part is one variant with all its conditions, which share what they read; or
    several variants that are asked as they are, which share the base's weights."""

    def __init__(self, model: Any, prompts: Sequence[Prompt], conditions: list[Condition], how: Sampling) -> None:
        self._model, self._prompts, self._how = model, prompts, how
        self._encoded = EncodedPrompts(model.encoder, prompts)
        self._conditions = conditions
        self._edits = {one.name: one.edits(model) for one in conditions}
        self.parts: dict[str, list[Condition]] = {}
        self.described = [one.describe(model) for one in conditions]

    def units(self, asked: Sequence[Observation], max_tokens: int) -> list[list[int]]:
        """Observations that share a batch, of similar length; as many variants go with them as leave room."""
        self._max_tokens = max_tokens
        lengths = [self._encoded.lengths[one.prompt] + self._how.max_new_tokens for one in asked]
        kinds = kinds_of(self._model, [self._prompts[one.prompt] for one in asked], lengths)
        units = length_sorted(lengths, max_tokens, kinds)
        self.parts = parts_of(self._model, self._conditions, variants_a_batch(units, lengths, max_tokens))
        return units

    def rows(self, part: str, asked: Sequence[Observation], *, tight: bool = False) -> Iterator[dict[str, Any]]:
        """The rows of one part's conditions. `tight`: one condition a pass, where there is no memory for several."""
        how = self._how
        prompts = list(dict.fromkeys(one.prompt for one in asked))  # each is read once, whatever its samples
        batch = self._model.encoder.collate(self._encoded.taken(prompts), "left")
        index = [prompts.index(one.prompt) for one in asked]
        drawing = SeededSampling(
            [one.seed for one in asked], **asdict(how), real=batch.tokens.position[torch.tensor(index)] >= 0
        )
        for conditions, out, tallies in self._answered(self.parts[part], batch, index, drawing, tight):
            for place, condition in enumerate(conditions):
                for row, one in enumerate(asked):
                    at = place * len(asked) + row
                    yield {
                        "condition": condition.name,
                        "variant": condition.variant,
                        **self._written(one),
                        **answer_facts(out.texts[at], out.token_ids[at], out.finished[at]),
                        "edited": int(tallies[place].edited[row]) if condition.interventions else None,
                    }

    def _answered(
        self, here: Sequence[Condition], batch: Batch, index: Sequence[int], drawing: SeededSampling, tight: bool
    ) -> Iterator[tuple[Sequence[Condition], Generation, list[CellTally]]]:
        """The answers of conditions that share a part: condition by condition, and for each in the order of `index`."""
        new, columns = self._how.max_new_tokens, batch.inputs["input_ids"].shape[1]
        # what is left to prompts, over all cells
        tokens = 1 if tight else self._max_tokens * columns // (columns + new)
        bounds = Bounds(tokens, memory_of(self._model), False, NEARLY_EMPTY.get(self._model.device.type, 2048))
        passes = Passes(self._model.variant(here[0].variant), batch, bounds)
        variants = [one.variant for one in here]
        if len(set(variants)) == 1:
            edits = {c: self._edits[one.name] for c, one in enumerate(here)}
            for out in passes.answer(edits, new, index, logits_processor=[drawing]):
                yield [here[c] for c in out.cells], out.generation, out.tallies
            return
        try:
            answers = None if tight else passes.across(variants, new, index, logits_processor=[drawing])
        except RowsUnknown:  # a layer that does not show which rows it reads
            answers = None
        if answers is not None:
            yield here, answers, []
            return
        for one in here:
            yield from self._answered([one], batch, index, drawing, tight)

    def _written(self, one: Observation) -> dict[str, Any]:
        prompt = self._prompts[one.prompt]
        return {**observation_facts(prompt, one), "rendered": self._model.encoder.rendered(prompt)}

    def check(self, table: ResultTable) -> None:
        """Raises NothingEdited for interventions that touched no position of any answer."""
        for one in self._conditions:
            if one.interventions and not any(row["edited"] for row in table.rows(condition=one.name)):
                raise NothingEdited(
                    f"the interventions of condition {one.name!r} touched no position of any prompt or answer: "
                    "expected a scope that these prompts have."
                )


def observation_facts(prompt: Prompt, one: Observation) -> dict[str, Any]:
    """What a row says of its prompt and its draw; tags that are no text, number or boolean are left out."""
    tags = {f"tag_{name}": value for name, value in prompt.tags.items() if isinstance(value, str | int | float | bool)}
    return {**tags, "prompt": prompt.id, "label": prompt.label, "sample": one.sample, "seed": one.seed}


def answer_facts(text: str, token_ids: Sequence[int] | None, finished: bool) -> dict[str, Any]:
    """What a row says of its answer; an endpoint gives no token ids."""
    return {
        "text": text,
        "token_ids": None if token_ids is None else " ".join(map(str, token_ids)),
        "tokens": None if token_ids is None else len(token_ids),
        "finished": finished,
        **faults_of(text),
    }
