"""Proof of ablation: what is left of a direction in the stream, layer by layer, measured apart from the edit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hooks.model import TracedModel, Where
from hooks.prompt import Prompt
from hooks.recording import Recorder
from hooks.shortcuts import shortcuts, start_of
from hooks.site import Site
from workbench.captures.halving import DoesNotFit, released
from workbench.interventions.ablate import Ablate
from workbench.interventions.placement import basis_at
from workbench.units import kinds_of

_FEW = 8  # prompts that a proof looks at


@dataclass(frozen=True)
class Leftover:
    """What is left at one site: the largest |component that should be gone| / ‖h‖ over the edited positions, and the
    floor, what the model's dtype can hold at best."""

    site: Site
    share: float
    floor: float

    @property
    def gone(self) -> bool:
        return self.share <= self.floor


@dataclass(frozen=True)
class Proof:
    """The leftovers of one ablation at every site where the stream should be clean."""

    sites: tuple[Leftover, ...]

    @property
    def worst(self) -> Leftover:
        return max(self.sites, key=lambda one: one.share / one.floor)

    @property
    def complete(self) -> bool:
        return all(one.gone for one in self.sites)

    def __str__(self) -> str:
        lines = [
            f"{one.site!s:<16} {one.share:8.1e}  floor {one.floor:.1e}  {'' if one.gone else 'LEFT'}".rstrip()
            for one in self.sites
        ]
        return "\n".join(lines)


class AblationIncomplete(RuntimeError):
    """An ablation left more of its direction in the stream than rounding can explain."""


class Prover:
    """Proves the ablations of a sweep, by one forward each over its first few prompts, which are read once."""

    def __init__(self, model: Any, prompts: Sequence[Prompt]) -> None:
        self._model, self._prompts, self._most = model, prompts, _FEW

    @cached_property
    def _few(self) -> FewPrompts:
        near = self._prompts[:64]
        kinds = kinds_of(self._model, near, [len(self._model.encoder.encode(prompt)) for prompt in near])
        return FewPrompts(
            self._model, [prompt for prompt, kind in zip(near, kinds, strict=True) if kind == kinds[0]][: self._most]
        )

    def of(self, intervention: Any) -> Proof | None:
        """The proof of an ablation; None for anything else. Raises AblationIncomplete where a direction is not gone."""
        if not isinstance(intervention, Ablate):
            return None
        proof = self._left(intervention)
        if not proof.complete:
            raise AblationIncomplete(
                f"{intervention.describe()} leaves {proof.worst.share:.1e} of the residual along its direction at "
                f"{proof.worst.site}: expected at most {proof.worst.floor:.1e}, what rounding leaves. Something adds "
                f"to the stream behind the edit: give the direction at that site too, or ablate single layers.\n{proof}"
            )
        return proof

    def _left(self, ablation: Ablate) -> Proof:
        """Of half as many prompts, where the device has no memory for them."""
        while True:
            try:
                return leftover(self._model, self._few, ablation)
            except torch.OutOfMemoryError as error:
                if self._most == 1:
                    raise DoesNotFit.of(self._prompts[0], "prompt", error) from error
            self._most //= 2
            vars(self).pop("_few", None)
            released()


def proof_facts(proof: Proof | None) -> dict[str, Any]:
    """The columns of a result: what is left at every site, as text, and the largest floor; None without an ablation."""
    if proof is None:
        return {"proof": None, "proof_floor": None}
    left = " ".join(f"{one.site}={one.share:.1e}" for one in proof.sites)
    return {"proof": left, "proof_floor": max((one.floor for one in proof.sites), default=0.0)}


def dtype_floor(dtype: torch.dtype, k: int = 1) -> float:
    """The largest |component| / ‖h‖ that rounding can leave along k orthonormal directions: rounding a vector to
    `dtype` moves it by half an eps of its length at most, whatever k; each dot product adds a few float32 roundings."""
    return torch.finfo(dtype).eps + 8 * math.sqrt(k) * torch.finfo(torch.float32).eps


class FewPrompts:
    """The prompts of many proofs, read once: a proof runs from the block of its edit to its last site."""

    def __init__(self, model: Any, prompts: Sequence[Prompt]) -> None:
        self.batch = model.encode(prompts)
        self._model, self._recording = model, None
        if shortcuts(model, self.batch).replay is None:
            recorder = Recorder(model.towers["language"], len(self.batch))
            model.run(self.batch, through=recorder.recording())
            self._recording = recorder.recorded()

    def run(self, keep: Mapping[Site, Any], edits: Mapping[Site, Any]) -> Mapping[Site, Any]:
        text_only = not self.batch.image_rows
        start = min((start_of(self._model, site, text_only=text_only) for site in edits), default=0)
        through = None if self._recording is None else self._recording.starting(start)
        # A scope that no prompt has leaves nothing to prove; the loops refuse it by themselves.
        return self._model.run(self.batch, keep, edits, logits=False, must_edit=False, through=through).kept


def leftover(model: TracedModel, prompts: Sequence[Prompt] | FewPrompts, ablation: Ablate) -> Proof:
    """What is left of the ablated directions, by one forward over `prompts` under the ablation.

    Measured at the sites of the edit and, for an ablation at all layers, at every other end of a block as well: a norm
    or a feature that brings the direction back between two edits shows. Float64; positions outside the scope do not
    count.
    """
    edits = ablation.edits(model)
    everywhere = ablation.layer == "all"
    ends = [Site(layer, point) for layer in range(model.n_layers) for point in ("resid_pre", "resid_post")]
    sites = sorted({*edits, *(ends if everywhere else ())}, key=lambda site: (site.layer, site.point != "resid_pre"))
    wanted = {site: found for site in sites if (found := _target(ablation, site, edits)) is not None}
    keep = {site: _share_of(ablation, *found) for site, found in wanted.items()}
    few = prompts if isinstance(prompts, FewPrompts) else FewPrompts(model, prompts)
    kept = few.run(keep, edits)
    return Proof(
        tuple(
            Leftover(site, float(kept[site]), dtype_floor(getattr(model, "dtype", torch.float32), len(basis)))
            for site, (basis, _) in wanted.items()
        )
    )


def _target(ablation: Ablate, site: Site, edits: Mapping[Site, Any]) -> tuple[Tensor, Tensor] | None:
    """(basis [k, d_model], what should be left along it [k]) at a site; at a block's input that of the block before."""
    if site not in edits:
        if site.point == "resid_post" or site.layer == 0:
            return None  # nothing moved there, or nothing was measured there: nothing was taken out
        site = Site(site.layer - 1)
        if site not in edits:
            return None
    found = basis_at(ablation.direction, site, ablation.source)
    assert found is not None
    basis = torch.tensor(found[0], dtype=torch.float64)
    origin = None if found[1] is None else torch.tensor(found[1], dtype=torch.float64)
    if ablation.to == "mean" and origin is not None:
        return basis, basis @ origin
    return basis, torch.zeros(len(basis), dtype=torch.float64)


def _share_of(ablation: Ablate, basis: Tensor, remaining: Tensor) -> Any:
    def keep(resid: Tensor, where: Where) -> Tensor:
        h = resid.double()
        off = (h @ basis.T.to(h) - remaining.to(h)).norm(dim=-1) / h.norm(dim=-1).clamp_min(1e-300)
        return torch.where(where.mask(ablation.at), off, 0.0).amax()

    return keep
