"""Reading: one unit of prompts through the model, every variant, into slabs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from hooks.adapter_rows import RowsUnknown
from hooks.backends.hf import HuggingFaceModel
from hooks.encode import Batch
from hooks.host_copy import HostSlot, ToHost
from hooks.model import Keep
from hooks.site import Site
from hooks.slab import Slab
from stores import Unit
from workbench.captures.blocks import Captured, index_of
from workbench.captures.plan import Kept, LinearEdits


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
        batch = self.batch_of(unit.prompt_ids)
        # Text alone does not pass the vision tower: such a unit has no rows there.
        seen = [part for part in self.kept if part.tower == "language" or batch.image_rows]
        slabs = self._slabs(seen, batch, slot)
        index = {name: index_of(slab, batch, self.variants) for name, slab in slabs.items()}
        values = {name: slab.values for name, slab in slabs.items() if slab.values is not None}
        return Captured(unit, self.host.send(slot, values), index)

    def _slabs(self, seen: Sequence[Kept], batch: Batch, slot: HostSlot) -> dict[str, Slab]:
        if not seen:
            return {}
        if self.together:
            view, rows = self.model.across(batch, self.variants)
            try:
                if all(part.tower == "language" for part in seen):  # rows that are known before the forward
                    return self._in_parts(seen, batch, rows, slot)
                return self._run([view], seen, rows, slot)
            except RowsUnknown:
                pass
        return self._run([self.model.variant(variant) for variant in self.variants], seen, batch, slot)

    def _in_parts(self, seen: Sequence[Kept], batch: Batch, rows: Batch, slot: HostSlot) -> dict[str, Slab]:
        """Variants as rows, in as many forwards as the budget asks for."""
        slabs, keep = self._kept(seen, rows, slot, 1)
        for view, some in self.model.across_in_parts(batch, self.variants, self.max_tokens):
            for slab in slabs.values():
                slab.part(some.tokens, self.model.device)
            view.run(some, keep, self.edits, logits=False, must_edit=False)
            for slab in slabs.values():
                slab.next_pass()
        return slabs

    def _run(
        self, views: Sequence[HuggingFaceModel], seen: Sequence[Kept], batch: Batch, slot: HostSlot
    ) -> dict[str, Slab]:
        """A forward of the same rows for each view, one behind the other into the same slabs."""
        slabs, keep = self._kept(seen, batch, slot, len(views))
        for view in views:
            view.run(batch, keep, self.edits, logits=False, must_edit=False)
            for slab in slabs.values():
                slab.next_pass()
        return slabs

    def _kept(
        self, seen: Sequence[Kept], batch: Batch, slot: HostSlot, passes: int
    ) -> tuple[dict[str, Slab], dict[Site, Keep]]:
        slabs = {part.name: self._slab(part, slot, passes) for part in seen}
        keep: dict[Site, Keep] = {}
        for part in seen:
            slab = slabs[part.name]
            if part.tower == "language":
                slab.expect(batch.tokens, self.model.device)
            keep |= {site: slab.plane(layer) for layer, site in enumerate(part.sites)}
        return slabs, keep

    def _slab(self, part: Kept, slot: HostSlot, passes: int) -> Slab:
        room = partial(self.host.room, slot, part.name)
        return Slab(part.pool, len(part.sites), part.stream.d_model, part.dtype, room, passes=passes)
