"""An independent reading of the residual stream for tests: plain hooks on modules whose paths are written by hand."""

from __future__ import annotations

import torch

from hooks.edits import LowRankEdit
from hooks.site import Site

LAYERS_AT = {  # written down by hand, so that a wrong search cannot agree with itself
    "LlamaForCausalLM": "model.layers",
    "GPT2LMHeadModel": "transformer.h",
    "Gemma3ForConditionalGeneration": "model.language_model.layers",
    "vision": "model.vision_tower.encoder.layers",
}


def everything(resid, where):
    return resid


def blocks_of(model, tower="language"):
    name = type(model.module).__name__ if tower == "language" else "vision"
    return list(model.module.get_submodule(LAYERS_AT[name]))


def own_inputs(model, batch) -> dict[str, torch.Tensor]:
    """The inputs of a forward; padded text goes without a mask on models that were seen to do without."""
    bare = not model.masks_text and not batch.image_rows
    return {name: value for name, value in batch.inputs.items() if not (bare and name == "attention_mask")}


def own_hooks(model, batch, tower="language") -> dict[Site, torch.Tensor]:
    """Every residual of one tower, and under None the logits: plain hooks, the model called by hand."""
    seen, handles = {}, []
    for layer, block in enumerate(blocks_of(model, tower)):

        def before(module, args, kwargs, layer=layer):
            seen[Site(layer, "resid_pre", tower)] = (args[0] if args else kwargs["hidden_states"]).clone()

        def after(module, args, output, layer=layer):
            seen[Site(layer, "resid_post", tower)] = (output[0] if isinstance(output, tuple) else output).clone()

        handles += [block.register_forward_pre_hook(before, with_kwargs=True), block.register_forward_hook(after)]
    try:
        with torch.no_grad():
            seen[None] = model.module(**own_inputs(model, batch), use_cache=False).logits
    finally:
        [handle.remove() for handle in handles]
    return seen


def hooks_left(model) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.module.modules())


def sites_of(model, tower="language"):
    return [Site(layer, point, tower) for layer in range(model.depths[tower]) for point in ("resid_pre", "resid_post")]


def noise(model, size=1.0, scope="all", seed=0, k=1) -> LowRankEdit:
    """A steering edit by a random vector: LayerNorm models are blind to the all-ones direction (pitfall 33)."""
    write = torch.randn(1, k, model.d_model, generator=torch.Generator().manual_seed(seed))
    write = size * write / write.norm(dim=-1, keepdim=True)
    return LowRankEdit(write, write, torch.zeros(1, k), torch.ones(1, k), torch.ones(1), (scope,))
