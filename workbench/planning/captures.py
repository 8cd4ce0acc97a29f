"""What a capture would run and write: the units, rows and bytes of `workbench.capturing`, without its forwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hooks.answer_slab import AnswerSlab
from hooks.answered import PromptsAsWritten
from hooks.pool import Pool
from hooks.prompt import Prompt
from hooks.site import Site, parse_sites
from hooks.structure import vision_config
from stores import Stream, schema
from workbench.captures.answers import Asked
from workbench.captures.plan import Kept, scopes_of, tokens_of, variants_of
from workbench.captures.size import bytes_coming, rows_of, units_of
from workbench.planning.memory import Sizes
from workbench.planning.model import Call, PlannedModel

_META = torch.device("meta")
CLASS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}  # beside the patches, by the tower's model_type


@dataclass(frozen=True)
class PlannedCapture:
    """The calls of the model, and bytes on disk: of the values, and of whole shards at most."""

    calls: list[Call]
    batches: int
    value_bytes: int
    disk_bytes: int


def planned_capture(
    model: PlannedModel,
    prompts: Sequence[Prompt],
    sites: str | Site | Iterable[str | Site],
    at: Any,
    pool: str,
    variants: Sequence[str] | None,
    together: bool,
    responses: str,
    max_tokens: int | None,
    writing: Mapping[str, Any],
) -> PlannedCapture:
    """Raises ValueError for what `capture` refuses, and for vision sites of towers whose rows no config states."""
    wanted = parse_sites(sites, n_layers=model.depths)
    scopes = scopes_of(at, wanted, prompts)
    chosen = variants_of(model, variants)
    asked = Asked.of(responses, writing, scopes, together)
    new = 0 if asked is None else asked.max_new_tokens
    kept = _kept_streams(model, wanted, scopes, pool)
    encoded = PromptsAsWritten(model.encoder, prompts, answers=asked is None)
    lengths = [length + new for length in encoded.lengths]
    together = together and len(chosen) > 1
    rows = rows_of(model, kept, encoded.outlines, new)
    units = units_of(
        model, prompts, kept, lengths, rows, variants=len(chosen), together=together, max_tokens=max_tokens,
        answered=asked is not None,
    )  # fmt: skip
    for part in kept:  # a mean over no position is no row, which the bound of `capture` does not look at
        if part.tower == "language" and part.pool.reduce == "mean" and asked is None:
            for mine, one in zip(rows, encoded.outlines, strict=True):
                mine[part.name] = int(bool(part.pool.mask(tokens_of(model, one)).any()))

    model.calls.clear()
    towers = any(part.tower == "vision" for part in kept)
    if towers:  # a picture is sent through, for the tower's width
        first = next(i for i, prompt in enumerate(prompts) if prompt.images)
        model.note("probe", model.encoder.collate([encoded[first]]))
    for unit in [batch for batches in units for batch in batches]:
        batch = model.encoder.collate([encoded.outlines[i] for i in unit])
        held = sum(_bytes(part, sum(rows[i][part.name] for i in unit)) for part in kept) * len(chosen)
        if asked is not None:
            left = model.encoder.collate([one.prompt_only() for one in batch.encoded], "left")
            slabs = [
                AnswerSlab(asked.scope, len(p.sites), len(unit), new, p.stream.d_model, model.dtype, _META)
                for p in kept
            ]
            for _ in chosen:
                held = sum(slab.values.nbytes for slab in slabs)
                model.note("answer", left, new=slabs[0].asks_for, kept=held, logits=len(unit))
        elif batch.image_rows or any(part.tower == "language" for part in kept):
            copies = len(chosen) if together else 1
            for _ in range(1 if together else len(chosen)):
                rows_of_all = batch.rows(list(range(len(unit))) * copies)
                # A tower that is looked into computes all pictures of its batch, and remembers none.
                seen = {"together": len(rows_of_all.image_rows)} if towers else {}
                model.note("read", rows_of_all, kept=held, **seen)
    shards = [[i for batch in unit for i in batch] for unit in units]
    values = sum(
        _value_bytes(part.stream, len(chosen) * sum(rows[i][part.name] for i in shard))
        for shard in shards
        for part in kept
    )
    disk = bytes_coming(kept, shards, rows, len(chosen))
    return PlannedCapture(list(model.calls), sum(map(len, units)), values, disk)


def _bytes(part: Kept, rows: int) -> int:
    return len(part.sites) * rows * part.stream.d_model * part.dtype.itemsize


def _value_bytes(stream: Stream, rows: int) -> int:
    """Of the stored values, the padding of edge chunks included."""
    per_chunk = schema.chunk_rows(rows)
    stored = -(-rows // per_chunk) * per_chunk
    return len(stream.layers) * stored * stream.d_model * schema.DTYPES[stream.dtype].raw.itemsize


def _kept_streams(model: PlannedModel, wanted: Sequence[Site], scopes: Mapping[str, Any], pool: str) -> list[Kept]:
    """As `workbench.captures.plan.kept_streams`, the rows of a tower from its config instead of a picture."""
    by_name: dict[str, list[Site]] = {}
    for site in wanted:
        by_name.setdefault(site.stream, []).append(site)
    out = []
    for sites in by_name.values():
        pools = Pool(scopes[sites[0].tower], pool)
        width, per_image = model.d_model, 0.0
        if sites[0].tower == "vision":
            width, per_image = _tower_rows(model)
            per_image = 1.0 if pools.reduce == "mean" else per_image
        dtype = "float32" if pools.reduce == "mean" else str(model.dtype).removeprefix("torch.")
        stream = Stream(sites[0].stream, tuple(site.layer for site in sites), width, dtype)
        out.append(Kept(stream, tuple(sites), pools, per_image))
    return out


def _tower_rows(model: PlannedModel) -> tuple[int, float]:
    sizes, kind = Sizes.of(model), getattr(vision_config(model.config), "model_type", "")
    if kind not in CLASS_TOKENS or not sizes.patches:
        raise ValueError(
            f"how many rows a picture has in a tower of type {kind!r} depends on the picture: expected one of "
            f"{', '.join(CLASS_TOKENS)}, or language sites alone."
        )
    return sizes.d_v, float(sizes.patches + CLASS_TOKENS[kind])
