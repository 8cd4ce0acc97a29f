"""Injected layers: blocks whose input is not the output of the block before, once a picture is read.

Deepstack models add image features to the stream between blocks, so what was ablated at a block's output comes back at
the next block's input. Found by looking: one forward with a picture of noise.
"""

from __future__ import annotations

from typing import Any

import torch

from hooks.example import picture_batches
from hooks.site import Site


def injected_layers(model: Any) -> tuple[int, ...]:
    """The layers l >= 1 of the language stream with `resid_pre(l) != resid_post(l-1)` when a picture is read; empty for
    a model that reads none."""
    if model.encoder.processor is None or "language" not in model.towers:
        return ()
    sites = [Site(layer, point) for layer in range(model.n_layers) for point in ("resid_pre", "resid_post")]
    batch = picture_batches(model.encoder, ["a"], seeds=[0])[0]
    kept = model.run(batch, dict.fromkeys(sites, lambda resid, where: resid.clone())).kept
    return tuple(
        layer
        for layer in range(1, model.n_layers)
        if not torch.equal(kept[Site(layer, "resid_pre")], kept[Site(layer - 1)])
    )
