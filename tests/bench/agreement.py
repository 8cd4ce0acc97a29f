"""Whether two tools captured the same residuals: asserted before a clock starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from models import Subject
from torch import Tensor

import workbench as wb

# Batches of other shapes round otherwise in bfloat16: up to 0.01 of a residual's norm on 8 layers. A wrong layer is off
# by 0.17 and more (random layers add about as much as is there already), a wrong token by about 1.
TOLERANCE = 0.05


def last_tokens(store: wb.ActivationStore, prompts: Sequence[wb.Prompt]) -> Tensor:
    """[layer, prompt, d_model], float32, of a store of last tokens, in the order of the prompts."""
    at = {identifier: row for row, identifier in enumerate(store.prompt_ids)}
    rows = [at[prompt.id] for prompt in prompts]
    return torch.stack([torch.from_numpy(store.values(site))[rows] for site in store.sites])


def one_by_one(subject: Subject, texts: Sequence[str]) -> Tensor:
    """[layer, text, d_model], float32: each text alone through the module, with plain hooks of PyTorch."""
    kept: list[list[Tensor]] = []
    layers = subject.module.model.layers
    handles = [
        layer.register_forward_hook(
            lambda module, inputs, output: kept[-1].append(_tensor(output)[0, -1].float().cpu())
        )
        for layer in layers
    ]
    try:
        for text in texts:
            kept.append([])
            ids = torch.tensor([subject.tokenizer(text).input_ids], device=subject.module.device)
            with torch.inference_mode():
                subject.module.model(ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([torch.stack(of_text) for of_text in kept], dim=1)


def _tensor(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def assert_close(ours: Tensor, theirs: Tensor, what: str) -> None:
    """Of as many layers as theirs has, from the first: no row differs by more than TOLERANCE of its norm."""
    ours, theirs = ours[: len(theirs)].float(), theirs.float()
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} against {tuple(theirs.shape)}"
    off = ((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max().item()
    assert off < TOLERANCE, f"{what}: residuals differ by {off:.3f} of their norm, expected less than {TOLERANCE}"
