"""capture: prompts through a model into a store, unit by unit: the loop that joins hooks and stores."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hooks.answered import PromptsAsWritten
from hooks.backends.hf import HuggingFaceModel
from hooks.host_copy import ToHost
from hooks.positions import Scope
from hooks.prompt import Prompt, as_prompts
from hooks.site import Site, parse_sites
from stores import ActivationStore, Unit, provenance
from workbench.actors import Ray, ray_asked, run_by_actors
from workbench.captures.answers import Answering, Asked
from workbench.captures.blocks import Captured
from workbench.captures.plan import kept_streams, refuse_empty, refuse_hidden, scopes_of, spec_of, variants_of
from workbench.captures.reading import Reading
from workbench.captures.size import announce, bytes_coming, in_bulk, refuse_full, rows_of, units_of, unwritten
from workbench.captures.writing import Writer
from workbench.interventions.cells import Intervention, combined
from workbench.parts import part_numbers, strewn
from workbench.progress import Progress
from workbench.sources import ModelSource, data_of, loaded, sent
from workbench.units import budget_on


def capture(
    model: HuggingFaceModel | ModelSource | str | Path,
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
    allow_nonfinite: bool = False,
    engine: str | Ray = "process",
    part: str | None = None,
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
    `pool="mean"` averages the scope in float32. A forward takes at most `max_tokens` padded tokens (default: 2,048 on a
    CPU, 8,192 on a GPU). A run that was stopped goes on from its last unit: one forward where `max_tokens` is given,
    else as many as take about a second, where little is kept of each. Prompts that are new to the store are added.

    `responses="generate"`: each variant writes an answer to every prompt, and its residuals are kept while it writes,
    at `at="response"` or `"answering"`, without a second forward. Further arguments go to the generation
    (`max_new_tokens=64`, `seed=0`, `do_sample`, `temperature`, ...). What was written is kept beside the residuals:
    `with_answers(prompts, store)` gives it back (see `workbench.captures.answers`).

    `part="2/3"` does the second third of the units alone (also "0/3" to "2/3", as job arrays count), in a folder that
    the parts share, or in one of its own (`wb.merge_stores` then). `engine="ray"` shares the units out among warm
    workers of a Ray cluster, which load the model themselves, so it is given by its folder or as a `ModelSource`;
    `wb.Ray(gpus=2)` says what a worker needs (see `workbench.actors`). Rows are the same bits whoever makes them.

    A unit that the device has no memory for is read in halves, which its shard states; NaN and infinity are refused
    (NotFinite says how many, and of which layers and prompts) unless `allow_nonfinite`: then each shard states them.

    Raises StoreMismatch when `to` holds something else; before anything is stored NothingEdited when the interventions
    could change no captured row, NoRows when a scope matches no position of any prompt, ValueError when the disk cannot
    hold what would come; UnitsFailed (Ray) at the end for units that failed every time.
    """
    asked = {"sites": sites, "at": at, "pool": pool, "variants": variants, "interventions": interventions}
    asked |= {"together": together, "responses": responses, "max_tokens": max_tokens, "part": part, **writing}
    asked |= {"allow_nonfinite": allow_nonfinite}
    name, cluster = f"capture {Path(to).name}", ray_asked(engine)
    part_numbers(part)  # refuses what is none, before a model is loaded
    if cluster is not None:
        asked |= {"model": sent(model), "prompts": data_of(prompts), "to": Path(to).absolute()}
        run_by_actors(Capturing, asked, cluster, name=name, progress=progress)
        return ActivationStore.open(to)
    work = Capturing(loaded(model), prompts, to=to, progress=progress, **asked)
    left, tokens = work.left(), work.tokens
    bar: dict[str, Any] = {"total": len(left), "done": 0, "unit": "batch"}
    if tokens is not None:
        every = sum(tokens.values())
        bar = {"total": every, "done": every - sum(tokens[key] for key in left), "unit": "token"}
    with Progress(name, **bar, show=progress) as shown, closing(work.run(left)) as running:
        for key in running:
            shown.update(1 if tokens is None else tokens[key])
    return work.store


