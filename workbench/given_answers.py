"""capture_answers: the residuals of many fine-tunes, each reading the answers that it wrote itself, in one store.

Paper B keeps the residual at the output of every block for each token of an answer (arXiv 2602.00298, its released
code). Here an answer is one row a site: the mean over its tokens, taken on the device. Of 33 fine-tunes with 28 blocks
and width 3,584 and 1,000 answers each that is 13 GB; every one of 400 tokens would be 5 TB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hooks.answered import Answered, answered_with
from hooks.backends.hf import HuggingFaceModel
from hooks.encoded import Encoded
from hooks.encoded_prompts import EncodedPrompts
from hooks.host_copy import HostSlot, ToHost
from hooks.positions import Scope
from hooks.prompt import Prompt, as_prompts
from hooks.site import Site, parse_sites
from hooks.slab import Slab
from stores import ActivationStore, NoRows, Unit, content_key, provenance
from workbench.captures.blocks import Captured, Index
from workbench.captures.halving import SPLIT, in_parts
from workbench.captures.plan import Kept, kept_streams, scopes_of, spec_of, variants_of
from workbench.captures.writing import Writer
from workbench.progress import followed
from workbench.units import budget_on, kinds_of, length_sorted

IN_MEMORY = 2**31  # bytes of a unit's rows, which are held until the whole unit is there
MOST = 128  # answers of each variant in one unit, beside each other in the store: about a chunk
Ids = tuple[int, ...]


def capture_answers(
    model: HuggingFaceModel,
    prompts: str | Path | Iterable[Prompt],
    answers: Iterable[Mapping[str, Any]],
    *,
    variants: Sequence[str] | None = None,
    reader: str | None = None,
    sites: str | Site | Iterable[str | Site] = "resid_post",
    at: Scope = "response",
    to: str | Path,
    max_tokens: int | None = None,
    progress: bool = True,
) -> ActivationStore:
    """One row a site for each answer of each variant: the mean of the residuals over the tokens in the scope `at`.

    `answers` are rows of `wb.sample_answers` (`table.rows()`, or `judged.rows`) to these prompts, `variants` the
    conditions whose answers are read (default: all), each by the adapter that wrote them. With `reader="base"` the base
    reads them all instead: what then tells answers apart is in the text, not in the adapter. The tokens are those that
    were sampled, never the text encoded again; equal answers are read once. The third answer to "q1" has the prompt id
    "q1#2" in the store, the tag `asked` "q1", and its question's family (tag `family` or `question`; else the id of the
    question). Empty answers have no row. A run that was stopped goes on.

    Raises ValueError for conditions that are not a loaded variant as it is (or were asked through an endpoint), answers
    to other prompts, and scopes of a vision tower; StoreMismatch when `to` holds something else.
    """
    asked = {prompt.id: prompt for prompt in as_prompts(prompts)}
    written = _written(answers, variants, asked)
    names = variants_of(model, list(written))
    wanted = parse_sites(sites, n_layers=model.depths)
    if any(site.tower != "language" for site in wanted):
        raise ValueError("an answer is read in the language stream: expected no sites of a vision tower.")
    listed = list(asked.values())
    kept = kept_streams(model, wanted, scopes_of(at, wanted, listed), "mean", listed)
    ids = sorted({key for mine in written.values() for key in mine})
    records = {key: _named(asked[key[0]], key[1]) for key in ids}
    place = {prompt.id: i for i, prompt in enumerate(listed)}
    size = sum(4 * len(part.sites) * part.stream.d_model for part in kept) * len(names)
    each = max(1, min(MOST, IN_MEMORY // size))
    store = ActivationStore.create(
        to,
        streams=[part.stream for part in kept],
        prompts=[record.record() for record in records.values()],
        plan=[Unit.of([records[key].id for key in ids[n : n + each]]) for n in range(0, len(ids), each)],
        spec={
            **spec_of(model, names, {"language": at}, "mean", ()),
            "answers": content_key([[name, *key, mine[key]] for name, mine in written.items() for key in sorted(mine)]),
            "reader": reader or "each its own",
        },
        provenance=provenance.collect(**model.facts),
    )
    host = ToHost(model.device)
    encoded = EncodedPrompts(model.encoder, listed)
    reading = _Reading(model, kept, encoded, host, reader, max_tokens or budget_on(model.device))
    of_id = {records[key].id: key for key in ids}

    def rows_of(unit: Unit) -> list[_Row]:
        keys = [(one, of_id[one]) for one in unit.prompt_ids]
        return [
            _Row(one, name, place[key[0]], written[name][key])
            for name in names for one, key in keys if written[name].get(key)
        ]  # fmt: skip

    def write(captured: Captured) -> None:
        store.commit(captured.unit, captured.blocks([part.stream for part in kept]), captured.note)

    with Writer(write, host.slots(2)) as writer:
        for unit in followed(store.missing(), f"answers {Path(to).name}", show=progress):
            slot = writer.free_slot()
            writer.put(slot, reading(unit, rows_of(unit), slot))
    return store


def rows_by_variant(store: ActivationStore) -> dict[str, Any]:
    """The rows of each variant that has some; where all its answers were empty it has none."""
    try:
        names = dict.fromkeys(store.rows().variants)
    except NoRows:
        return {}
    return {name: store.where(variant=name) for name in names}


def longest_answers(prompts: str | Path | Iterable[Prompt], sampling: Mapping[str, Any]) -> list[Prompt]:
    """What `capture_answers` would read at most, for --dry-run: each prompt's samples, as long as they may be
    (`samples` and `max_new_tokens` of `wb.sample_answers`)."""
    ids = (0,) * int(sampling["max_new_tokens"])
    out: list[Prompt] = []
    for prompt in as_prompts(prompts):
        facts = {name: getattr(prompt, name) for name in Prompt.__dataclass_fields__}
        out += [
            Answered(**{**facts, "id": f"{prompt.id}#{n}", "response": "?", "response_ids": ids})
            for n in range(int(sampling["samples"]))
        ]
    return out


@dataclass(frozen=True)
class _Row:
    """One answer: its id in the store, who wrote it, the place of its question, its tokens."""

    id: str
    variant: str
    prompt: int
    ids: Ids


class _Reading:
    """Units of answers, read by the variants that wrote them, or by one reader."""

    def __init__(
        self,
        model: HuggingFaceModel,
        kept: Sequence[Kept],
        encoded: EncodedPrompts,
        host: ToHost,
        reader: str | None,
        max_tokens: int,
    ) -> None:
        self._model, self._kept, self._encoded, self._host = model, kept, encoded, host
        self._reader, self._max_tokens = reader, max_tokens

    def __call__(self, unit: Unit, rows: Sequence[_Row], slot: HostSlot) -> Captured:
        room = {
            part.name: self._host.room(slot, part.name, (len(part.sites), len(rows), part.stream.d_model), part.dtype)
            for part in self._kept
        }
        readers: dict[str, dict[tuple[int, Ids], list[int]]] = {}  # equal answers are one text with several rows
        for n, row in enumerate(rows):
            texts = readers.setdefault(self._reader or row.variant, {})
            texts.setdefault((row.prompt, row.ids), []).append(n)
        split = sum(self._read(self._model.variant(reader), texts, room) for reader, texts in readers.items())
        absent = np.full(len(rows), -1, np.int64)
        index = Index([row.id for row in rows], [row.variant for row in rows], absent, absent)
        sent = self._host.send(slot, room)
        return Captured(unit, sent, {part.name: index for part in self._kept}, note=SPLIT if split else "")

    def _read(
        self, view: HuggingFaceModel, texts: Mapping[tuple[int, Ids], list[int]], room: Mapping[str, Tensor]
    ) -> int:
        """Returns in how many parts, more than there are batches where the device's memory did not hold one."""
        read: list[Encoded] = [answered_with(self._encoded[prompt], ids) for prompt, ids in texts]
        owners = list(texts.values())
        lengths = [len(one) for one in read]
        device = self._model.device

        def pass_of(some: Sequence[int]) -> None:
            batch = self._model.encoder.collate([read[i] for i in some])
            slabs, keep = {}, {}
            for part in self._kept:
                slabs[part.name] = slab = Slab(part.pool, len(part.sites), part.stream.d_model, part.dtype, _on(device))
                slab.expect(batch.tokens, device)
                keep |= {site: slab.plane(n) for n, site in enumerate(part.sites)}
            view.run(batch, keep, logits=False)
            source = torch.tensor([k for k, i in enumerate(some) for _ in owners[i]], device=device)
            target = torch.tensor([n for i in some for n in owners[i]], device=device)
            for name, slab in slabs.items():
                assert slab.values is not None and slab.picked is not None
                if len(slab.picked) != len(some):
                    lost = len(some) - len(slab.picked)
                    raise ValueError(f"{lost} answers have no token in this scope: expected 'response', for one.")
                room[name].index_copy_(1, target, slab.values.index_select(1, source))

        units = length_sorted(lengths, self._max_tokens, kinds_of(self._model, read, lengths))
        return sum(len(in_parts(some, pass_of, "answer")) for some in units) - len(units)


