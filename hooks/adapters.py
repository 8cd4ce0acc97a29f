"""Adapters of one model, switched on and off in place: base and fine-tuned share their weights and are never merged.

One variant acts on a whole batch, or each row has its own (`hooks.adapter_rows`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import nn

from hooks.adapter_rows import BASE, Reads, adapters_by_row, lora_layers, measured_reads, why_not_by_row
from hooks.encode import Batch
from hooks.stream import find_stream
from hooks.structure import UnsupportedArchitecture, has_vision, unwrapped

Active = str | None | tuple[str, ...]  # an adapter, none of them (the base), or one variant a row


class Adapters:
    """The adapters injected into one model. `activate(None)` is the base model; switching is remembered, so that runs
    of the same variant do not pay for it again."""

    def __init__(self, peft_model: Any, names: tuple[str, ...]) -> None:
        self._peft = peft_model
        self.names = names
        self._current: str | None = ""  # unknown until the first activation
        self._reads: dict[str, Reads] | None = None  # measured when rows first differ
        self._seeing: set[int] | None = None
        self.activate(names[0])

    def activate(self, name: str | None) -> None:
        """Makes one adapter, or none, act in every following forward."""
        if name == self._current:
            return
        if name is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(name)
        self._current = name

    @contextmanager
    def acting(self, active: Active, batch: Batch | None = None) -> Iterator[None]:
        """While the body runs its forward on `batch`, `active` acts: one variant on all rows, or for each row its own.

        Raises ValueError where rows and variants differ in number, or where these adapters cannot act row by row; from
        inside the forward, RowsUnknown where a layer's rows cannot be told apart.
        """
        if not isinstance(active, tuple):
            self.activate(active)
            yield
            return
        if batch is None or len(batch) != len(active):
            rows = "no batch" if batch is None else f"a batch of {len(batch)} rows"
            raise ValueError(
                f"this view gives {len(active)} rows their variants, and {rows} came: expected one row for each. "
                "`model.across(batch, variants)` makes both."
            )
        if len(set(active)) == 1:  # as any other batch of that variant, bit for bit
            self.activate(None if active[0] == "base" else active[0])
            yield
            return
        if why := self.why_not_by_row(active):
            raise ValueError(f"these variants cannot share a forward: {why}. Run them one by one: model.variant(name).")
        self.activate(next(name for name in active if name != "base"))
        names = [BASE if name == "base" else name for name in active]
        with adapters_by_row(self._module, names, batch, self._measured(), self._sees):
            yield

    def why_not_by_row(self, variants: tuple[str, ...]) -> str | None:
        """Why these variants cannot be rows of one batch, as far as it is known before a forward; None: they can."""
        if why := why_not_by_row(self._module, set(variants) - {"base"}):
            return why
        reads = self._measured()
        layers = lora_layers(self._module)
        if not any(not self._sees(layer) for layer in layers.values()):
            return None  # a vision tower alone: its rows are told by the pictures
        return None if reads else "a short forward on text did not show which rows its LoRA layers read"

    @property
    def _module(self) -> Any:
        return unwrapped(self._peft)

    def _measured(self) -> dict[str, Reads]:
        if self._reads is None:
            try:
                self._reads = measured_reads(self._module)
            except Exception:  # a model that cannot run on text alone: nothing is known of its rows
                self._reads = {}
        return self._reads

    def _sees(self, layer: nn.Module) -> bool:
        """True for a layer inside the blocks of the vision tower."""
        if self._seeing is None:
            self._seeing = set()
            if has_vision(self._module.config):
                with suppress(UnsupportedArchitecture):
                    blocks = find_stream(self._module, "vision").blocks
                    self._seeing = {id(part) for block in blocks for part in block.modules()}
        return id(layer) in self._seeing
