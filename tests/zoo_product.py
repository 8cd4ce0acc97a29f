"""The zoo through the public door: `load_model`, `run` and `generate` against plain hooks on the same module."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from tiny_models import byte_tokenizer
from torch import Tensor, nn
from zoo_checks import CLOSE, differ, need, random_step, watching

from hooks.blocks import UnsupportedArchitecture
from hooks.load import load_model
from hooks.prompt import Prompt
from hooks.site import Site

PROMPTS = [Prompt("a", text="what is this"), Prompt("b", text="a somewhat longer one")]


def kept(resid: Tensor, where: Any) -> Tensor:
    return resid


def by_hand(tensor: Tensor, rows: int, length: int) -> Tensor:
    """A block's tensor as [row, pos, width], by its shape alone: positions first, prompt positions in front, several
    streams after the positions."""
    if tensor.dim() == 3 and tensor.shape[:2] == (length, rows) and rows != length:
        tensor = tensor.transpose(0, 1)
    if tensor.dim() == 4 and tensor.shape[0] not in (rows,):  # planes first
        tensor = tensor.movedim(0, 2)
    if tensor.shape[1] > length and tensor.shape[1] % length:
        tensor = tensor[:, -length:]
    if tensor.shape[1] > length:
        tensor = tensor.unflatten(1, (-1, length)).transpose(1, 2)
    return tensor.flatten(2)


def loaded(module: nn.Module) -> Any:
    return load_model(module, byte_tokenizer(), check=False)


def check_product(model: Any, blocks: Sequence[nn.Module]) -> str:
    """Every residual of a loaded model, and its logits under an edit of one row, are those of plain hooks."""
    module = model.module
    batch = model.encode(PROMPTS).padded("right")
    rows, length = batch.inputs["input_ids"].shape
    need(model.n_layers == len(blocks), f"the model has {model.n_layers} layers")
    accepted = inspect.signature(module.forward).parameters
    inputs = {name: value for name, value in batch.inputs.items() if name in accepted}
    plain = {"use_cache": False} if "use_cache" in accepted else {}
    with watching(blocks) as seen, torch.no_grad():
        base = module(**inputs, **plain).logits
    sites = {Site(layer, "resid_post"): kept for layer in seen.order}
    trace = model.run(batch, keep=sites)
    real = batch.tokens.position >= 0
    for site in sites:
        wanted = by_hand(seen.wrote[site.layer], rows, length)
        got = trace.kept[site]
        need(got.shape == wanted.shape, f"{site} is {tuple(got.shape)}, by hand {tuple(wanted.shape)}")
        need(torch.equal(got[real], wanted[real]), f"{site} is not what plain hooks read")
    last = real.sum(dim=1) - 1
    need(not differ(trace.logits, base[torch.arange(rows), last]), "the logits are not the model's own")
    return _edited(model, module, blocks, batch, inputs | plain, seen, base, last)


def check_sites(model: Any) -> str:
    """`resid_pre + attn_out = resid_mid` and `resid_mid + mlp_out = resid_post` on every block that has them; a block
    without them refuses, and the answer names it."""
    batch = model.encode(PROMPTS).padded("right")
    real, refused = batch.tokens.position >= 0, []
    for layer in sorted(set(range(model.n_layers)) - model.towers["language"].skipped):
        sites = [Site(layer, point) for point in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")]
        try:
            held = model.run(batch, keep=dict.fromkeys(sites, kept)).kept
        except UnsupportedArchitecture:
            refused.append(layer)
            continue
        before, attention, between, mlp, after = (held[site][real] for site in sites)
        need(not differ(before + attention, between), f"resid_pre + attn_out is not resid_mid in block {layer}")
        need(not differ(between + mlp, after), f"resid_mid + mlp_out is not resid_post in block {layer}")
    return f"refused in {len(refused)} of {model.n_layers} blocks" if refused else ""


def _edited(
    model: Any, module: Any, blocks: Any, batch: Any, inputs: Any, seen: Any, base: Tensor, last: Tensor
) -> str:
    """One edit in the middle: the second row alone."""
    layer = seen.order[len(seen.order) // 2]
    rows, length = batch.inputs["input_ids"].shape
    step = random_step(model.d_model, 2 * float(seen.wrote[layer].std()))

    def second_row(resid: Tensor, where: Any) -> Tensor:
        where.tally.add(torch.tensor([0, resid.shape[1]]))
        return torch.stack([resid[0], step(resid[1])])

    def by_plain_hook(tensor: Tensor) -> Tensor:
        return torch.stack([tensor[0], step(tensor[1])])

    got = model.run(batch, edits={Site(layer, "resid_post"): [second_row]}).logits
    if by_hand(seen.wrote[layer], rows, length).shape != seen.wrote[layer].shape:
        need(differ(got[1], base[1, last[1]]), "an edit does nothing")
        return f"the stream is {tuple(seen.wrote[layer].shape)} for {rows} rows of {length} positions"
    with watching(blocks, {layer: by_plain_hook}), torch.no_grad():
        wanted = module(**inputs).logits
    wanted = wanted[torch.arange(rows), last]
    need(not differ(got, wanted), f"edited logits differ by {float((got - wanted).abs().max()):.1e} from a plain hook")
    need(differ(got[1], base[1, last[1]]), "an edit does nothing")
    scale = CLOSE * float(base.abs().max())
    need(float((got[0] - base[0, last[0]]).abs().max()) <= 100 * scale, "an edit of the second row changes the first")
    return ""
