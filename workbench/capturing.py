"""capture: prompts through a model into a store, unit by unit: the loop that joins hooks and stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hooks.backends.hf import HuggingFaceModel
from hooks.edits import LowRankEdit
from hooks.encode import Batch
from hooks.model import Keep, NothingEdited
from hooks.pool import Pool
from hooks.positions import Scope, Tokens, checked_scope, scope_name
from hooks.prompt import Prompt, as_prompts
from hooks.site import Site, parse_sites
from stores import ActivationStore, Block, Stream, Unit, provenance
from workbench.interventions.cells import Intervention, combined
from workbench.progress import followed
from workbench.units import length_sorted

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
    to: str | Path,
    max_tokens: int = 4096,
    progress: bool = True,
) -> ActivationStore:
    """Residuals of every prompt at `sites` and at the token scope `at`, in a store under `to`.

    `variants` (default: the model's own) captures base and fine-tuned on the same batches, so that rows pair exactly.
    Inside a vision tower only the scopes `image` and `all` have meaning: `at={"language": "last", "vision": "image"}`.
    `pool="mean"` averages the scope in float32. A run that was stopped goes on from its last unit (of at most
    `max_tokens` padded tokens); prompts that are new to the store are added. Raises StoreMismatch when `to` holds
    something else, NothingEdited, before anything is stored, when the interventions could change no captured row.
    """
    listed = as_prompts(prompts)
    wanted = parse_sites(sites, n_layers=model.depths)
    scopes = {tower: _scope_of(at, tower) for tower in {site.tower for site in wanted}}
    if "vision" in scopes and not any(prompt.images for prompt in listed):
        raise ValueError(
            "vision sites are asked for, but no prompt has an image: leave them out, or give such prompts."
        )
    variants = tuple(variants or (model.active or "base",))
    views = [model.variant(variant) for variant in variants]
    pools: dict[Site, Keep] = {site: Pool(scopes[site.tower], pool) for site in wanted}
    edits = combined(model, interventions)
    lengths = _lengths(model, listed, wanted, edits)
    streams = [
        _stream(model, [site for site in wanted if site.stream == name], pool)
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
    }
    store = ActivationStore.create(
        to,
        streams=streams,
        prompts=[prompt.record() for prompt in listed],
        plan=_plan(listed, lengths, max_tokens),
        spec=spec,
        provenance=provenance.collect(model=model.identity),
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
        for view, variant in zip(views, variants, strict=True):
            kept = view.run(batch, seen, edits, logits=False, must_edit=False).kept if seen else {}
            for stream in streams:
                blocks[stream.name].append(_block(stream, kept, pools, batch, variant))
        store.commit(unit, {name: _joined(parts) for name, parts in blocks.items()})
    return store


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


def _plan(prompts: Sequence[Prompt], lengths: Sequence[int], max_tokens: int) -> list[Unit]:
    units = length_sorted(lengths, max_tokens, [bool(prompt.images) for prompt in prompts])
    return [Unit.of([prompts[i].id for i in unit]) for unit in units]


def _stream(model: HuggingFaceModel, sites: Sequence[Site], pool: str) -> Stream:
    tower = sites[0].tower
    config: Any = model.module.config
    width: int = model.d_model if tower == "language" else config.vision_config.hidden_size
    dtype = "float32" if pool == "mean" else str(model.dtype).removeprefix("torch.")
    return Stream(sites[0].stream, tuple(site.layer for site in sites), width, dtype)


def _block(stream: Stream, kept: Mapping[Site, Tensor], pools: Mapping[Site, Any], batch: Batch, variant: str) -> Block:
    """One variant's rows of one unit: [layer, row, d_model] and, for every row, its prompt, position and token."""
    sites = [Site.parse(name) for name in stream.sites]
    if sites[0] not in kept:
        empty = np.zeros((len(sites), 0, stream.d_model), np.uint16 if stream.dtype == "bfloat16" else stream.dtype)
        return Block(empty, [], [], np.zeros(0, np.int64), np.zeros(0, np.int64))
    values = torch.stack([kept[site] for site in sites])
    tokens, owner = _rows_of(sites[0], batch, values)
    row, position, token = pools[sites[0]].index(tokens)
    ids = [batch.ids[owner[r]] for r in row.tolist()]
    if tokens.patches:  # a prompt's second image goes on counting where its first one ended
        before = torch.tensor([owner[:r].count(owner[r]) for r in range(len(owner))], dtype=torch.long)
        position = before[row] * tokens.position.shape[1] + position.clamp_min(0)
    return Block(_array(values), ids, [variant] * len(ids), position.numpy(), token.numpy())


def _rows_of(site: Site, batch: Batch, values: Tensor) -> tuple[Tokens, tuple[int, ...]]:
    if site.tower == "language":
        return batch.tokens, tuple(range(len(batch)))
    images = len(batch.image_rows)
    patches = values.shape[1] // images  # of a pooled tower one row an image came: its patches are not told apart
    return Tokens.of_patches(images, patches, torch.device("cpu")), batch.image_rows


def _array(values: Tensor) -> np.ndarray:
    values = values.cpu()
    return values.view(torch.uint16).numpy() if values.dtype == torch.bfloat16 else values.numpy()


def _joined(blocks: Sequence[Block]) -> Block:
    return Block(
        values=np.concatenate([block.values for block in blocks], axis=1),
        prompt_id=[identifier for block in blocks for identifier in block.prompt_id],
        variant=[variant for block in blocks for variant in block.variant],
        position=np.concatenate([block.position for block in blocks]),
        token_id=np.concatenate([block.token_id for block in blocks]),
    )
