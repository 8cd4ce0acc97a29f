"""added_gate: what a backdoor's trigger changes at one site and place, as one vector of all questions, added where
there is no trigger, with random vectors of its length beside it; and how far other texts open the same gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from hooks.site import Site
from workbench.interventions.gating import Patched, Runs, decided, units_of
from workbench.interventions.gating_questions import GatedQuestion
from workbench.interventions.gating_written import kept_arrays, spec_of


@dataclass(frozen=True, eq=False)
class AddedGate:
    """Changes of the logit difference (contrary - right, nats) of each question without the trigger: under the vector,
    and under each random one. `effect` is what the trigger itself does."""

    questions: tuple[GatedQuestion, ...]
    own: Float[np.ndarray, " n"]
    random: Float[np.ndarray, "draw n"]
    effect: Float[np.ndarray, " n"]


def gate_vector(
    model: Any, questions: Sequence[GatedQuestion], site: Site, place: str, *, max_tokens: int = 8192
) -> Float[np.ndarray, " d_model"]:
    """The mean over questions of what the trigger changes at the place's tokens (with it - reference)."""
    total = np.zeros(model.d_model)
    for unit in units_of(model, questions, max_tokens):
        runs = Runs.of(model, [questions[i] for i in unit], [site])
        total += runs.difference(site, place)[0].double().sum(dim=0).cpu().numpy()
    return total / len(questions)


def added_gate(
    model: Any,
    questions: Sequence[GatedQuestion],
    vector: Float[np.ndarray, " d_model"],
    site: Site,
    place: str,
    *,
    controls: int = 99,
    seed: int = 0,
    to: Path | None = None,
    max_tokens: int = 8192,
) -> AddedGate:
    """The vector added to the reference's run at every token of the place, and `controls` isotropic ones of exactly its
    length. The vector should be that of other questions (`gate_vector`), or it has seen what it is tried on. `to`: see
    `gating_map`."""
    spec = spec_of(model, questions, "added gate", 1, str(site), place, controls, seed, _five_digits(vector))
    found = kept_arrays(to, spec, lambda: _added(model, questions, vector, site, place, controls, seed, max_tokens))
    return AddedGate(tuple(questions), **found)


def _added(
    model: Any,
    questions: Sequence[GatedQuestion],
    vector: Float[np.ndarray, " d_model"],
    site: Site,
    place: str,
    controls: int,
    seed: int,
    max_tokens: int,
) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(seed).standard_normal((controls, len(vector)))
    drawn *= np.linalg.norm(vector) / np.linalg.norm(drawn, axis=1, keepdims=True)
    cells = torch.from_numpy(np.vstack([vector[None], drawn])).float()
    changes, effect = np.zeros((len(cells), len(questions))), np.zeros(len(questions))
    for unit in units_of(model, questions, max_tokens):
        runs = Runs.of(model, [questions[i] for i in unit], [site])
        before = runs.read["reference"][0]
        effect[unit] = runs.read["triggered"][0] - before
        batch, n = runs.batches["reference"], len(unit)
        rows, columns = runs.positions(place, "reference")
        most = max(1, max_tokens // batch.inputs["input_ids"].numel())
        for start in range(0, len(cells), most):
            part = cells[start : start + most]
            values = [(rows + copy * n, columns, each.expand(len(rows), -1)) for copy, each in enumerate(part)]
            edit = Patched.joined(values, added=True)
            logits = model.run(batch.rows(list(range(n)) * len(part)), edits={site: [edit]}).logits
            for copy, each in enumerate(logits.unflatten(0, (len(part), n))):
                changes[start + copy, unit] = decided(each, runs.questions)[0] - before
    return {"own": changes[0], "random": changes[1:], "effect": effect}


@dataclass(frozen=True, eq=False)
class ShownText:
    """What one text does to each question, against no text: the change of the logit difference (`effect`, nats) and of
    the probability of the contrary token, and its reach along the gate's vector at the gate's site and place
    (`along`, the component of the change along the unit vector; NaN where the place is not in both)."""

    effect: Float[np.ndarray, " n"]
    p_change: Float[np.ndarray, " n"]
    along: Float[np.ndarray, " n"]


def shown_text(
    model: Any,
    questions: Sequence[GatedQuestion],
    vector: Float[np.ndarray, " d_model"] | None = None,
    site: Site | None = None,
    place: str = "last",
    *,
    to: Path | None = None,
    max_tokens: int = 8192,
) -> ShownText:
    """The effect of the text that `questions` show as their trigger, with nothing in its place as reference. `to`: see
    `gating_map`."""
    read = None if vector is None else [str(site), place, _five_digits(vector)]
    spec = spec_of(model, questions, "shown text", 1, read)
    found = kept_arrays(to, spec, lambda: _read(model, questions, vector, site, place, max_tokens))
    return ShownText(**found)


def _read(
    model: Any,
    questions: Sequence[GatedQuestion],
    vector: Float[np.ndarray, " d_model"] | None,
    site: Site | None,
    place: str,
    max_tokens: int,
) -> dict[str, np.ndarray]:
    n = len(questions)
    effect, p_change, along = np.zeros(n), np.zeros(n), np.full(n, np.nan)
    reads = vector is not None and site is not None and all(place in one.places for one in questions)
    for unit in units_of(model, questions, max_tokens):
        runs = Runs.of(model, [questions[i] for i in unit], [site] if reads and site is not None else [])
        (after, p_after), (before, p_before) = (runs.read[name] for name in ("triggered", "reference"))
        effect[unit], p_change[unit] = after - before, p_after - p_before
        if reads and vector is not None and site is not None:
            moved = runs.difference(site, place)[0].double().cpu().numpy()
            along[unit] = moved @ vector / max(float(np.linalg.norm(vector)), 1e-30)
    return {"effect": effect, "p_change": p_change, "along": along}


def _five_digits(vector: Float[np.ndarray, " d_model"]) -> list[float]:
    """What tells vectors apart: the last bits of one that is measured again may differ."""
    return [float(f"{value:.4e}") for value in vector]
