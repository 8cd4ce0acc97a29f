"""What may take part in a training: interventions that act in its forwards, and what looks on."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from hooks.edits import LowRankEdit
from hooks.site import Site


@runtime_checkable
class Acts(Protocol):
    """What is done to a model, as `wb.Steer` and `wb.Ablate` say it."""

    def edits(self, model: Any) -> dict[Site, list[LowRankEdit]]: ...

    def describe(self) -> dict[str, Any]: ...


@runtime_checkable
class Watch(Protocol):
    """What looks on while an adapter is trained, as `wb.Drift` does."""

    def identity(self) -> str | None:
        """What of it decides the weights (an early stop); None for one that only looks."""
        ...

    def refuse_unwatched(self, run: str) -> None:
        """Raises FileExistsError when the adapter is finished and was not watched to its end."""
        ...

    def callback(self, model: Any, run: str | None = None) -> Any:
        """The TrainerCallback that watches this model in the run of this name."""
        ...
