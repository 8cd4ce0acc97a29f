"""Adapters of one model, switched on and off in place: base and fine-tuned share their weights and are never merged."""

from __future__ import annotations

from typing import Any


class Adapters:
    """The adapters injected into one model. `activate(None)` is the base model; switching is remembered, so that runs
    of the same variant do not pay for it again."""

    def __init__(self, peft_model: Any, names: tuple[str, ...]) -> None:
        self._peft = peft_model
        self.names = names
        self._current: str | None = ""  # unknown until the first activation
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