class Capturing:
    """A capture made ready, as one process has it: its store is there, and `run` fills units of it."""

    def __init__(
        self,
        model: HuggingFaceModel | ModelSource,
        prompts: str | Path | Iterable[Prompt],
        *,
        sites: str | Site | Iterable[str | Site],
        at: Scope | Mapping[str, Scope],
        pool: str,
        variants: Sequence[str] | None,
        interventions: Sequence[Intervention],
        together: bool,
        responses: str,
        to: str | Path,
        max_tokens: int | None,
        allow_nonfinite: bool,
        part: str | None,
        progress: bool = False,
        **writing: Any,
    ) -> None:
        model = loaded(model)
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
        refuse_empty(model, kept, encoded.outlines, answered=asked is not None)
        lengths = [length + new_tokens for length in encoded.lengths]
        place = {prompt.id: i for i, prompt in enumerate(listed)}

        budget = max_tokens or budget_on(model.device)
        together = together and len(variants) > 1 and model.why_not_by_row(variants) is None
        rows = rows_of(model, kept, encoded.outlines, new_tokens)
        units = units_of(
            model, listed, kept, lengths, rows, variants=len(variants), together=together, max_tokens=max_tokens,
            answered=asked is not None,
        )  # fmt: skip

        coming = unwritten(to, list(place))
        left = [left for unit in units if (left := [i for batch in unit for i in batch if listed[i].id in coming])]
        _, of = part_numbers(part)
        nbytes = bytes_coming(kept, left, rows, len(variants)) // of
        tokens = len(variants) * sum(lengths[i] for unit in left for i in unit) // of
        announce(f"capture {Path(to).name}", nbytes, tokens, asked is not None, progress)
        if asked is None:  # answers may be shorter than they may be: nobody knows before
            refuse_full(to, nbytes)

        self._streams = [part.stream for part in kept]
        self.store = ActivationStore.create(
            to,
            streams=self._streams,
            prompts=[prompt.record() for prompt in listed],
            plan=[Unit.of(*([listed[i].id for i in batch] for batch in unit)) for unit in units],
            spec={
                **spec_of(model, variants, scopes, pool, interventions),
                **({"together": True} if together else {}),
                **({} if asked is None else {"responses": asked.described()}),
                **({"allow_nonfinite": True} if allow_nonfinite else {}),
            },
            provenance=provenance.collect(**model.facts),
            bulk=in_bulk(nbytes, tokens),
        )
        self._units = {unit.key: unit for unit in self.store.plan}
        self._mine = set(strewn(list(self._units), part))
        self._asked_for = place.keys()
        self.tokens: dict[str, int] | None = None
        """of each unit of this part, over the variants; None where answers are written, which may be short"""
        if asked is None:
            self.tokens = {
                key: sum(lengths[place[name]] for name in self._units[key].prompt_ids if name in place) * len(variants)
                for key in self._mine
            }

        def batch_of(ids: Sequence[str]) -> Any:
            return model.encoder.collate(encoded.taken([place[identifier] for identifier in ids]))

        self._host = ToHost(model.device)
        self._answering: Answering | None = None
        if asked is None:
            self._work: Any = Reading(model, kept, variants, edits, together, self._host, batch_of, budget)
        else:
            self._work = self._answering = Answering(
                model, kept, variants, edits, asked, self._host, batch_of, self.store
            )

    @property
    def planned(self) -> int:
        return len(self._mine)

    def left(self) -> list[str]:
        """Units of this part that hold prompts which were asked for and have no shard. Raises ValueError where such a
        unit holds others as well."""
        missing = [unit for unit in self.store.missing() if not self._asked_for.isdisjoint(unit.prompt_ids)]
        if others := {name for unit in missing for name in unit.prompt_ids} - self._asked_for:
            raise ValueError(
                f"{self.store.path} was begun with more prompts, and its unfinished units hold {len(others)} that did "
                f"not come (first: {min(others)!r}): give them all, or another folder."
            )
        return [unit.key for unit in missing if unit.key in self._mine]

    def run(self, keys: Sequence[str]) -> Generator[str, None, None]:
        """Captures these units; a key comes when its forwards are done, and its rows are on their way to the disk."""
        with Writer(self._write, self._host.slots()) as writer:
            for key in keys:
                slot = writer.free_slot()
                writer.put(slot, self._work(self._units[key], slot))
                yield key

    def _write(self, captured: Captured) -> None:
        if self._answering is not None:
            self._answering.commit(captured)
        self.store.commit(captured.unit, captured.blocks(self._streams), captured.note)
