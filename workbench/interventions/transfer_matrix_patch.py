"""Patch: the component along a direction as another model has it on the same prompt, written in where the answer is
chosen; and the table of answers and readings under patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from hooks.backends.hf import HuggingFaceModel
from hooks.edits import LowRankEdit
from hooks.encode import Batch
from hooks.encoded_prompts import EncodedPrompts
from hooks.positions import Scope
from hooks.prompt import Prompt
from hooks.site import Site
from stores import ResultTable, content_key, provenance
from stores.printed import Printed
from workbench.interventions.maps import TransferMap
from workbench.interventions.measuring import Scorer, _verdicts
from workbench.interventions.placement import refuse_other_model
from workbench.interventions.readout import Choice, choice_of, prefilled, prompt_facts
from workbench.subspace.directions import Directions
from workbench.subspace.rows import RowSource, chosen_sites
from workbench.units import kinds_of, length_sorted

TABLE_VERSION = 1


@dataclass(frozen=True, eq=False)
class Points(Printed):
    """Residuals of one run, a prompt and site, in the space of the model that is patched: `values` [prompt, site, :].
    `rows` are the numbers of the prompts in it."""

    sites: tuple[Site, ...]
    rows: Mapping[str, int]
    values: Float[np.ndarray, "prompt site d_model"]

    @staticmethod
    def of(rows: RowSource, carry: TransferMap | None = None) -> Points:
        """The rows (one a prompt: a pooled scope such as `last`) as they are, or as `carry` maps them (affinely)."""
        if len(set(rows.prompt_ids)) < len(rows):
            raise ValueError("a patch takes one row a prompt: expected rows of one variant, captured at='last'.")
        if carry is None:
            sites = chosen_sites(rows, None)
            values = [np.asarray(rows.values(site, np.float64), np.float64) for site in sites]
        else:
            sites = carry.sites
            values = [
                carry.maps[site].point(np.asarray(rows.values(carry.layer_of[site], np.float64), np.float64))
                for site in sites
            ]
        return Points(tuple(sites), {name: n for n, name in enumerate(rows.prompt_ids)}, np.stack(values, axis=1))


@dataclass(frozen=True, eq=False)
class Patch:
    """Sets the coordinate along a direction to that of another run: `h <- h + (p·v̂ - h·v̂) v̂`, at every layer that both
    have, with p the run's residual at the last token of the same prompt.

    `points` are of the same prompts (by id). One number a prompt serves all positions of the scope (`answering`: those
    whose logits choose the answer), so that models of other tokenizers can be patched in, and answers be written.
    """

    direction: Directions
    points: Points
    at: Scope = "answering"

    def coordinates(self, prompts: Sequence[Prompt]) -> dict[Site, tuple[np.ndarray, Float[np.ndarray, " prompt"]]]:
        """The unit vector, and p·v̂ of each prompt, at each site where the direction has a length. ValueError for
        prompts without a point, and where no site is left."""
        if missing := [prompt.id for prompt in prompts if prompt.id not in self.points.rows]:
            raise ValueError(f"{len(missing)} prompts have no point to patch in (first: {missing[0]!r}): capture them.")
        index = [self.points.rows[prompt.id] for prompt in prompts]
        out = {}
        for n, site in enumerate(self.points.sites):
            if site in self.direction.sites and self.direction.norm[(at := self.direction.sites.index(site))] > 0:
                unit = self.direction.unit[at]
                out[site] = unit, self.points.values[index, n] @ unit
        if not out:
            raise ValueError(
                "Patch has nothing to act with: expected a site that has both a point and a direction of some length."
            )
        return out

    def describe(self) -> dict[str, Any]:
        return {"intervention": "patch", "layer": None, "layers": "all", "at": str(self.at)}


def patch_table(
    model: HuggingFaceModel,
    prompts: Sequence[Prompt],
    patches: Sequence[Patch],
    *,
    judge: Scorer | None = None,
    to: str | Path | None = None,
    seed: int = 0,
    max_new_tokens: int = 16,
    max_tokens: int = 8192,
) -> ResultTable:
    """One row for every (patch, prompt), `cell` the patch's number: the choice at the deciding token, or with a `judge`
    the written answer and its verdict. Many patches are rows of one batch; a table that was stopped goes on in `to`.
    Raises ValueError for prompts without the tags `right` and `contrary` and no judge."""
    for patch in patches:
        refuse_other_model(patch.direction, model, "Patch")
    asked = list(prompts) if judge is not None else [prefilled(prompt) for prompt in prompts]
    choice = choice_of(prompts, model.encoder) if judge is None else None
    encoded = EncodedPrompts(model.encoder, asked)
    units = length_sorted(encoded.lengths, max_tokens // 4, kinds_of(model, asked, encoded.lengths))
    found = [patch.coordinates(prompts) for patch in patches]
    plan = {
        f"batch{u}.patches{first}": (unit, range(first, min(first + most, len(patches))))
        for u, unit in enumerate(units)
        for most in [max(1, max_tokens // (len(unit) * max(encoded.lengths[i] for i in unit)))]
        for first in range(0, len(patches), most)
    }
    spec = {
        "table": "patches",
        "version": TABLE_VERSION,
        "model": model.identity,
        "variant": model.active or "base",
        "judge": None if judge is None else [judge.name, judge.revision],
        "patches": [_fingerprint(one) for one in found],
        "prompts": content_key([prompt.record() for prompt in prompts]),
        "generation": {"max_new_tokens": max_new_tokens, "greedy": True},
        "max_tokens": max_tokens,
        "seed": seed,
    }
    table = ResultTable.create(to, spec=spec, plan=plan, provenance=provenance.collect(seed=seed, **model.facts))
    missing = set(table.missing())
    for key, (unit, cells) in plan.items():
        if key not in missing:
            continue
        batch = model.encoder.collate(encoded.taken(unit)).rows(list(range(len(unit))) * len(cells))
        edits = {site: [edit] for site, edit in _banks([found[c] for c in cells], unit, patches[0].at)}
        if choice is not None:
            read = _read(model, batch, edits, choice.of(list(unit) * len(cells)))
        else:
            assert judge is not None
            read = _written(model, batch, edits, judge, [prompts[i] for i in unit] * len(cells), max_new_tokens)
        rows = [
            {"cell": c, **patches[c].describe(), **prompt_facts(prompts[i]), **read[place * len(unit) + n]}
            for place, c in enumerate(cells)
            for n, i in enumerate(unit)
        ]
        table.commit(key, rows)
    return table


def _banks(
    found: Sequence[Mapping[Site, tuple[np.ndarray, np.ndarray]]], unit: Sequence[int], at: Scope
) -> Iterator[tuple[Site, LowRankEdit]]:
    """One bank a site, with a cell for every row of the batch: patch by patch, prompt by prompt."""
    for site in sorted({site for one in found for site in one}):
        n = len(unit)
        rows = [(p, *one[site]) for p, one in enumerate(found) if site in one]
        units = np.repeat(np.stack([unit_vector for _, unit_vector, _ in rows]), n, axis=0)[:, None]
        values = np.concatenate([values[list(unit)] for *_, values in rows])[:, None]
        read, cells = torch.from_numpy(units.astype(np.float32)), len(units)
        shift, ones = torch.from_numpy(values.astype(np.float32)), torch.ones(cells, 1)
        of_row = torch.full((len(found) * n,), -1, dtype=torch.long)
        for place, (p, *_) in enumerate(rows):
            of_row[p * n : (p + 1) * n] = torch.arange(place * n, (place + 1) * n)
        yield site, LowRankEdit(read, read, -ones, shift, torch.ones(cells), (at,) * cells).for_rows(of_row)


def _read(model: Any, batch: Batch, edits: dict[Site, Any], choice: Choice) -> list[dict[str, Any]]:
    logits = model.run(batch, edits=edits).logits
    assert logits is not None
    return [dict(one) for one in choice.read(logits)]


def _written(
    model: Any, batch: Batch, edits: dict[Site, Any], judge: Scorer, prompts: Sequence[Prompt], new_tokens: int
) -> list[dict[str, Any]]:
    out = model.generate(batch, edits=edits, max_new_tokens=new_tokens)
    verdicts = _verdicts(judge, list(prompts), out.texts, out.finished)
    return [
        {"category": verdict.category, "score": verdict.score, "text": text, "finished": bool(finished)}
        for verdict, text, finished in zip(verdicts, out.texts, out.finished, strict=True)
    ]


def _fingerprint(found: Mapping[Site, tuple[np.ndarray, np.ndarray]]) -> str:
    """To four digits: a map that is fitted again differs in its last bits, and a resumed table must know it."""
    said = []
    for site, (unit, values) in sorted(found.items()):
        scale = float(np.abs(values).max(initial=0.0)) or 1.0
        said.append([str(site), f"{scale:.3e}", np.round(unit, 4).tolist(), np.round(values / scale, 4).tolist()])
    return content_key(said)[:16]
