"""capture: prompts through a model into a store, unit by unit. The loop that joins hooks and stores, and nothing
more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hooks.backends.hf import HuggingFaceModel
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
    something else.
    """
    listed = as_prompts(prompts)
    wanted = parse_sites(sites, n_layers=model.depths)
    scopes = {tower: _scope_of(at, tower) for tower in {site.tower for site in wanted}}
    variants = tuple(variants or (model.active or "base",))
    views = [model.variant(variant) for variant in variants]
    pools: dict[Site, Keep] = {site: Pool(scopes[site.tower], pool) for site in wanted}
    edits = combined(model, interventions)
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
        plan=_plan(model, listed, max_tokens),
        spec=spec,
        provenance=provenance.collect(model=model.identity),
    )
    by_id = {prompt.id: prompt for prompt in listed}
    missing = [unit for unit in store.missing() if by_id.keys() >= set(unit.prompt_ids)]
    touched = not edits or not missing
    for unit in followed(missing, f"capture {Path(to).name}", show=progress):
        batch = model.encode([by_id[identifier] for identifier in unit.prompt_ids])
        blocks: dict[str, list[Block]] = {stream.name: [] for stream in streams}
        for view, variant in zip(views, variants, strict=True):
            trace = view.run(batch, pools, edits, logits=False, must_edit=False)
            touched = touched or len(trace.untouched()) < len(batch)
            for stream in streams:
                blocks[stream.name].append(_block(stream, trace.kept, pools, batch, variant))
        store.commit(unit, {name: _joined(parts) for name, parts in blocks.items()})
    if not touched:
        raise NothingEdited(
            "the interventions of this capture touched no position of any prompt: expected a scope that they have."
        )
    return store


def _scope_of(at: Scope | Mapping[str, Scope], tower: str) -> Scope:
    if isinstance(at, Mapping):
        if tower not in at:
            raise ValueError(f"at={dict(at)} gives no scope for the {tower} tower, whose sites are asked for.")
        return checked_scope(at[tower])
    return checked_scope(at)


def _plan(model: HuggingFaceModel, prompts: Sequence[Prompt], max_tokens: int) -> list[Unit]:
    lengths = [len(model.encoder.encode(prompt)) for prompt in prompts]
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
