"""Where an intervention acts, and which vector it takes there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hooks.site import Site
from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions

Layers = int | np.integer | Sequence[int] | Literal["all"]


def sites_of(layer: Layers, n_layers: int, name: str) -> list[Site]:
    """The sites that `layer` stands for: `resid_post` of the layers given; `"all"` is the embedding (`resid_pre:0`) and
    every `resid_post`. A layer outside the model raises ValueError; `name` says whose argument it was."""
    if isinstance(layer, str):
        if layer != "all":
            raise ValueError(f"{name}(layer={layer!r}) is unknown: expected a layer, a list of layers, or 'all'.")
        return [Site(0, "resid_pre"), *(Site(each) for each in range(n_layers))]
    layers = [layer] if isinstance(layer, int | np.integer) else list(layer)
    if not layers:
        raise ValueError(f"{name}(layer=[]) names no layer: expected at least one.")
    for each in layers:
        if not 0 <= each < n_layers:
            raise ValueError(
                f"{name}(layer={each}) is outside this model: expected 0..{n_layers - 1} (layers count from 0)."
            )
    return [Site(int(each)) for each in layers]


def basis_at(
    found: Directions | Subspace, site: Site, source: int | None
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """(orthonormal rows [k, d_model], origin [d_model] or None) that act at `site`: the site's own, or layer
    `source`'s.

    None where there is nothing to act with: no vector was measured at the embedding, or nothing moved there (norm 0).
    """
    chosen = site if source is None else Site(source)
    if chosen not in found.sites:
        if chosen.point == "resid_pre":
            return None
        stored = ", ".join(str(each) for each in found.sites)
        raise ValueError(f"there is no vector at {chosen}: the {type(found).__name__.lower()} given holds {stored}.")
    index = found.sites.index(chosen)
    origin = None if found.origin is None else found.origin[index]
    if isinstance(found, Directions):
        return (found.unit[index][None], origin) if found.norm[index] > 0 else None
    return found.basis[index], origin


def check_width(found: Directions | Subspace, d_model: int, name: str) -> None:
    """Raises ValueError when the vectors are of another width than the model's residual stream."""
    width = found.unit.shape[-1] if isinstance(found, Directions) else found.basis.shape[-1]
    if width != d_model:
        raise ValueError(
            f"{name} has vectors of width {width}, but this model's residual stream is {d_model} wide: they were "
            f"fitted on {found.model or 'another model'}; carry them over with wb.fit_transfer(...).map(v)."
        )


def as_rows(values: np.ndarray) -> Tensor:
    """A [k, ...] array as one cell of an edit: [1, k, ...] in float32, the precision in which edits are computed."""
    return torch.from_numpy(np.array(values, dtype=np.float32))[None]


def layer_facts(layer: Layers) -> dict[str, int | str | None]:
    """The layers as a table states them: `layer` where it is one, and `layers` as text ("all", "3", "0,1,2")."""
    if isinstance(layer, str):
        return {"layer": None, "layers": layer}
    listed = [layer] if isinstance(layer, int | np.integer) else list(layer)
    return {"layer": int(listed[0]) if len(listed) == 1 else None, "layers": ",".join(str(each) for each in listed)}
