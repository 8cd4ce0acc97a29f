"""capture: prompts through a model into a store, unit by unit: the loop that joins hooks and stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hooks.answered import PromptsAsWritten
from hooks.backends.hf import HuggingFaceModel
from hooks.host_copy import ToHost
from hooks.positions import Scope
from hooks.prompt import Prompt, as_prompts
from hooks.site import Site, parse_sites
from stores import ActivationStore, Unit, provenance
from workbench.captures.answers import Answering, Asked
from workbench.captures.blocks import Captured
from workbench.captures.plan import kept_streams, refuse_hidden, scopes_of, spec_of, variants_of
from workbench.captures.reading import Reading
from workbench.captures.size import announce, bytes_coming, in_bulk, refuse_full, rows_of, unwritten
from workbench.captures.writing import Writer
from workbench.interventions.cells import Intervention, combined
from workbench.progress import followed
from workbench.units import budget_on, kinds_of, length_sorted


def capture(
    model: HuggingFaceModel,
    prompts: str | Path | Iterable[Prompt],
    *,
    sites: str | Site | Iterable[str | Site] = "resid_post",
    at: Scope | Mapping[str, Scope] = "last",
    pool: str = "none",
    variants: Sequence[str] | None = None,
    interventions: Sequence[Intervention] = (),
    together: bool = False,
    responses: str = "given",
    to: str | Path,
    max_tokens: int | None = None,
    progress: bool = True,
    **writing: Any,
) -> ActivationStore:
    """Residuals of every prompt at `sites` and at the token scope `at`, in a store under `to`.

    `variants` (default: the model's own) captures base and fine-tuned on the same batches, so that rows pair exactly.
    Inside a vision tower only the scopes `image` and `all` have meaning: `at={"language": "last", "vision": "image"}`.
    With `together` the variants are rows of one forward instead, the base weights read once for all (for many adapters,
    or short units); `max_tokens` counts all rows, and a prompt too long for all variants takes as many forwards as that
    needs. The numbers then agree with single forwards up to rounding, and pairs
    that nothing changed need not be equal to the bit. Adapters that cannot act row by row (DoRA, whole modules of their
    own), and units with a layer whose rows cannot be told apart, go one variant at a time all the same.
    `pool="mean"` averages the scope in float32. A run that was stopped goes on from its last unit (of at most
    `max_tokens` padded tokens; default: 2,048 on a CPU, 8,192 on a GPU); prompts that are new to the store are added.

    `responses="generate"`: each variant writes an answer to every prompt, and its residuals are kept while it writes,
    at `at="response"` or `"answering"`, without a second forward. Further arguments go to the generation
    (`max_new_tokens=64`, `seed=0`, `do_sample`, `temperature`, ...). What was written is kept beside the residuals:
    `with_answers(prompts, store)` gives it back (see `workbench.captures.answers`).

    Raises StoreMismatch when `to` holds something else, NothingEdited, before anything is stored, when the
    interventions could change no captured row, ValueError when the disk cannot hold what would come.
    """
    listed = as_prompts(prompts)
    wanted = parse_sites(sites, n_layers=model.depths)
    scopes = scopes_of(at, wanted, listed)
    variants = variants_of(model, variants)
    asked = Asked.of(responses, writing, scopes, together)
    new_tokens = 0 if asked is None else asked.max_new_tokens
    kept = kept_streams(model, wanted, scopes, pool, listed)
    edits = combined(model, interventions)
    encoded = PromptsAsWritten(model.encoder, listed, answers=asked is None)
    refuse_hidden(model, encoded.outlines, wanted, edits, answered=asked is not None)
    lengths = [length + new_tokens for length in encoded.lengths]
    place = {prompt.id: i for i, prompt in enumerate(listed)}
    name = f"capture {Path(to).name}"

    budget = max_tokens or budget_on(model.device)
    together = together and len(variants) > 1 and model.why_not_by_row(variants) is None
    rows_a_prompt = len(variants) if together else 1
    units = length_sorted(lengths, budget // rows_a_prompt, kinds_of(model, listed, lengths))

    coming = unwritten(to, list(place))
    left = [unit for unit in ([i for i in unit if listed[i].id in coming] for unit in units) if unit]
    rows = rows_of(model, kept, encoded.outlines, new_tokens)
    nbytes = bytes_coming(kept, left, rows, len(variants))
    tokens = len(variants) * sum(lengths[i] for unit in left for i in unit)
    announce(name, nbytes, tokens, asked is not None, progress)
    if asked is None:  # answers may be shorter than they may be: nobody knows before
        refuse_full(to, nbytes)

    streams = [part.stream for part in kept]
    store = ActivationStore.create(
        to,
        streams=streams,
        prompts=[prompt.record() for prompt in listed],
        plan=[Unit.of([listed[i].id for i in unit]) for unit in units],
        spec={
            **spec_of(model, variants, scopes, pool, interventions),
            **({"together": True} if together else {}),
            **({} if asked is None else {"responses": asked.described()}),
        },
        provenance=provenance.collect(**model.facts),
        bulk=in_bulk(nbytes, tokens),
    )
    missing = [unit for unit in store.missing() if not place.keys().isdisjoint(unit.prompt_ids)]
    if others := {identifier for unit in missing for identifier in unit.prompt_ids} - place.keys():
        raise ValueError(
            f"{to} was begun with more prompts, and its unfinished units hold {len(others)} that did not come (first: "
            f"{min(others)!r}): give them all, or another folder."
        )

    def batch_of(ids: Sequence[str]) -> Any:
        return model.encoder.collate(encoded.taken([place[identifier] for identifier in ids]))

    host = ToHost(model.device)
    if asked is None:
        work: Any = Reading(model, kept, variants, edits, together, host, batch_of, budget)
    else:
        work = Answering(model, kept, variants, edits, asked, host, batch_of, store)

    def write(captured: Captured) -> None:
        if asked is not None:
            work.commit(captured)
        store.commit(captured.unit, captured.blocks(streams), captured.note)

    per_unit = [sum(lengths[place[identifier]] for identifier in unit.prompt_ids) * len(variants) for unit in missing]
    done = sum(lengths) * len(variants) - sum(per_unit)
    with Writer(write, host.slots()) as writer:
        for unit in followed(missing, name, show=progress, tokens=None if asked else per_unit, done=done):
            slot = writer.free_slot()
            writer.put(slot, work(unit, slot))
    return store
