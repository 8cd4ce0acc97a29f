"""Whether a model needs its attention mask for text that is padded on the right: measured when it is loaded.

Without one, attention takes its causal kernel, which skips what lies above the diagonal: 4 % of a forward at 128
positions, 6 % at 400, 26 % at 1000 (a Qwen2 of 8 layers of width 512 in bfloat16 on one CPU core); and on a GPU
nothing is waited for, where transformers looks into a mask before every forward. Real positions see no pad all the
same where nothing flows from right to left; numbers move within rounding, for it is another kernel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from hooks.asked import distance
from hooks.encode import Batch
from hooks.pool import Pool
from hooks.site import Site


def unneeded(model: Any, batch: Batch, tolerance: float) -> bool:
    """True where the padded rows of `batch`, without a mask, have the residuals that they have alone, up to the
    model's own rounding, and not one bit of theirs depends on which tokens the pads are.

    The second is the sharp one: it sees a model that looks ahead, or that sends pads through the same experts as
    tokens, however little that moves. Text alone is asked; `model.run` keeps the mask of a batch with pictures.
    """
    real, ids = batch.tokens.position >= 0, batch.inputs["input_ids"]
    keep = {Site(model.n_layers - 1): Pool("all")}

    def residuals(rows: Batch) -> torch.Tensor:
        return model.run(rows, keep, logits=False).kept[Site(model.n_layers - 1)]

    alone = torch.cat([residuals(batch.rows([row])) for row in range(len(batch))])
    other = next((token for token in ids[real].tolist() if token != model.encoder.pad_id), None)
    if other is None or bool(real.all()):
        return False  # no pads, or no other token to put there: nothing can be seen
    repadded = replace(batch, inputs={**batch.inputs, "input_ids": torch.where(real, ids, other)})
    before, model.masks_text = model.masks_text, False
    try:
        bare = residuals(batch)
        return distance(bare, alone) <= tolerance and torch.equal(bare, residuals(repadded))
    except Exception:  # what cannot run without a mask needs one, for whatever reason
        return False
    finally:
        model.masks_text = before


def leave_out(model: Any) -> None:
    """From now on `run` passes padded text without a mask. The model's identity says so: numbers are those of another
    kernel, so a store that was begun with a mask is not continued without."""
    model.masks_text = False
    model.identity["mask"] = "pictures only"
