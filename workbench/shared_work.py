"""How a study shares its captures and sweeps out: by `--engine ray` among workers, by `--part i/n` among commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workbench.sources import ModelSource


def shared_out(
    model: Any, asked: Any, known: Iterable[tuple[Any, str | None, Mapping[str, str]]]
) -> tuple[Any, dict[str, Any]]:
    """The model as `capture` and `sweep` take it, and their `part` and `engine`, as a study's command line has them.
    `known`: the models of the study (None: not loaded), with base and adapters; workers load these themselves. One
    that a script made by itself is run here."""
    shared = {"part": getattr(asked, "part", None)}
    if getattr(asked, "engine", "process") != "ray":
        return model, shared
    for mine, base, adapters in known:
        if mine is not None and model.module is mine.module and isinstance(model.active, str | None):
            return ModelSource(str(base), dict(adapters) or None, model.active or "base"), {**shared, "engine": "ray"}
    return model, shared


def stop_without(missing: Sequence[Any], name: str, asked: Any) -> None:
    """Ends the command where its part is done, and what follows needs what other parts do."""
    if missing:
        print(
            f"{name}: part {asked.part} is done, {len(missing)} units are for other parts. What follows needs them "
            "all: expected the same commands again when all have ended",
            flush=True,
        )
        raise SystemExit(0)
