"""Reading: one unit of prompts through the model, batch by batch, every variant, into slabs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hooks.adapter_rows import RowsUnknown
from hooks.backends.hf import HuggingFaceModel
from hooks.encode import Batch
from hooks.host_copy import Arriving, HostSlot, ToHost
from hooks.model import Keep
from hooks.site import Site
from hooks.slab import Slab
from stores import Unit
from workbench.captures.blocks import Captured, Index, index_of
from workbench.captures.halving import SPLIT, in_parts, joined_index, joined_values
from workbench.captures.plan import Kept, LinearEdits

RoomOf = Callable[[str, tuple[int, ...], torch.dtype], Tensor]
"""Gives memory for one stream (by its name)."""
Part = tuple[dict[str, Tensor], dict[str, Index]]
"""Rows of some prompts, by stream, and what they are of."""


@dataclass(frozen=True)
class Reading:
    """Captures units: the forwards are queued, and what they leave is on its way to the host when a call returns."""

    model: HuggingFaceModel
    kept: Sequence[Kept]
    variants: Sequence[str]
    edits: LinearEdits
    together: bool
    host: ToHost
    batch_of: Callable[[Sequence[str]], Batch]  # prompt ids -> their batch
    max_tokens: int  # of one forward of several variants

    def __call__(self, unit: Unit, slot: HostSlot) -> Captured:
        batches = unit.batched()
        # The rows of a single batch are all there is: they go where they belong at once.
        room = partial(self.host.room, slot) if len(batches) == 1 else self._own_room
        parts = [part for batch in batches for part in in_parts(batch, partial(self._part, batch, room))]
        if len(parts) == 1:
            return Captured(unit, self.host.send(slot, parts[0][0]), parts[0][1])
        if len(parts) > len(batches):  # the device has no room to spare
            values, index = self._joined([({k: v.cpu() for k, v in part.items()}, i) for part, i in parts], slot.room)
            return Captured(unit, Arriving(values), index, note=SPLIT)
        values, index = self._joined(parts, partial(self.host.room, slot))
        return Captured(unit, self.host.send(slot, values), index)

    def _part(self, batch: Sequence[str], room: RoomOf, ids: Sequence[str]) -> Part:
        """Rows of these prompts of a batch; of a half, they leave the device, which has too little memory, at once."""
        if len(ids) == len(batch):
            return self._read(ids, room)
        values, index = self._read(ids, self._own_room)
        return {name: each.cpu() for name, each in values.items()}, index

    def _joined(self, parts: Sequence[Part], room: RoomOf) -> Part:
        values, index = {}, {}
        for kept in self.kept:
            of_stream = [part for part, _ in parts if kept.name in part]
            if of_stream:
                rows = sum(part[kept.name].shape[1] for part in of_stream)
                out = room(kept.name, (len(kept.sites), rows, kept.stream.d_model), kept.dtype)
                values[kept.name] = joined_values([part[kept.name] for part in of_stream], len(self.variants), out)
            index[kept.name] = joined_index(
                [each[kept.name] for _, each in parts if kept.name in each], len(self.variants)
            )
        return values, index

    def _own_room(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.model.device)

    def _read(self, ids: Sequence[str], room: RoomOf) -> Part:
        batch = self.batch_of(ids)
        # Text alone does not pass the vision tower: such a unit has no rows there.
        seen = [part for part in self.kept if part.tower == "language" or batch.image_rows]
        slabs = self._slabs(seen, batch, room)
        index = {name: index_of(slab, batch, self.variants) for name, slab in slabs.items()}
        return {name: slab.values for name, slab in slabs.items() if slab.values is not None}, index

    def _slabs(self, seen: Sequence[Kept], batch: Batch, room: RoomOf) -> dict[str, Slab]:
        if not seen:
            return {}
        if self.together:
            view, rows = self.model.across(batch, self.variants)
            try:
                if all(part.tower == "language" for part in seen):  # rows that are known before the forward
                    return self._in_parts(seen, batch, rows, room)
                return self._run([view], seen, rows, room)
            except RowsUnknown:
                pass
            except torch.OutOfMemoryError:
                if len(batch) > 1:  # the unit is halved first; of one prompt its variants go one by one
                    raise
        return self._run([self.model.variant(variant) for variant in self.variants], seen, batch, room)

    def _in_parts(self, seen: Sequence[Kept], batch: Batch, rows: Batch, room: RoomOf) -> dict[str, Slab]:
        """Variants as rows, in as many forwards as the budget asks for."""
        slabs, keep = self._kept(seen, rows, room, 1)
        for view, some in self.model.across_in_parts(batch, self.variants, self.max_tokens):
            for slab in slabs.values():
                slab.part(some.tokens, self.model.device)
            view.run(some, keep, self.edits, logits=False, must_edit=False)
            for slab in slabs.values():
                slab.next_pass()
        return slabs

    def _run(
        self, views: Sequence[HuggingFaceModel], seen: Sequence[Kept], batch: Batch, room: RoomOf
    ) -> dict[str, Slab]:
        """A forward of the same rows for each view, one behind the other into the same slabs."""
        slabs, keep = self._kept(seen, batch, room, len(views))
        for view in views:
            view.run(batch, keep, self.edits, logits=False, must_edit=False)
            for slab in slabs.values():
                slab.next_pass()
        return slabs

    def _kept(
        self, seen: Sequence[Kept], batch: Batch, room: RoomOf, passes: int
    ) -> tuple[dict[str, Slab], dict[Site, Keep]]:
        slabs = {part.name: self._slab(part, room, passes) for part in seen}
        keep: dict[Site, Keep] = {}
        for part in seen:
            slab = slabs[part.name]
            if part.tower == "language":
                slab.expect(batch.tokens, self.model.device)
            keep |= {site: slab.plane(layer) for layer, site in enumerate(part.sites)}
        return slabs, keep

    def _slab(self, part: Kept, room: RoomOf, passes: int) -> Slab:
        own = partial(room, part.name)
        return Slab(part.pool, len(part.sites), part.stream.d_model, part.dtype, own, passes=passes)
