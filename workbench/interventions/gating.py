"""Where a backdoor's gate sits: the difference that a trigger makes in the stream, by layer and place of the prompt,
and what of its effect comes back, or goes, when that difference alone is patched into another run.

Activation patching (causal tracing): Meng et al. 2022, arXiv 2202.05262; both ways, and why the reference shall have as
many tokens: Zhang & Nanda 2023, arXiv 2309.16042.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hooks.encode import Batch
from hooks.model import Where
from hooks.site import Site
from stores.printed import Printed
from workbench.interventions.gating_questions import PLACES, GatedQuestion
from workbench.interventions.gating_written import kept_arrays, spec_of
from workbench.units import kinds_of, length_sorted

Way = Literal["in", "out"]
WAYS: tuple[Way, ...] = ("in", "out")
UNIT_ROWS = 64  # questions whose whole streams are held at a time


@dataclass(frozen=True, eq=False)
class GatingMap(Printed):
    """Logit differences (contrary - right, nats) at the token that decides, of one variant on `n` questions.

    `triggered` and `reference` are the two runs as they are. `patched_in[site, place, n]` is the reference's run with
    the triggered run's stream at this site and place, `patched_out` the triggered run with the reference's. `moved` is
    the length of what the trigger changes there, relative to the stream's own; `shared` the part of it that is one
    vector for all questions (norm of the mean over mean norm); NaN where a question lacks the place. `p_triggered` and
    `p_reference` are the probabilities of the contrary token.
    """

    questions: tuple[GatedQuestion, ...]
    sites: tuple[Site, ...]
    places: tuple[str, ...]
    triggered: Float[np.ndarray, " n"]
    reference: Float[np.ndarray, " n"]
    p_triggered: Float[np.ndarray, " n"]
    p_reference: Float[np.ndarray, " n"]
    patched_in: Float[np.ndarray, "site place n"]
    patched_out: Float[np.ndarray, "site place n"]
    moved: Float[np.ndarray, "site place n"]
    shared: Float[np.ndarray, "site place"]

    @property
    def families(self) -> list[str]:
        return [one.family for one in self.questions]

    @cached_property
    def effect(self) -> Float[np.ndarray, " n"]:
        """What the trigger does to the logit difference of each question."""
        return self.triggered - self.reference

    def change(self, way: Way) -> Float[np.ndarray, "site place n"]:
        """How much of the effect a patch brings ("in") or takes ("out"), in nats, question by question."""
        return self.patched_in - self.reference if way == "in" else self.triggered - self.patched_out

    def share(self, way: Way, of: Sequence[int] | None = None) -> Float[np.ndarray, "site place"]:
        """The mean change over the mean effect (of some of the questions): 1 is all of it, 0 none."""
        chosen = list(range(len(self.questions))) if of is None else list(of)
        return self.change(way)[..., chosen].mean(axis=-1) / self.effect[chosen].mean()


def stream_sites(model: Any) -> list[Site]:
    """The embedding and the output of every block."""
    return [Site(0, "resid_pre"), *(Site(layer) for layer in range(model.n_layers))]


def gating_map(
    model: Any,
    questions: Sequence[GatedQuestion],
    *,
    sites: Sequence[Site] | None = None,
    ways: Sequence[Way] = WAYS,
    to: Path | None = None,
    max_tokens: int = 8192,
) -> GatingMap:
    """Every site and place of the model's active variant, patched both ways (or one: the other is NaN then).

    A patch puts the other run's stream at all positions of one place at one site (default: `stream_sites`); everything
    behind is computed anew. The places are those that all questions have, `before` left out of the patches: nothing
    there knows of the trigger. Many cells are rows of one forward, up to `max_tokens` tokens. The numbers lie in the
    file `to` (.npz), from where a later call takes them.
    """
    sites = list(sites or stream_sites(model))
    places = [name for name in PLACES if all(name in one.places for one in questions)]
    spec = spec_of(model, questions, "gating map", 1, [str(site) for site in sites], places, list(ways))
    found = kept_arrays(to, spec, lambda: _measured(model, questions, sites, places, ways, max_tokens))
    return GatingMap(tuple(questions), tuple(sites), tuple(places), **found)


def _measured(
    model: Any,
    questions: Sequence[GatedQuestion],
    sites: Sequence[Site],
    places: Sequence[str],
    ways: Sequence[Way],
    max_tokens: int,
) -> dict[str, np.ndarray]:
    shape = (len(sites), len(places), len(questions))
    maps: dict[str, np.ndarray] = {name: np.full(shape, np.nan) for name in ("in", "out", "moved", "norm")}
    plain = {name: np.zeros(len(questions)) for name in ("triggered", "reference", "p_t", "p_r")}
    means = np.zeros((len(sites), len(places), model.d_model))
    for unit in units_of(model, questions, max_tokens):
        some = [questions[i] for i in unit]
        runs = Runs.of(model, some, sites)
        for name, side in (("triggered", "t"), ("reference", "r")):
            plain[name][unit], plain[f"p_{side}"][unit] = runs.read[name]
        for s, site in enumerate(sites):
            for p, place in enumerate(places):
                moved, own = runs.difference(site, place)
                lengths = moved.norm(dim=-1)
                maps["norm"][s, p, unit] = lengths.cpu().numpy()
                maps["moved"][s, p, unit] = (lengths / own.clamp_min(1e-30)).cpu().numpy()
                means[s, p] += moved.double().sum(dim=0).cpu().numpy() / len(questions)
        cells = [(s, p) for s in range(len(sites)) for p, place in enumerate(places) if place != "before"]
        for way in ways:
            for (s, p), found in runs.patched(way, [(sites[s], places[p]) for s, p in cells], max_tokens):
                maps[way][sites.index(s), places.index(p), unit] = found
    norms = maps["norm"].mean(axis=-1)
    shared = np.divide(np.linalg.norm(means, axis=-1), norms, out=np.full(norms.shape, np.nan), where=norms > 0)
    return {
        **{name: plain[name] for name in ("triggered", "reference")},
        **{"p_triggered": plain["p_t"], "p_reference": plain["p_r"], "moved": maps["moved"], "shared": shared},
        **{f"patched_{way}": maps[way] for way in WAYS},
    }


def units_of(model: Any, questions: Sequence[GatedQuestion], max_tokens: int) -> list[list[int]]:
    """Questions that pass together, none with others that padding would disturb."""
    lengths = [max(len(one.triggered), len(one.reference)) for one in questions]
    kinds = kinds_of(model, [one.triggered for one in questions], lengths)
    other = [len(one.reference) if kind[1] else 0 for one, kind in zip(questions, kinds, strict=True)]
    units = length_sorted(lengths, max_tokens, list(zip(kinds, other, strict=True)))
    return [unit[at : at + UNIT_ROWS] for unit in units for at in range(0, len(unit), UNIT_ROWS)]


@dataclass(frozen=True, eq=False)
class Runs:
    """A few questions run both ways, their streams held: `kept[run][site]` is [row, pos, d_model], `read[run]` the
    logit difference and the probability of the contrary token of each."""

    model: Any
    questions: Sequence[GatedQuestion]
    batches: Mapping[str, Batch]
    kept: Mapping[str, Mapping[Site, Tensor]]
    read: Mapping[str, tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, model: Any, questions: Sequence[GatedQuestion], sites: Sequence[Site]) -> Runs:
        batches = {name: model.encoder.collate([getattr(one, name) for one in questions])
                   for name in ("triggered", "reference")}  # fmt: skip
        kept, read = {}, {}
        for name, batch in batches.items():
            trace = model.run(batch, dict.fromkeys(sites, _whole))
            kept[name], read[name] = trace.kept, decided(trace.logits, questions)
        return cls(model, questions, batches, kept, read)

    def positions(self, place: str, run: str) -> tuple[Tensor, Tensor]:
        """Row and column of every token of a place, question by question."""
        side = 0 if run == "triggered" else 1
        pairs = [(row, at) for row, one in enumerate(self.questions) for at in one.places[place][side]]
        rows, columns = torch.tensor(pairs).T
        return rows, columns

    def difference(self, site: Site, place: str) -> tuple[Float[Tensor, "row d_model"], Float[Tensor, " row"]]:
        """What the trigger changes there, the mean over the place's tokens; and the mean length of the reference's
        stream at these."""
        sums, own = [], []
        counts = torch.tensor([len(one.places[place][0]) for one in self.questions], device=self.model.device)
        for run in ("triggered", "reference"):
            rows, columns = (index.to(self.model.device) for index in self.positions(place, run))
            here = self.kept[run][site][rows, columns].float()
            total = torch.zeros(len(self.questions), here.shape[-1], device=here.device)
            sums.append(total.index_add_(0, rows, here) / counts[:, None])
            lengths = torch.zeros(len(self.questions), device=here.device)
            own.append(lengths.index_add_(0, rows, here.norm(dim=-1)) / counts)
        return sums[0] - sums[1], own[1]

    def patched(
        self, way: Way, cells: Sequence[tuple[Site, str]], max_tokens: int
    ) -> Iterator[tuple[tuple[Site, str], Float[np.ndarray, " row"]]]:
        """The logit differences of the recipient's run under each cell's patch."""
        giver, taker = ("triggered", "reference") if way == "in" else ("reference", "triggered")
        batch, n = self.batches[taker], len(self.questions)
        most = max(1, max_tokens // batch.inputs["input_ids"].numel())
        for start in range(0, len(cells), most):
            part = cells[start : start + most]
            edits: dict[Site, list[Any]] = {}
            for copy, (site, place) in enumerate(part):
                rows, columns = self.positions(place, taker)
                values = self.kept[giver][site][self.positions(place, giver)]
                edits.setdefault(site, []).append((rows + copy * n, columns, values))
            made = {site: [Patched.joined(listed)] for site, listed in edits.items()}
            trace = self.model.run(batch.rows(list(range(n)) * len(part)), edits=made, must_edit=False)
            logits = trace.logits.unflatten(0, (len(part), n))
            for cell, each in zip(part, logits, strict=True):
                yield cell, decided(each, self.questions)[0]


@dataclass(frozen=True, eq=False)
class Patched:
    """An edit that puts values at some positions: another run's stream, or, `added`, a vector on top of its own."""

    rows: Tensor
    columns: Tensor
    values: Float[Tensor, "n d_model"]
    added: bool = False

    @classmethod
    def joined(cls, parts: Sequence[tuple[Tensor, Tensor, Tensor]], added: bool = False) -> Patched:
        rows, columns, values = (torch.cat(list(each)) for each in zip(*parts, strict=True))
        return cls(rows, columns, values, added)

    def __call__(self, resid: Float[Tensor, "row pos d_model"], where: Where) -> Float[Tensor, "row pos d_model"]:
        rows, columns = self.rows.to(resid.device), self.columns.to(resid.device)
        values = self.values.to(resid.device)
        put = (resid[rows, columns].float() + values if self.added else values).to(resid.dtype)
        out = resid.clone()
        out[rows, columns] = put
        if where.tally is not None:
            where.tally.add(torch.bincount(rows, minlength=len(resid)))
        return out


def decided(logits: Tensor, questions: Sequence[GatedQuestion]) -> tuple[np.ndarray, np.ndarray]:
    """Logit difference (contrary - right) and probability of the contrary token, one a row."""
    exact = logits.float()
    tokens = torch.tensor([[one.deciding.contrary, one.deciding.right] for one in questions], device=exact.device)
    chosen = exact.gather(1, tokens)
    p = (chosen[:, 0] - exact.logsumexp(dim=-1)).exp()
    return (chosen[:, 0] - chosen[:, 1]).double().cpu().numpy(), p.double().cpu().numpy()


def _whole(resid: Tensor, where: Where) -> Tensor:
    return resid.clone()
