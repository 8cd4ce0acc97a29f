"""What drift is measured by, at one moment of a training: projections, the spectrum of the shift, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from hooks.pool import Pool
from hooks.positions import Scope, scope_name
from hooks.prompt import Prompt
from hooks.site import Site
from workbench.interventions.readout import choice_of, prefilled
from workbench.subspace.directions import Directions
from workbench.subspace.pca import top_shares
from workbench.units import budget_on, kinds_of, length_sorted

EVERYONE = "all"


class Measured:
    """Prompts and questions of one model, encoded once and read again at every measured step. The model must be in eval
    mode while it is asked."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Prompt],
        questions: Sequence[Prompt],
        directions: Mapping[str, Directions],
        at: Scope,
        max_tokens: int | None = None,
        needs_tags: bool = True,
    ) -> None:
        if not needs_tags and not all({"right", "contrary"} <= set(one.tags) for one in questions):
            questions = ()
        self._model, self._directions, self._at = model, directions, at
        self._prompts, self._questions = list(prompts), [prefilled(one) for one in questions]
        self._max_tokens = max_tokens
        self.choice = choice_of(questions, model.encoder) if questions else None
        self.groups = by_class(prompts)
        self.asked = by_class(questions)

    @cached_property
    def sites(self) -> list[Site]:
        return sorted({site for v in self._directions.values() for site in v.sites})

    @cached_property
    def _batches(self) -> list[tuple[list[int], Any]]:
        return self._units(self._prompts)

    @cached_property
    def _question_batches(self) -> list[tuple[list[int], Any]]:
        return self._units(self._questions)

    def _units(self, prompts: Sequence[Prompt]) -> list[tuple[list[int], Any]]:
        encoder = self._model.encoder
        encoded = [encoder.encode(prompt) for prompt in prompts]
        lengths = [len(one) for one in encoded]
        budget = self._max_tokens or budget_on(self._model.device)
        units = length_sorted(lengths, budget, kinds_of(self._model, prompts, lengths))
        return [(unit, encoder.collate([encoded[i] for i in unit])) for unit in units]

    def residuals(self) -> dict[Site, Float[np.ndarray, "row d_model"]]:
        """Each prompt's residual at every site, the mean over the scope, float32, in the order of the prompts."""
        pool = Pool(self._at, "mean")
        out: dict[Site, np.ndarray] = {}
        for unit, batch in self._batches:
            kept = self._model.run(batch, dict.fromkeys(self.sites, pool), logits=False).kept
            for site, rows in kept.items():
                if len(rows) != len(unit):
                    raise ValueError(
                        f"{len(unit) - len(rows)} of {len(unit)} drift prompts have no token under the scope "
                        f"{scope_name(self._at)!r}: expected prompts that all have one."
                    )
                whole = out.setdefault(site, np.empty((len(self._prompts), rows.shape[1]), np.float32))
                whole[unit] = rows.float().cpu().numpy()
        return out

    def projections(self, now: Mapping[Site, np.ndarray], start: Mapping[Site, np.ndarray]) -> list[dict[str, Any]]:
        """h·v̂ by direction, site and class: mean, sd and n over prompts, and `moved`, the mean since the start
        (`moved_sd`: its sd)."""
        rows = []
        for name, v in self._directions.items():
            for site, unit, norm in zip(v.sites, v.unit, v.norm, strict=True):
                if norm == 0:
                    continue
                along, before = now[site].astype(np.float64) @ unit, start[site].astype(np.float64) @ unit
                for group, index in self.groups.items():
                    facts = {"measure": "projection", "direction": name, "group": group, **_placed(site)}
                    moved = mean_and_sd(along[index] - before[index])
                    rows.append({**facts, **mean_and_sd(along[index]), "moved": moved["mean"], "moved_sd": moved["sd"]})
        return rows

    def spectra(self, now: Mapping[Site, np.ndarray], start: Mapping[Site, np.ndarray], k: int) -> list[dict[str, Any]]:
        """The shift since the start, by site: its spectrum with the mean shift (`paired_shift_raw`) and without
        (`paired_shift_centered`)."""
        rows = []
        for site in self.sites:
            shift = now[site].astype(np.float64) - start[site].astype(np.float64)
            length = float(np.linalg.norm(shift, axis=1).mean())
            # Equal rows minus their mean are roundings, and roundings have a spectrum.
            varying = shift - shift.mean(axis=0) if (shift != shift[0]).any() else np.zeros_like(shift)
            for decomposed, values in (("paired_shift_raw", shift), ("paired_shift_centered", varying)):
                facts = {"measure": "spectrum", "decomposed": decomposed, "group": EVERYONE, **_placed(site)}
                rows.append({**facts, "n": len(values), "shift": length, **spectrum(values, k)})
        return rows

    def behaviour(self) -> list[dict[str, Any]]:
        """The logit difference contrary - right at the token that decides, by class of the questions: mean, sd, n; the
        mean probabilities, and the share of questions that greedy decoding would answer the contrary way."""
        if self.choice is None:
            return []
        read: list[dict[str, Any]] = [{}] * len(self._questions)
        for unit, batch in self._question_batches:
            logits: Tensor = self._model.run(batch).logits
            for i, row in zip(unit, self.choice.of(unit).read(logits), strict=True):
                read[i] = row
        rows = []
        for group, index in self.asked.items():
            own = [read[i] for i in index]
            rows.append(
                {
                    "measure": "behaviour",
                    "group": group,
                    **mean_and_sd(np.array([row["logit_difference"] for row in own])),
                    "p_contrary": float(np.mean([row["p_contrary"] for row in own])),
                    "p_right": float(np.mean([row["p_right"] for row in own])),
                    "contrary_rate": float(np.mean([row["choice"] == "contrary" for row in own])),
                }
            )
        return rows


def spectrum(values: Float[np.ndarray, "row d_model"], k: int) -> dict[str, Any]:
    """The k largest shares of the energy (`share_1`, ...) and the participation ratio (Σλ)²/Σλ², from the Gram matrix.
    All None for a shift of exactly nothing, which is `unchanged` and has no spectrum."""
    gram = values @ values.T if len(values) <= values.shape[1] else values.T @ values
    k_here = min(k, len(gram))
    shares: list[float | None] = [None] * k
    if unchanged := not np.trace(gram) > 0:
        return {"unchanged": unchanged, "participation_ratio": None, **_shares(shares)}
    shares[:k_here] = top_shares(values, k_here).tolist()
    ratio = float(np.trace(gram) ** 2 / np.sum(gram**2))
    return {"unchanged": unchanged, "participation_ratio": ratio, **_shares(shares)}


def _shares(shares: Sequence[float | None]) -> dict[str, float | None]:
    return {f"share_{i + 1}": share for i, share in enumerate(shares)}


def mean_and_sd(values: np.ndarray) -> dict[str, Any]:
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"n": len(values), "mean": float(values.mean()), "sd": sd}


def _placed(site: Site) -> dict[str, Any]:
    return {"site": str(site), "layer": site.layer}


def by_class(prompts: Sequence[Prompt]) -> dict[str, list[int]]:
    """Everyone, and each class by its label."""
    labels = dict.fromkeys(prompt.label for prompt in prompts if prompt.label is not None)
    if EVERYONE in labels:
        raise ValueError(f"the label {EVERYONE!r} of a drift prompt stands for all prompts: expected another label.")
    classes = {label: [i for i, prompt in enumerate(prompts) if prompt.label == label] for label in labels}
    return {EVERYONE: list(range(len(prompts))), **classes}