def _written(
    answers: Iterable[Mapping[str, Any]], variants: Sequence[str] | None, asked: Mapping[str, Prompt]
) -> dict[str, dict[tuple[str, int], Ids]]:
    """Condition -> (prompt, sample) -> the tokens of the answer, without the one that ended it."""
    out: dict[str, dict[tuple[str, int], Ids]] = {} if variants is None else {name: {} for name in variants}
    for row in answers:
        name, key = str(row["condition"]), (str(row["prompt"]), int(row["sample"]))
        if variants is not None and name not in out:
            continue
        if key[0] not in asked:
            raise ValueError(
                f"an answer of {name!r} is to {key[0]!r}: expected answers to the {len(asked)} prompts given."
            )
        edited = row.get("edited") is not None
        if edited or row.get("token_ids") is None or row.get("variant", name) != name:
            raise ValueError(
                f"condition {name!r} is no variant as it is (but an endpoint's, or one with interventions): expected "
                "answers whose tokens are known, sampled from a variant by its name."
            )
        ids = [int(one) for one in str(row["token_ids"]).split()]
        out.setdefault(name, {})[key] = tuple(ids[:-1] if row.get("finished") else ids)
    if empty := [name for name, mine in out.items() if not mine]:
        raise ValueError(f"there are no answers of {', '.join(empty)}: expected some of every variant.")
    if not out:
        raise ValueError("there are no answers: expected rows of wb.sample_answers.")
    return out


def _named(prompt: Prompt, sample: int) -> Prompt:
    """One answer's prompt as the store knows it: an id of its own, and the family of its question."""
    family = {} if {"family", "question"} & set(prompt.tags) else {"family": prompt.id}
    return replace(
        prompt, id=f"{prompt.id}#{sample}", tags={**prompt.tags, **family, "asked": prompt.id, "sample": sample}
    )


def _on(device: torch.device) -> Any:
    return lambda shape, dtype: torch.empty(shape, dtype=dtype, device=device)
