"""Arrays of a finished measurement on disk, so that a study that was stopped goes on behind it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stores import content_key
from stores.files import write_file
from workbench.interventions.gating_questions import GatedQuestion
from workbench.subspace.array_files import npz_arrays

Arrays = Mapping[str, np.ndarray]
KEY = "content_key"


def kept_arrays(to: Path | None, spec: Any, make: Callable[[], Arrays]) -> Arrays:
    """What `make` gives, from the file `to` where that holds the arrays of this very `spec`; another's are made anew,
    and replaced. A file is published whole or not at all."""
    if to is None:
        return make()
    key = content_key(spec)
    if to.is_file():
        held = npz_arrays(to)
        if KEY in held and str(held[KEY]) == key:
            return {name: array for name, array in held.items() if name != KEY}
    found = make()
    arrays: dict[str, Any] = {**found, KEY: np.array(key)}
    data = io.BytesIO()
    np.savez(data, **arrays)
    write_file(to, data.getvalue())
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
