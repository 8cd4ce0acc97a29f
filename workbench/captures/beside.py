"""Beside: the residuals of forwards that something else runs, in a store such as capture makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hooks.backends.hf import HuggingFaceModel
from hooks.encode import Batch
from hooks.host_copy import Arriving, ToHost
from hooks.model import Keep, Trace
from hooks.positions import Scope
from hooks.prompt import Prompt
from hooks.site import Site, parse_sites
from hooks.slab import Slab
from stores import ActivationStore, Unit, provenance
from workbench.captures.blocks import Captured, Index, index_of
from workbench.captures.halving import SPLIT, joined_index
from workbench.captures.plan import kept_streams, scopes_of, spec_of, variants_of

Run = Callable[[dict[Site, Keep]], Trace]


class Beside:
    """Captures the unedited forwards of the model's variant, unit by unit: the same store that `wb.capture` makes of
    these prompts, at the cost of the copy alone. Raises StoreMismatch when `to` holds something else, ValueError for
    sites of a vision tower, whose features a sweep reads once for many forwards."""

    def __init__(
        self,
        model: HuggingFaceModel,
        prompts: Sequence[Prompt],
        units: Sequence[Sequence[int]],
        *,
        sites: str | Site | Iterable[str | Site],
        at: Scope,
        to: str | Path,
    ) -> None:
        wanted = parse_sites(sites, n_layers=model.depths)
        if any(site.tower != "language" for site in wanted):
            raise ValueError(
                "a sweep reads each picture once for many forwards, so its vision tower is not captured beside it: "
                "expected sites of the language stream; capture the others with wb.capture."
            )
        scopes = scopes_of(at, wanted, prompts)
        self._model, self._variants = model, variants_of(model, None)
        self._kept = kept_streams(model, wanted, scopes, "none", prompts)
        self._streams = [part.stream for part in self._kept]
        self._host = ToHost(model.device)
        self._slot = self._host.slots(1)[0]
        self.store = ActivationStore.create(
            to,
            streams=self._streams,
            prompts=[prompt.record() for prompt in prompts],
            plan=[Unit.of([prompts[i].id for i in unit]) for unit in units],
            spec=spec_of(model, self._variants, scopes, "none", ()),
            provenance=provenance.collect(**model.facts),
        )
        self._missing = {frozenset(unit.prompt_ids): unit for unit in self.store.missing()}
        self._unit_of = {prompt: unit for unit in self._missing.values() for prompt in unit.prompt_ids}
        self._parts: dict[str, list[_Part]] = {}

    def lacks(self, ids: Sequence[str]) -> bool:
        """True where the rows of these prompts, a unit of the plan, are not in the store yet."""
        return frozenset(ids) in self._missing

    def around(self, batch: Batch, run: Run) -> Trace:
        """The trace of `run(keep)`, a forward of the whole batch; what it kept is committed when this returns. The
        batch is a unit of the plan, or a part of one that the device had no memory for: then its unit is committed with
        its last part."""
        unit = self._unit_of.get(batch.ids[0])
        if unit is None:
            return run({})
        here = {name for part in self._parts.get(unit.key, ()) for name in part.ids}
        if not set(batch.ids) <= set(unit.prompt_ids) - here:
            return run({})
        whole = len(batch.ids) == len(unit.prompt_ids)
        room_of = partial(self._host.room, self._slot) if whole else self._own_room
        slabs, keep = {}, {}
        for part in self._kept:
            room = partial(room_of, part.name)
            slab = slabs[part.name] = Slab(part.pool, len(part.sites), part.stream.d_model, part.dtype, room)
            slab.expect(batch.tokens, self._model.device)
            keep |= {site: slab.plane(layer) for layer, site in enumerate(part.sites)}
        trace = run(keep)
        index = {name: index_of(slab, batch, self._variants) for name, slab in slabs.items()}
        values = {name: slab.values for name, slab in slabs.items() if slab.values is not None}
        if whole:
            self._commit(Captured(unit, self._host.send(self._slot, values), index))
            return trace
        parts = self._parts.setdefault(unit.key, [])
        parts.append(_Part(batch.ids, {name: each.cpu() for name, each in values.items()}, index))
        if sum(len(part.ids) for part in parts) == len(unit.prompt_ids):
            self._commit(_joined(unit, self._parts.pop(unit.key)))
        return trace

    def _own_room(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self._model.device)

    def _commit(self, captured: Captured) -> None:
        self.store.commit(captured.unit, captured.blocks(self._streams), captured.note)
        del self._missing[frozenset(captured.unit.prompt_ids)]
        for prompt in captured.unit.prompt_ids:
            del self._unit_of[prompt]


@dataclass(frozen=True)
class _Part:
    """What was kept of some prompts of a unit."""

    ids: Sequence[str]
    values: dict[str, Tensor]
    index: dict[str, Index]


def _joined(unit: Unit, parts: list[_Part]) -> Captured:
    parts.sort(key=lambda part: unit.prompt_ids.index(part.ids[0]))
    values = {name: torch.cat([part.values[name] for part in parts], dim=1) for name in parts[0].values}
    index = {name: joined_index([part.index[name] for part in parts], 1) for name in parts[0].index}
    return Captured(unit, Arriving(values), index, note=SPLIT)
