"""What a capture is asked for, checked before anything is stored: variants, scopes, streams, interventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hooks.backends.hf import HuggingFaceModel
from hooks.edits import LowRankEdit
from hooks.encoded import Encoded
from hooks.model import NothingEdited
from hooks.pool import Pool
from hooks.positions import Scope, Tokens, checked_scope, scope_name
from hooks.prompt import Prompt
from hooks.site import Site
from stores import Stream
from stores.errors import NoRows

CAPTURE_VERSION = 1  # raised when the same arguments would give other numbers
LinearEdits = Mapping[Site, Sequence[LowRankEdit]]


@dataclass(frozen=True)
class Kept:
    """One stream of a capture: its sites in the order of the layer axis, and what is kept of them."""

    stream: Stream
    sites: tuple[Site, ...]
    pool: Pool
    rows_per_image: float = 0.0  # of a vision tower, as one picture showed it

    @property
    def name(self) -> str:
        return self.stream.name

    @property
    def tower(self) -> str:
        return self.sites[0].tower

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.stream.dtype)


def variants_of(model: HuggingFaceModel, variants: Sequence[str] | None) -> tuple[str, ...]:
    """The variants to capture, by default the model's own. Raises ValueError for one that is not loaded."""
    if variants is None and isinstance(model.active, tuple):
        raise ValueError("this model gives each row its own variant: expected variants=..., which all prompts pass.")
    listed = (variants,) if isinstance(variants, str) else tuple(variants or (str(model.active or "base"),))
    for variant in listed:
        model.variant(variant)  # refuses one that is not loaded
    return listed


def scopes_of(at: Scope | Mapping[str, Scope], wanted: Sequence[Site], prompts: Sequence[Prompt]) -> dict[str, Scope]:
    """The scope of each tower. Raises ValueError where a tower has none, or where there would be nothing to see."""
    scopes = {tower: _scope_of(at, tower) for tower in {site.tower for site in wanted}}
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
    return scopes


def _scope_of(at: Scope | Mapping[str, Scope], tower: str) -> Scope:
    if isinstance(at, Mapping) and tower not in at:
        raise ValueError(
            f"at={dict(at)} gives no scope for the {tower} tower, whose sites are asked for: expected "
            f"at={{'language': 'last', 'vision': 'image'}}, say."
        )
    scope = checked_scope(at[tower] if isinstance(at, Mapping) else at)
    if tower == "vision" and scope not in ("image", "all"):
        raise ValueError(
            f"scope {scope_name(scope)!r} has no meaning inside the vision tower: expected 'image' or 'all', as in "
            "at={'language': 'last', 'vision': 'image'}."
        )
    return scope


def scopes_named(scopes: Mapping[str, Scope]) -> str:
    """As a store's spec states them."""
    names = {tower: scope_name(scope) for tower, scope in sorted(scopes.items())}
    return ", ".join(name if len(names) == 1 else f"{tower} {name}" for tower, name in names.items())


def spec_of(
    model: HuggingFaceModel,
    variants: Sequence[str],
    scopes: Mapping[str, Scope],
    pool: str,
    interventions: Sequence[Any],
) -> dict[str, Any]:
    """What decides the numbers of a capture, as its store states it."""
    return {
        "capture": CAPTURE_VERSION,
        "model": model.identity["model"],
        "identity": model.identity,
        "n_layers": model.n_layers,
        "variants": list(variants),
        "scope": scopes_named(scopes),
        "pool": pool,
        "interventions": [intervention.describe() for intervention in interventions],
    }


def kept_streams(
    model: HuggingFaceModel, wanted: Sequence[Site], scopes: Mapping[str, Scope], pool: str, prompts: Sequence[Prompt]
) -> list[Kept]:
    """The sites by stream."""
    by_name: dict[str, list[Site]] = {}
    for site in wanted:
        by_name.setdefault(site.stream, []).append(site)
    return [_kept(model, tuple(sites), Pool(scopes[sites[0].tower], pool), prompts) for sites in by_name.values()]


def _kept(model: HuggingFaceModel, sites: tuple[Site, ...], pool: Pool, prompts: Sequence[Prompt]) -> Kept:
    width, per_image = model.d_model, 0.0
    if sites[0].tower == "vision":  # configs name a tower's width in several ways, so a picture is sent through
        pictured = next(prompt for prompt in prompts if prompt.images)
        batch = model.encode([pictured])
        shown = model.variant("base").run(batch, {sites[0]: Pool("all")}, logits=False).kept[sites[0]]
        width = shown.shape[-1]
        per_image = 1.0 if pool.reduce == "mean" else len(shown) / len(pictured.images)
    dtype = "float32" if pool.reduce == "mean" else str(model.dtype).removeprefix("torch.")
    stream = Stream(sites[0].stream, tuple(site.layer for site in sites), width, dtype)
    return Kept(stream, sites, pool, per_image)


def refuse_hidden(
    model: HuggingFaceModel, encoded: Sequence[Encoded], wanted: Sequence[Site], edits: LinearEdits, *, answered: bool
) -> None:
    """Raises NothingEdited for interventions that cannot show: behind every captured site, or in the scope of no
    prompt. `answered`: the model writes an answer to every prompt, which counts as well."""
    if not edits:
        return
    scopes = {scope for listed in edits.values() for edit in listed for scope in edit.scopes}
    shown = any(_depth(site) <= _depth(seen) for site in edits for seen in wanted if seen.tower == "language")
    if shown and any(_touched(model, one, scopes, answered) for one in encoded):
        return
    why = "touched no position of any prompt" if shown else "act behind every captured site"
    raise NothingEdited(
        f"the interventions of this capture {why}: expected a scope that the prompts have, and sites at or behind "
        "the first edit."
    )


def refuse_empty(model: HuggingFaceModel, kept: Sequence[Kept], encoded: Sequence[Encoded], *, answered: bool) -> None:
    """Raises NoRows where a scope matches no position of any prompt, so that a stream would have no row."""
    for part in kept:
        matches = (_touched(model, one, {part.pool.scope}, answered) for one in encoded)
        if encoded and part.tower == "language" and not any(matches):
            raise NoRows(
                f"scope {scope_name(part.pool.scope)!r} matches no position of any of the {len(encoded)} prompts: "
                f"expected one that some of them have, or {part.name} would have no row. 'response' needs prompts with "
                "an answer, 'image' prompts with pictures, a regex a token whose text it matches; 'last' and 'all' "
                "are there always."
            )


def _touched(model: HuggingFaceModel, one: Encoded, scopes: set[Scope], answered: bool) -> bool:
    tokens = tokens_of(model, one.prompt_only().extended([int(one.input_ids[-1])]) if answered else one)
    return any(bool(tokens.mask(scope).any()) for scope in scopes)


def tokens_of(model: HuggingFaceModel, one: Encoded) -> Tokens:
    """Where the tokens of one prompt stand; its pixels are left alone."""
    return model.encoder.collate([replace(one, images={}, n_images=0)]).tokens


def _depth(site: Site) -> tuple[int, bool]:
    return site.layer, site.point == "resid_post"
