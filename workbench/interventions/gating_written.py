"""Arrays of a finished measurement on disk, so that a study that was stopped goes on behind it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stores import content_key
from workbench.interventions.gating_questions import GatedQuestion

Arrays = Mapping[str, np.ndarray]
KEY = "content_key"


def kept_arrays(to: Path | None, spec: Any, make: Callable[[], Arrays]) -> Arrays:
    """What `make` gives, from the file `to` where that holds the arrays of this very `spec`; another's are made anew,
    and replaced. A file is published whole or not at all."""
    if to is None:
        return make()
    key = content_key(spec)
    if to.is_file():
        with np.load(to, allow_pickle=False) as held:
            if KEY in held and str(held[KEY]) == key:
                return {name: held[name] for name in held.files if name != KEY}
    found = make()
    to.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=to.parent, prefix=f".{to.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            arrays: dict[str, Any] = {**found, KEY: np.array(key)}
            np.savez(file, **arrays)
        os.replace(beside, to)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return found


def spec_of(model: Any, questions: Sequence[GatedQuestion], *more: Any) -> list[Any]:
    """What a measurement depends on: the model and its variant, every question as it is read, and `more`."""
    read = [
        [one.id, one.triggered.input_ids.tolist(), one.reference.input_ids.tolist(), one.deciding.right,
         one.deciding.contrary]
        for one in questions
    ]  # fmt: skip
    adapters = None if model.adapters is None or model.active is None else str(model.active)
    return [model.identity, adapters, read, *more]
