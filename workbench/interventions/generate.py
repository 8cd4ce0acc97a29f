"""Text under interventions: one answer a prompt, batched by length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hooks.backends.hf import HuggingFaceModel
from hooks.encoded_prompts import EncodedPrompts
from hooks.model import NothingEdited, untouched_rows
from hooks.prompt import Prompt, as_prompts
from stores.printed import Printed
from workbench.captures.halving import Place, in_parts
from workbench.captures.seeding import seeded
from workbench.interventions.cells import Intervention, combined
from workbench.progress import followed
from workbench.units import kinds_of, length_sorted


@dataclass(frozen=True)
class Completion(Printed):
    """One answer. `finished` is False where the token limit cut it off; `edited` is False where no position of this
    prompt was in the interventions' scope (a text prompt under `image`). `decoding` is the loop that wrote it, with the
    reason where it is not the one asked for."""

    prompt: Prompt
    text: str
    token_ids: tuple[int, ...]
    finished: bool
    edited: bool | None
    decoding: str = "dynamic"


def generate(
    model: HuggingFaceModel,
    prompts: str | Path | Iterable[Prompt],
    *interventions: Intervention,
    max_new_tokens: int = 64,
    max_tokens: int = 4096,
    decode: str = "dynamic",
    progress: bool = False,
    seed: int = 0,
    **sampling: Any,
) -> list[Completion]:
    """Answers under the interventions, in the order of the prompts; greedy unless `do_sample=True`, which draws from
    `seed` (and the ids of the prompts of a batch) and leaves torch's own generator as it was.

    `max_tokens` bounds a batch's padded prompt; a batch that the device has no memory for is answered in halves.
    `decode="graph"` replays one CUDA graph a token where that gives the same logits, `"static"` writes on a cache of
    fixed size; each `decoding` says what was done. Raises NothingEdited when the interventions touched no prompt at
    all.
    """
    listed = as_prompts(prompts)
    edits = combined(model, interventions)
    how = {"max_new_tokens": max_new_tokens, "decode": decode, **sampling}
    encoded = EncodedPrompts(model.encoder, listed)
    done: dict[int, Completion] = {}

    def written(places: Sequence[Place]) -> dict[int, Completion]:
        batch = model.encoder.collate(encoded.taken([place.at for place in places]), "left")
        drawn = f"{seed} {[place.id for place in places]}"
        with seeded(drawn, model.device) if sampling.get("do_sample") else nullcontext():
            out = model.generate(batch, edits=edits, must_edit=False, **how)
        untouched = set(untouched_rows(out.tallies))
        return {
            place.at: Completion(
                listed[place.at],
                out.texts[row],
                tuple(out.token_ids[row]),
                out.finished[row],
                row not in untouched if edits else None,
                out.decoding,
            )
            for row, place in enumerate(places)
        }

    units = length_sorted(encoded.lengths, max_tokens, kinds_of(model, listed, encoded.lengths))
    for unit in followed(units, "generate", show=progress):
        for part in in_parts([Place(i, listed[i].id) for i in unit], written):
            done |= part
    completions = [done[i] for i in range(len(listed))]
    if edits and not any(one.edited for one in completions):
        raise NothingEdited(
            "the interventions touched no position of any prompt: expected a scope that these prompts have. "
            "at='all' is one that every prompt has."
        )
    return completions
