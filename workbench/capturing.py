"""capture: prompts through a model into a store, unit by unit: the loop that joins hooks and stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hooks.adapter_rows import RowsUnknown
from hooks.backends.hf import HuggingFaceModel
from hooks.edits import LowRankEdit
from hooks.encode import Batch
from hooks.model import NothingEdited, Where
from hooks.pool import Pool
from hooks.positions import Scope, Tokens, checked_scope, scope_name
from hooks.prompt import Prompt, as_prompts
from hooks.site import Site, parse_sites
from stores import ActivationStore, Block, Stream, Unit, provenance
from workbench.interventions.cells import Intervention, combined
from workbench.progress import followed
from workbench.units import kinds_of, length_sorted

LinearEdits = Mapping[Site, Sequence[LowRankEdit]]
CAPTURE_VERSION = 1  # raised when the same arguments would give other numbers


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
    to: str | Path,
    max_tokens: int = 4096,
    progress: bool = True,
) -> ActivationStore:
    """Residuals of every prompt at `sites` and at the token scope `at`, in a store under `to`.

    `variants` (default: the model's own) captures base and fine-tuned on the same batches, so that rows pair exactly.
    Inside a vision tower only the scopes `image` and `all` have meaning: `at={"language": "last", "vision": "image"}`.
    With `together` the variants are rows of one forward instead, the base weights read once for all (for many adapters,
    or short units); `max_tokens` counts all rows. The numbers then agree with single forwards up to rounding, and pairs
    that nothing changed need not be equal to the bit. Adapters that cannot act row by row (DoRA, whole modules of their
    own), and units with a layer whose rows cannot be told apart, go one variant at a time all the same.
    `pool="mean"` averages the scope in float32. A run that was stopped goes on from its last unit (of at most
    `max_tokens` padded tokens); prompts that are new to the store are added. Raises StoreMismatch when `to` holds
    something else, NothingEdited, before anything is stored, when the interventions could change no captured row.
    """
    listed = as_prompts(prompts)
    wanted = parse_sites(sites, n_layers=model.depths)
    scopes = {tower: _scope_of(at, tower) for tower in {site.tower for site in wanted}}
    _refuse_nothing_to_see(wanted, scopes, listed)
    variants = _variants(model, variants)
    together = together and len(variants) > 1 and model.why_not_by_row(variants) is None
    pools = {site: _Kept(Pool(scopes[site.tower], pool)) for site in wanted}
    edits = combined(model, interventions)
    lengths = _lengths(model, listed, wanted, edits)
    streams = [
        _stream(model, [site for site in wanted if site.stream == name], pool, listed)
        for name in dict.fromkeys(site.stream for site in wanted)
    ]
    spec = {
        "capture": CAPTURE_VERSION,
        "model": model.identity["model"],
        "identity": model.identity,
        "n_layers": model.n_layers,
        "variants": list(variants),
        "scope": ", ".join(
            scope_name(scope) if len(scopes) == 1 else f"{tower} {scope_name(scope)}"
            for tower, scope in sorted(scopes.items())
        ),
        "pool": pool,
        "interventions": [intervention.describe() for intervention in interventions],
        **({"together": True} if together else {}),
    }
    store = ActivationStore.create(
        to,
        streams=streams,
        prompts=[prompt.record() for prompt in listed],
        plan=_plan(model, listed, lengths, max_tokens // (len(variants) if together else 1)),
        spec=spec,
        provenance=provenance.collect(**model.facts),
    )
    by_id = {prompt.id: prompt for prompt in listed}
    missing = [unit for unit in store.missing() if not by_id.keys().isdisjoint(unit.prompt_ids)]
    if others := {identifier for unit in missing for identifier in unit.prompt_ids} - by_id.keys():
        raise ValueError(
            f"{to} was begun with more prompts, and its unfinished units hold {len(others)} that did not come (first: "
            f"{min(others)!r}): give them all, or another folder."
        )
    for unit in followed(missing, f"capture {Path(to).name}", show=progress):
        batch = model.encode([by_id[identifier] for identifier in unit.prompt_ids])
        # Text alone does not pass the vision tower: such a unit has no rows there.
        seen = {site: keep for site, keep in pools.items() if site.tower == "language" or batch.image_rows}
        blocks: dict[str, list[Block]] = {stream.name: [] for stream in streams}
        for kept, of_rows in _forwards(model, variants, batch, seen, edits, together):
            for stream in streams:
                blocks[stream.name].append(_block(stream, kept, pools, batch, of_rows))
        store.commit(unit, {stream.name: _joined(stream, blocks[stream.name]) for stream in streams})
    return store


def _refuse_nothing_to_see(wanted: Sequence[Site], scopes: Mapping[str, Scope], prompts: Sequence[Prompt]) -> None:
    projected = any(site.point == "projector" for site in wanted)
    if ("vision" in scopes or projected) and not any(prompt.images for prompt in prompts):
        raise ValueError(
            "vision sites are asked for, but no prompt has an image: leave them out, or give such prompts."
        )
    if projected and scopes["language"] not in ("image", "all"):
        raise ValueError(
            f"scope {scope_name(scopes['language'])!r} has no position of the projector's output: expected 'image' or "
            "'all'. Capture other sites of the language stream into a store of their own."
        )


@dataclass
class _Kept:
    """A Pool that remembers which tokens it saw: inside a tower only the forward knows."""

    pool: Pool
    tokens: Tokens | None = None

    def __call__(self, resid: Tensor, where: Where) -> Tensor | None:
        self.tokens = where.tokens
        return self.pool(resid, where)


def _variants(model: HuggingFaceModel, variants: Sequence[str] | None) -> tuple[str, ...]:
    if variants is None and isinstance(model.active, tuple):
        raise ValueError("this model gives each row its own variant: expected variants=..., which all prompts pass.")
    listed = tuple(variants or (str(model.active or "base"),))
    for variant in listed:
        model.variant(variant)  # refuses one that is not loaded
    return listed


def _forwards(
    model: HuggingFaceModel,
    variants: Sequence[str],
    batch: Batch,
    seen: Mapping[Site, _Kept],
    edits: LinearEdits,
    together: bool,
) -> Iterator[tuple[Mapping[Site, Tensor], Sequence[str]]]:
    """What is kept of one unit, with the variants that its rows belong to, variant by variant."""
    if not seen:
        return
    if together:
        view, rows = model.across(batch, variants)
        try:
            kept = view.run(rows, seen, edits, logits=False, must_edit=False).kept
        except RowsUnknown:
            pass
        else:
            yield kept, variants
            return
    for variant in variants:
        yield model.variant(variant).run(batch, seen, edits, logits=False, must_edit=False).kept, [variant]


def _scope_of(at: Scope | Mapping[str, Scope], tower: str) -> Scope:
    if isinstance(at, Mapping) and tower not in at:
        raise ValueError(f"at={dict(at)} gives no scope for the {tower} tower, whose sites are asked for.")
    scope = checked_scope(at[tower] if isinstance(at, Mapping) else at)
    if tower == "vision" and scope not in ("image", "all"):
        raise ValueError(
            f"scope {scope_name(scope)!r} has no meaning inside the vision tower: expected 'image' or 'all', as in "
            "at={'language': 'last', 'vision': 'image'}."
        )
    return scope


def _lengths(
    model: HuggingFaceModel, prompts: Sequence[Prompt], wanted: Sequence[Site], edits: LinearEdits
) -> list[int]:
    """Tokens of every prompt. Refuses interventions that cannot show: behind every captured site, or in the scope of no
    prompt."""
    lengths, scopes = [], {scope for listed in edits.values() for edit in listed for scope in edit.scopes}
    shown = any(_depth(site) <= _depth(seen) for site in edits for seen in wanted if seen.tower == "language")
    touched = False
    for prompt in prompts:
        one = model.encoder.encode(prompt)
        lengths.append(len(one))
        touched = touched or any(bool(model.encoder.collate([one]).tokens.mask(scope).any()) for scope in scopes)
    if edits and not (shown and touched):
        why = "touched no position of any prompt" if shown else "act behind every captured site"
        raise NothingEdited(
            f"the interventions of this capture {why}: expected a scope that the prompts have, and sites at or behind "
            "the first edit."
        )
    return lengths


def _depth(site: Site) -> tuple[int, bool]:
    return site.layer, site.point == "resid_post"


def _plan(model: HuggingFaceModel, prompts: Sequence[Prompt], lengths: Sequence[int], max_tokens: int) -> list[Unit]:
    units = length_sorted(lengths, max_tokens, kinds_of(model, prompts, lengths))
    return [Unit.of([prompts[i].id for i in unit]) for unit in units]


def _stream(model: HuggingFaceModel, sites: Sequence[Site], pool: str, prompts: Sequence[Prompt]) -> Stream:
    width = model.d_model
    if sites[0].tower == "vision":  # configs name a tower's width in several ways, so a picture is sent through
        pictured = model.encode([next(prompt for prompt in prompts if prompt.images)])
        width = model.variant("base").run(pictured, {sites[0]: Pool("all")}, logits=False).kept[sites[0]].shape[-1]
    dtype = "float32" if pool == "mean" else str(model.dtype).removeprefix("torch.")
    return Stream(sites[0].stream, tuple(site.layer for site in sites), width, dtype)


def _block(
    stream: Stream, kept: Mapping[Site, Tensor], pools: Mapping[Site, _Kept], batch: Batch, variants: Sequence[str]
) -> Block:
    """The rows of one forward, its variants one after the other: [layer, row, d_model] and, for every row, its prompt,
    variant, position and token."""
    sites = [Site.parse(name) for name in stream.sites]
    if sites[0] not in kept:
        return _nothing(stream)
    values = torch.stack([kept[site] for site in sites])
    tokens = pools[sites[0]].tokens
    assert tokens is not None
    row, position, token = (index.cpu() for index in pools[sites[0]].pool.index(tokens))
    # In a tower rows are pictures, each of a row of the batch.
    owner = torch.arange(len(tokens.position)) if tokens.owner is None else tokens.owner.cpu()
    if tokens.patches:
        position = _counted_on(position, row, owner, (tokens.position >= 0).sum(dim=1).cpu())
    of_batch: list[int] = owner[row].tolist()
    return Block(
        _array(values),
        [batch.ids[r % len(batch)] for r in of_batch],
        [variants[r // len(batch)] for r in of_batch],
        position.numpy(),
        token.numpy(),
    )


def _nothing(stream: Stream) -> Block:
    dtype = np.uint16 if stream.dtype == "bfloat16" else stream.dtype
    empty = np.zeros((len(stream.layers), 0, stream.d_model), dtype)
    return Block(empty, [], [], np.zeros(0, np.int64), np.zeros(0, np.int64))


def _counted_on(position: Tensor, row: Tensor, owner: Tensor, patches: Tensor) -> Tensor:
    """Positions in which a prompt's second picture goes on counting where its first one ended; of pooled pictures
    (position -1) the pictures themselves are counted."""
    size = patches if bool((position >= 0).all()) else torch.ones_like(patches)
    before = torch.tensor([int(size[:r][owner[:r] == owner[r]].sum()) for r in range(len(owner))])
    return before[row] + position.clamp_min(0)


def _array(values: Tensor) -> np.ndarray:
    values = values.cpu()
    return values.view(torch.uint16).numpy() if values.dtype == torch.bfloat16 else values.numpy()


def _joined(stream: Stream, blocks: Sequence[Block]) -> Block:
    if not blocks:
        return _nothing(stream)
    return Block(
        values=np.concatenate([block.values for block in blocks], axis=1),
        prompt_id=[identifier for block in blocks for identifier in block.prompt_id],
        variant=[variant for block in blocks for variant in block.variant],
        position=np.concatenate([block.position for block in blocks]),
        token_id=np.concatenate([block.token_id for block in blocks]),
    )
