"""The tokens that a direction promotes and suppresses, through the model's own tail: final norm, head, soft cap and
scaling as the model applies them, never a head multiplied by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hooks.backends.hf import HuggingFaceModel
from hooks.edits import LowRankEdit
from hooks.encode import Batch
from hooks.model import Where
from hooks.positions import Scope, checked_scope
from hooks.prompt import Message, Prompt, PromptError, as_prompts
from hooks.site import Site
from stores.printed import Printed
from workbench.interventions.placement import as_rows
from workbench.interventions.placement import refuse_other_model as refuse_other_model
from workbench.subspace.directions import Directions
from workbench.units import kinds_of, length_sorted

NEUTRAL = "The next word is"  # what stands in front matters little: every position is replaced
ROWS = 64  # rows of one forward


@dataclass(frozen=True)
class Token:
    """One token of the vocabulary and how far its logit moves."""

    text: str
    id: int
    value: float


@dataclass(frozen=True)
class ReadOut(Printed):
    """For each site the k tokens that the direction promotes most and those that it suppresses most, the strongest
    first. `through` and `convention` say how the values came about; `str()` is a table."""

    sites: tuple[Site, ...]
    promoted: tuple[tuple[Token, ...], ...]
    suppressed: tuple[tuple[Token, ...], ...]
    direction: str
    model: str
    through: str
    convention: str

    def rows(self) -> list[dict[str, Any]]:
        """One row a token, for a data frame."""
        return [
            {"site": str(site), "layer": site.layer, "side": side, "rank": n, "token": one.text, "id": one.id,
             "value": one.value}
            for i, site in enumerate(self.sites)
            for side, listed in (("promoted", self.promoted[i]), ("suppressed", self.suppressed[i]))
            for n, one in enumerate(listed)
        ]  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{self.direction} on {self.model}: {self.convention}"]
        width = max(len(str(site)) for site in self.sites)
        for i, site in enumerate(self.sites):
            for sign, listed in (("+", self.promoted[i]), ("-", self.suppressed[i])):
                shown = "  ".join(f"{one.text!r} {one.value:+.2f}" for one in listed)
                lines.append(f"{str(site) if sign == '+' else '':<{width}} {sign} {shown}")
        return "\n".join(lines)


def read_out(
    v: Directions,
    model: HuggingFaceModel,
    k: int = 10,
    layer: int | Site | str | Sequence[int | Site | str] | None = None,
    *,
    through: str = "tail",
    prompts: str | Path | Iterable[Prompt] | None = None,
    coefficient: float | int = 1.0,
    at: Scope = "all",
) -> ReadOut:
    """What a write direction says in tokens, at `layer` (a site, a layer, or several; default: all of v's).

    `through="tail"`: the residual after the last block is put to ±s·v̂, s the median length that it has there on a
    neutral prompt, the model finishes, and half the difference of the two logits is taken, which cancels what the tail
    adds by itself. The blocks after the direction's own layer are skipped. `through="model"` does not skip them: the
    vector, times `coefficient`, is added at its own layer to the scope `at` of the `prompts`, and the values are the
    mean difference from the unedited next-token logits. Sites where the direction has norm 0 are left out. Raises
    ValueError for read-out vectors, and for those of another model.
    """
    if v.role != "write":
        raise ValueError("read_out was given a read-out vector: expected a write vector, which is added to the stream.")
    if through not in ("tail", "model") or (through == "model") != (prompts is not None):
        raise ValueError(
            f"read_out(through={through!r}, prompts={'given' if prompts is not None else None}): expected "
            "through='tail' without prompts, or through='model' with the prompts to steer."
        )
    refuse_other_model(v, model, "read_out")
    v = v if layer is None else v[layer]
    chosen = [site for site, norm in zip(v.sites, v.norm, strict=True) if norm > 0]
    if not chosen or any(site.tower != "language" for site in chosen):
        raise ValueError(f"read_out has nothing to read at {', '.join(map(str, v.sites))}: expected language sites "
                         "where the direction has a length.")  # fmt: skip
    v = v[chosen]
    if through == "tail":
        length = tail_length(model)
        moved = through_tail(model, v.unit, length)
        convention = f"half difference of logits, residual after the last block at ±{length:.3g}·v̂ (own tail)"
    else:
        listed = as_prompts(prompts)  # type: ignore[arg-type]
        moved = _through_model(model, v, listed, float(coefficient), checked_scope(at))
        convention = f"mean change of logits over {len(listed)} prompts, {coefficient:g} x the vector at its own layer"
    k = min(k, moved.shape[1] // 2)
    order = moved.argsort(dim=1, descending=True)
    return ReadOut(
        sites=v.sites,
        promoted=tuple(_tokens(model, row, ids[:k]) for row, ids in zip(moved, order, strict=True)),
        suppressed=tuple(_tokens(model, row, ids.flip(0)[:k]) for row, ids in zip(moved, order, strict=True)),
        direction=v.kind,
        model=model.name,
        through=through,
        convention=convention,
    )


def through_tail(
    model: HuggingFaceModel, units: Float[np.ndarray, "n d_model"], length: float
) -> Float[Tensor, "n vocab"]:
    """Half the difference of the logits that the model's own tail gives for ±length·unit, float64, one row a
    direction."""
    last, one = Site(model.n_layers - 1), _neutral(model).encoded[0]
    both = np.concatenate([units, -units])
    out = []
    for start in range(0, len(both), ROWS):
        part = as_rows(both[start : start + ROWS])[0][:, None]
        n = len(part)
        nothing = torch.zeros(n, 1)
        # carry 0: what the blocks wrote is dropped, and the direction stands in its place.
        edit = LowRankEdit(part, part, nothing, nothing + length, torch.zeros(n), ("all",) * n)
        batch = model.encoder.collate([one] * n)
        out.append(_logits(model, batch, {last: [edit.for_rows(range(n))]}))
    plus, minus = torch.cat(out).chunk(2)
    return (plus - minus) / 2


def tail_length(model: HuggingFaceModel) -> float:
    """The median length of the residual after the last block on a neutral prompt, position 0 left out."""
    last, batch = Site(model.n_layers - 1), _neutral(model)
    seen: list[Tensor] = []

    def lengths(resid: Tensor, where: Where) -> None:
        seen.append(resid[where.tokens.measured].float().norm(dim=-1))

    model.run(batch, {last: lengths}, logits=False)
    return float(seen[0].median())


def _through_model(
    model: HuggingFaceModel, v: Directions, prompts: Sequence[Prompt], coefficient: float, at: Scope
) -> Float[Tensor, "n vocab"]:
    encoded = [model.encoder.encode(prompt) for prompt in prompts]
    lengths = [len(one) for one in encoded]
    units = length_sorted(lengths, 4096, kinds_of(model, prompts, lengths))
    total: Tensor | None = None
    for unit in units:
        batch = model.encoder.collate([encoded[i] for i in unit])
        plain = _logits(model, batch, {})
        sums = []
        for site, unit_vector, norm in zip(v.sites, v.unit, v.norm, strict=True):
            rows = as_rows(unit_vector[None])
            added = torch.full((1, 1), coefficient * float(norm))
            steer = LowRankEdit(rows, rows, torch.zeros(1, 1), added, torch.ones(1), (at,))
            sums.append((_logits(model, batch, {site: [steer]}) - plain).sum(dim=0))
        total = torch.stack(sums) if total is None else total + torch.stack(sums)
    assert total is not None
    return total / len(prompts)


def _logits(model: HuggingFaceModel, batch: Batch, edits: dict[Site, Any]) -> Float[Tensor, "row vocab"]:
    logits = model.run(batch, edits=edits, must_edit=bool(edits)).logits
    assert logits is not None
    return logits.double().cpu()


def _neutral(model: HuggingFaceModel) -> Batch:
    """A short prompt: a chat, or raw text for a model without a chat template."""
    try:
        return model.encode([Prompt("neutral", (Message("user", (NEUTRAL,)),))])
    except PromptError:
        return model.encode([Prompt("neutral", text=NEUTRAL)])


def _tokens(model: HuggingFaceModel, moved: Float[Tensor, " vocab"], ids: Tensor) -> tuple[Token, ...]:
    return tuple(Token(_text(model.tokenizer, i), i, float(moved[i])) for i in ids.tolist())


def _text(tokenizer: Any, i: int) -> str:
    """The token as text; one that is no whole character, or that only fills the vocabulary up, by its own name."""
    if i >= len(tokenizer):
        return f"<id {i}>"
    text = tokenizer.decode([i])
    return text if text and "\ufffd" not in text else str(tokenizer.convert_ids_to_tokens(i))
