"""Where an intervention acts, and which vector it takes there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hooks.model import TracedModel
from hooks.site import Site
from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions

Layers = int | np.integer | Sequence[int] | Literal["all"]


def sites_of(layer: Layers, n_layers: int, name: str, injected: Sequence[int] = ()) -> list[Site]:
    """The sites that `layer` stands for: `resid_post` of the layers given; `"all"` is the embedding (`resid_pre:0`) and
    every `resid_post`, and the inputs of the `injected` layers, where image features come in from outside. A layer
    outside the model raises ValueError; `name` says whose argument it was."""
    if isinstance(layer, str):
        if layer != "all":
            raise ValueError(f"{name}(layer={layer!r}) is unknown: expected a layer, a list of layers, or 'all'.")
        inputs = [Site(each, "resid_pre") for each in (0, *injected)]
        return [*inputs, *(Site(each) for each in range(n_layers))]
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
    At the input of an injected layer without a vector of its own it is that of the block before.
    """
    chosen = site if source is None else Site(source)
    if chosen not in found.sites and chosen.point == "resid_pre" and chosen.layer > 0:
        chosen = Site(chosen.layer - 1)
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


def placed(
    found: Directions | Subspace, layer: Layers, source: int | None, model: TracedModel, name: str
) -> list[tuple[Site, np.ndarray, np.ndarray | None]]:
    """(site, orthonormal rows [k, d_model], origin) wherever the intervention called `name` acts on this model.

    Raises ValueError when the vectors are another model's, of another width, or have norm 0 at every site named.
    """
    refuse_other_model(found, model, name)
    out = []
    injected = model.injected_layers() if layer == "all" else ()
    for site in sites_of(layer, model.n_layers, name, injected):
        if (here := basis_at(found, site, source)) is not None:
            out.append((site, *here))
    if not out:
        raise ValueError(
            f"{name}(layer={layer}) has nothing to act with: the direction has norm 0 at every site named."
        )
    return out


def refuse_other_model(found: Directions | Subspace, model: TracedModel, name: str) -> None:
    this = str(getattr(model, "identity", {}).get("model", ""))
    mend = "carry them over with wb.fit_transfer(...).map(v)"
    if found.d_model != model.d_model:
        raise ValueError(
            f"{name} has vectors of width {found.d_model}, but this model's residual stream is {model.d_model} wide: "
            f"they were fitted on {found.model or 'another model'}; {mend}."
        )
    if found.model and this and found.model != this:
        raise ValueError(
            f"{name} has vectors of the model {found.model!r}, but this is {this!r}: {mend}, or, where both share one "
            f"residual space (fine-tunes of one base), say so with v.replace(model={this!r})."
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
