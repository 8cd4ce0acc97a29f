"""Capture while generating: every variant writes an answer to each prompt, and its residuals are kept on the way, in
the forwards that write it. What was written stands in a result table beside the shards, `<store>/answers`, one row a
prompt and variant; `with_answers` gives it back as prompts with responses.

A unit is sealed in two steps, the answers first. Where a run was stopped between them the next run writes the unit
again; should it come out differently (another device, another release), the answers that stand there are read instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hooks.answer_slab import SCOPES, AnswerSlab
from hooks.answered import Answered, answered_with
from hooks.backends.hf import HuggingFaceModel
from hooks.encode import Batch
from hooks.host_copy import Arriving, HostSlot, ToHost
from hooks.positions import Scope, scope_name
from hooks.prompt import Prompt, as_prompts
from hooks.slab import Slab
from stores import ActivationStore, ResultTable, Unit
from workbench.captures.blocks import Captured, Index, index_of
from workbench.captures.halving import in_parts, note_of, unit_of
from workbench.captures.plan import Kept, LinearEdits
from workbench.captures.seeding import seeded

ANSWERS = "answers"  # the folder of the table, inside the store's
REPEATED = "answers of an earlier run, read again: generation did not repeat them"
Answer = dict[str, Any]  # a row of the table: prompt_id, variant, text, token_ids (JSON), finished


@dataclass(frozen=True)
class Asked:
    """How answers are written. `sampling` is what `model.generate` takes; draws are seeded unit by unit, the same for
    every variant, so that a unit comes out the same whenever it is run (but not a prompt in another unit)."""

    scope: str
    max_new_tokens: int
    seed: int
    sampling: Mapping[str, Any]

    @classmethod
    def of(
        cls, responses: str, writing: Mapping[str, Any], scopes: Mapping[str, Scope], together: bool
    ) -> Asked | None:
        """None where responses are given. Raises ValueError or TypeError for what cannot be."""
        if responses not in ("given", "generate"):
            raise ValueError(f"responses {responses!r} is unknown: expected 'given' or 'generate'.")
        if responses == "given":
            if writing:
                raise TypeError(f"capture() has no argument {min(writing)!r}, unless responses='generate'.")
            return None
        scope = scopes.get("language")
        if set(scopes) != {"language"} or scope not in SCOPES:
            named = ", ".join(f"{tower} {scope_name(scope)!r}" for tower, scope in sorted(scopes.items()))
            raise ValueError(
                f"responses='generate' keeps what passes while the answer is written: expected sites of the language "
                f"stream at {' or '.join(map(repr, SCOPES))}, got {named}. The prompt itself is captured without it."
            )
        if together:
            raise ValueError("variants write answers of their own length: expected together=False with 'generate'.")
        options = dict(writing)
        longest, seed = options.pop("max_new_tokens", 64), options.pop("seed", 0)
        if longest < 1:
            raise ValueError(f"max_new_tokens={longest}: expected at least 1.")
        return cls(str(scope), longest, seed, options)

    def described(self) -> dict[str, Any]:
        return {"max_new_tokens": self.max_new_tokens, "seed": self.seed, **self.sampling}

    def seeded(self, unit: Unit, device: torch.device) -> AbstractContextManager[Any]:
        """Inside, torch draws from the seed of this unit; afterwards it goes on as if nothing had been drawn."""
        return seeded(f"{self.seed} {unit.key}", device) if self.sampling.get("do_sample") else nullcontext()


@dataclass
class _Part:
    """What one variant left of one unit: by stream [layer, n, d_model] and the index of the rows."""

    values: dict[str, Tensor]
    index: dict[str, Index]
    answers: list[Answer]


class Answering:
    """Captures units while their answers are written."""

    def __init__(
        self,
        model: HuggingFaceModel,
        kept: Sequence[Kept],
        variants: Sequence[str],
        edits: LinearEdits,
        asked: Asked,
        host: ToHost,
        batch_of: Callable[[Sequence[str]], Batch],
        store: ActivationStore,
    ) -> None:
        self._model, self._kept, self._variants, self._edits = model, kept, variants, edits
        self._asked, self._host, self._batch_of = asked, host, batch_of
        self._table = ResultTable.create(
            store.path / ANSWERS, spec=store.spec, plan=store.plan, provenance=store.provenance
        )
        left = {identifier for unit in store.missing() for identifier in unit.prompt_ids}
        rows = self._table.rows(prompt_id=lambda name: name in left) if len(self._table) else []
        self._before = {(row["prompt_id"], row["variant"]): row for row in rows}

    def __call__(self, unit: Unit, slot: HostSlot) -> Captured:
        pieces = in_parts(unit.prompt_ids, partial(self._unit, unit))
        parts = [by_variant[v] for v in range(len(self._variants)) for by_variant, _ in pieces]
        whole = len(pieces) == 1
        room = partial(self._host.room, slot) if whole else slot.room  # what came in pieces is on the host already
        values, index = {}, {}
        for kept in self._kept:
            of_stream = [part.values[kept.name] for part in parts]
            shape = (len(kept.sites), sum(one.shape[1] for one in of_stream), kept.stream.d_model)
            values[kept.name] = torch.cat(of_stream, dim=1, out=room(kept.name, shape, kept.dtype))
            index[kept.name] = _joined([part.index[kept.name] for part in parts])
        answers = [answer for part in parts for answer in part.answers]
        notes = dict.fromkeys(note for note in (note_of(pieces), *(note for _, note in pieces)) if note)
        arriving = self._host.send(slot, values) if whole else Arriving(values)
        return Captured(unit, arriving, index, answers, "; ".join(notes))

    def _unit(self, unit: Unit, ids: Sequence[str]) -> tuple[list[_Part], str]:
        """What each variant leaves of these prompts of the unit, and the note for its shard. In a part of a unit draws
        are seeded by the part."""
        batch, seed = self._batch_of(ids), unit_of(ids, unit)
        parts, note = [], ""
        for variant in self._variants:
            part = self._written(seed, batch, variant)
            before = [self._before.get((identifier, variant)) for identifier in ids]
            if all(before) and before != part.answers:
                part, note = self._read(batch, variant, before), REPEATED
            if len(ids) < len(unit.prompt_ids):
                part.values = {name: each.cpu() for name, each in part.values.items()}
            parts.append(part)
        return parts, note

    def commit(self, captured: Captured) -> None:
        """Seals the answers of a unit. Raises RuntimeError when another process has sealed others meanwhile."""
        if self._table.commit(captured.unit, captured.answers):
            return
        ids = set(captured.unit.prompt_ids)
        theirs = self._table.rows(prompt_id=lambda name: name in ids)
        if _by_place(theirs) != _by_place(captured.answers):
            raise RuntimeError(
                f"another process has sealed other answers to the prompts of unit {captured.unit.key!r}: expected the "
                "same ones. Run the same command again: it reads those."
            )

    def _written(self, unit: Unit, batch: Batch, variant: str) -> _Part:
        view, asked = self._model.variant(variant), self._asked
        steps, device = asked.max_new_tokens, self._model.device
        slabs = {
            kept.name: AnswerSlab(
                asked.scope, len(kept.sites), len(batch), steps, kept.stream.d_model, self._model.dtype, device
            )
            for kept in self._kept
        }
        keep = {site: slabs[kept.name].plane(n) for kept in self._kept for n, site in enumerate(kept.sites)}
        one = next(iter(slabs.values()))
        with asked.seeded(unit, device):
            out = view.generate(
                batch, keep, self._edits, must_edit=False, max_new_tokens=one.asks_for, **asked.sampling
            )
        ids = one.written(out.token_ids, out.finished)
        texts = self._model.tokenizer.batch_decode(ids, skip_special_tokens=True)
        values, index = {}, {}
        for kept in self._kept:
            picked = slabs[kept.name].picked(batch.encoded, ids, kept.pool.reduce)
            values[kept.name] = slabs[kept.name].kept(picked)
            index[kept.name] = Index(
                [batch.ids[row] for row in picked.row.tolist()],
                [variant] * len(picked),
                picked.position.numpy(),
                picked.token.numpy(),
            )
        answers = [
            {
                "prompt_id": identifier,
                "variant": variant,
                "text": text.strip(),
                "token_ids": json.dumps(written),
                # The token that is asked for beyond the limit may be the end: the answer was cut off all the same.
                "finished": end and len(written) < min(len(whole), steps),
            }
            for identifier, text, written, whole, end in zip(
                batch.ids, texts, ids, out.token_ids, out.finished, strict=True
            )
        ]
        return _Part(values, index, answers)

    def _read(self, batch: Batch, variant: str, answers: Sequence[Answer | None]) -> _Part:
        """The same rows by one forward over answers that are there."""
        ids = [json.loads(answer["token_ids"]) for answer in answers if answer is not None]
        rows = [answered_with(one, written) for one, written in zip(batch.encoded, ids, strict=True)]
        whole = self._model.encoder.collate(rows)
        slabs, keep = {}, {}
        for kept in self._kept:
            room = _on(self._model.device)
            slab = slabs[kept.name] = Slab(kept.pool, len(kept.sites), kept.stream.d_model, kept.dtype, room)
            slab.expect(whole.tokens, self._model.device)
            keep |= {site: slab.plane(n) for n, site in enumerate(kept.sites)}
        self._model.variant(variant).run(whole, keep, self._edits, logits=False, must_edit=False)
        return _Part(
            {name: slab.values for name, slab in slabs.items() if slab.values is not None},
            {name: index_of(slab, whole, [variant]) for name, slab in slabs.items()},
            [answer for answer in answers if answer is not None],
        )


def _on(device: torch.device) -> Any:
    return lambda shape, dtype: torch.empty(shape, dtype=dtype, device=device)


def _joined(parts: Sequence[Index]) -> Index:
    return Index(
        [identifier for part in parts for identifier in part.prompt_id],
        [variant for part in parts for variant in part.variant],
        np.concatenate([part.position for part in parts]),
        np.concatenate([part.token_id for part in parts]),
    )


def _by_place(answers: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, Any], dict[str, Any]]:
    return {(answer["prompt_id"], answer["variant"]): dict(answer) for answer in answers}


def with_answers(
    prompts: str | Path | Iterable[Prompt], store: ActivationStore | str | Path, variant: str | None = None
) -> list[Answered]:
    """The prompts with the answers that `capture(..., responses="generate")` stored, token by token: captured again
    they give the same rows, by one forward (teacher forcing) and up to rounding. `variant`: whose answers, where the
    store has several. Prompts without an answer yet are left out. Raises ValueError for a variant that did not write.
    """
    path = store.path if isinstance(store, ActivationStore) else Path(store)
    table = ResultTable.open(path / ANSWERS)
    writers = table.spec["variants"]
    if (variant or (writers[0] if len(writers) == 1 else None)) not in writers:
        raise ValueError(f"{path} has answers of {', '.join(writers)}: expected variant= one of them, got {variant!r}.")
    rows = {row["prompt_id"]: row for row in table.rows(variant=variant or writers[0])}
    out = []
    for prompt in as_prompts(prompts):
        if (row := rows.get(prompt.id)) is not None:
            facts: dict[str, Any] = {name: getattr(prompt, name) for name in Prompt.__dataclass_fields__}
            facts |= {"response": row["text"], "response_ids": tuple(json.loads(str(row["token_ids"])))}
            out.append(Answered(**facts))
    return out
