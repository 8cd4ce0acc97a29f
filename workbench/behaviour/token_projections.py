"""token_projections: what a direction reads at every token of some prompts and their answers, pictures included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hooks.encoded import Encoded
from hooks.encoded_prompts import EncodedPrompts
from hooks.model import Where
from hooks.prompt import Prompt, as_prompts
from hooks.site import Site
from workbench.behaviour.projected import Projected
from workbench.behaviour.seen_pictures import seen_pictures
from workbench.interventions.cells import Intervention, combined
from workbench.subspace.directions import Directions
from workbench.subspace.rows import site_among
from workbench.units import budget_on, kinds_of, length_sorted


@dataclass(frozen=True)
class Coordinate:
    """The Keep of one number a token: the residual along a vector, less an offset, in float32 on the device."""

    along: Float[Tensor, " d_model"]
    offset: float = 0.0

    def __call__(self, resid: Float[Tensor, "row pos d_model"], where: Where) -> Float[Tensor, " n"]:
        return (resid.float() @ self.along.to(resid.device) - self.offset)[where.mask("all")]


def token_projections(
    model: Any,
    prompts: str | Path | Sequence[Prompt],
    v: Directions,
    layer: Site | str | int,
    *,
    answers: Mapping[str, str] | None = None,
    interventions: Sequence[Intervention] = (),
    minus: str | None = None,
    condition: str | None = None,
    name: str = "",
) -> list[Projected]:
    """One `Projected` a prompt, in their order: the coordinate along `v` at one of its sites, of every token, under the
    interventions. `answers` (prompt id -> text) are read after the prompts that they answer, their own responses
    otherwise. For the page: `study.add_projections`.

    The unit is the vector's own length: where `v` carries its origin, 0 is the mean of its negative class and 1 lies
    one class difference further; without an origin 0 is the residual's own. `minus` names a variant whose coordinate of
    the same token is subtracted ("base": what the fine-tune changed, token by token). Directions are fitted at some
    scope: what they read elsewhere is shown, not vouched for. Raises ValueError for a site that `v` does not have, and
    where nothing moved at it.
    """
    site = site_among(v.sites, layer)
    here = v[site]
    norm = float(here.norm[0])
    if norm == 0:
        raise ValueError(f"{site}: the direction has norm 0 there (nothing moved): expected another of its sites.")
    listed = [
        prompt if answers is None or prompt.id not in answers else replace(prompt, response=answers[prompt.id])
        for prompt in as_prompts(prompts)
    ]
    offset = 0.0 if here.offset is None or minus is not None else float(here.offset[0]) / norm
    keep = Coordinate(torch.tensor(here.unit[0] / norm, dtype=torch.float32), offset)
    encoded = EncodedPrompts(model.encoder, listed)
    values = _coordinates(model, encoded, listed, site, keep, interventions)
    if minus is not None:
        other = _coordinates(model.variant(minus), encoded, listed, site, keep, ())
        values = [mine - theirs for mine, theirs in zip(values, other, strict=True)]
    variant = model.active if isinstance(model.active, str) else " + ".join(model.active or ["base"])
    facts = {
        "condition": condition or (variant if minus is None else f"{variant} minus {minus}"),
        "direction": name or v.kind,
        "site": str(site),
        "scale": _in_words(here, minus),
    }
    return [
        Projected(
            prompt=prompt.id,
            title=prompt.messages[-1].text if prompt.messages else str(prompt.text),
            tokens=_pieces(model.encoder.tokenizer, encoded[i]),
            values=values[i],
            parts=_parts(model.encoder, encoded[i]),
            pictures=tuple(seen_pictures(model.encoder, encoded[i], prompt)),
            **facts,
        )
        for i, prompt in enumerate(listed)
    ]


def _coordinates(
    model: Any,
    encoded: EncodedPrompts,
    prompts: Sequence[Prompt],
    site: Site,
    keep: Coordinate,
    interventions: Sequence[Intervention],
) -> list[Float[np.ndarray, " pos"]]:
    edits, found = combined(model, interventions), {}
    for unit in length_sorted(encoded.lengths, budget_on(model.device), kinds_of(model, prompts, encoded.lengths)):
        batch = model.encoder.collate(encoded.taken(unit))
        kept = model.run(batch, keep={site: keep}, edits=edits, logits=False, must_edit=False).kept[site]
        flat = kept.double().cpu().numpy()
        ends = np.cumsum([len(one) for one in batch.encoded])
        found.update(zip(unit, np.split(flat, ends[:-1]), strict=True))
    return [found[i] for i in range(len(encoded))]


def _in_words(v: Directions, minus: str | None) -> str:
    if minus is not None:
        return f"1: the length of the direction; the same token in {minus} is subtracted"
    if v.origin is None:
        return "1: the length of the direction; 0: the residual's own zero"
    return "0: the mean of the negative class; 1: one class difference further"


def _pieces(tokenizer: Any, encoded: Encoded) -> tuple[str, ...]:
    """The tokens' texts, which one after the other give the whole text as the tokenizer writes it."""
    ids, pieces, before = encoded.input_ids.tolist(), [], ""
    for place, token in enumerate(ids):
        text = tokenizer.decode(ids[: place + 1], clean_up_tokenization_spaces=False)
        pieces.append(text[len(before) :] if text.startswith(before) else tokenizer.decode([token]))
        before = text
    return tuple(pieces)


def _parts(encoder: Any, encoded: Encoded) -> tuple[str, ...]:
    special = set(encoder.tokenizer.all_special_ids)

    def part(place: int, token: int) -> str:
        if encoder.image_token_id is not None and token == encoder.image_token_id:
            return "image"
        if place >= encoded.prompt_length:
            return "response"
        return "template" if token in special or place >= encoded.instruction_end else "prompt"

    return tuple(part(place, token) for place, token in enumerate(encoded.input_ids.tolist()))
