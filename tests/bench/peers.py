"""How others capture the last token's residual behind every layer: each as its own documentation would have it, from
texts to a tensor in memory. A peer that is not installed is None."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from clocks import SETTING
from models import Subject, byte_tokenizer
from torch import Tensor

Peer = Callable[[list[str]], Tensor]  # texts -> [layer, row, d_model] on the CPU


def plain_forward(subject: Subject) -> Peer:
    """Hugging Face with its defaults (cache, all logits), keeping nothing: what a capture could cost at least if it
    were done in this order."""

    def run(texts: list[str]) -> Tensor:
        inputs = subject.tokenizer(texts, padding=True, return_tensors="pt").to(SETTING.device)
        with torch.inference_mode():
            subject.module(**inputs)
        return torch.empty(0)

    return run


def hidden_states(subject: Subject) -> Peer:
    """Hugging Face with `output_hidden_states=True`. Its last entry is behind the final norm, so that the last layer's
    residual is not to be had from it: one layer less than ours."""

    def run(texts: list[str]) -> Tensor:
        inputs = subject.tokenizer(texts, padding=True, return_tensors="pt").to(SETTING.device)
        with torch.inference_mode():
            states = subject.module(**inputs, output_hidden_states=True).hidden_states
        row, last = torch.arange(len(texts)), inputs["attention_mask"].sum(dim=1).cpu() - 1
        return torch.stack([state[row, last] for state in states[1:-1]]).cpu()

    return run


def nnsight_model(subject: Subject) -> Any:
    """nnsight's model of the subject; None where it is not installed. It puts wrappers round the forwards of what it is
    given, so it gets modules of its own, around the same weights."""
    if find_spec("nnsight") is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nnsight as library

        weights = {id(tensor): tensor for tensor in [*subject.module.parameters(), *subject.module.buffers()]}
        module = copy.deepcopy(subject.module, weights)
        return library.TransformersModel(module, task="text-generation", tokenizer=byte_tokenizer())


def nnsight(subject: Subject) -> Peer | None:
    """One trace a batch; the last token is chosen inside it (nnsight pads left), saved at every layer."""
    model = nnsight_model(subject)
    if model is None:
        return None
    import nnsight as library

    def run(texts: list[str]) -> Tensor:
        with torch.inference_mode(), model.trace(texts):
            states = library.save([])
            for layer in model.model.layers:
                states.append(layer.output[:, -1])
        return torch.stack(states).cpu()

    return run


def transformer_lens(subject: Subject) -> Peer | None:
    """`run_with_cache`, of the residuals behind the layers alone. The bridge takes a module to pieces, so it works on a
    copy of it."""
    if find_spec("transformer_lens") is None:
        return None
    bridge = bridge_of(subject)
    layers = range(subject.module.config.num_hidden_layers)

    def run(texts: list[str]) -> Tensor:
        tokens = bridge.to_tokens(texts, prepend_bos=False)
        with torch.inference_mode():
            _, cache = bridge.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_resid_post"))
        row, last = torch.arange(len(texts)), (tokens != subject.tokenizer.pad_token_id).sum(dim=1).cpu() - 1
        return torch.stack([cache["resid_post", layer][row, last] for layer in layers]).cpu()

    return run


def bridge_of(subject: Subject) -> Any:
    """TransformerLens' bridge around a copy of the module, which it takes to pieces."""
    from transformer_lens.model_bridge import TransformerBridge

    tokenizer = byte_tokenizer()
    tokenizer.init_kwargs |= {"name_or_path": "random", "add_bos_token": True}  # else it looks for it on the hub
    module = copy.deepcopy(subject.module)
    module.config.architectures = [type(module).__name__]
    return TransformerBridge.boot_transformers(
        "random", hf_model=module, tokenizer=tokenizer, device=SETTING.device, dtype=module.dtype
    )


PEERS: dict[str, Callable[[Subject], Peer | None]] = {
    "nnsight": nnsight,
    "output_hidden_states": hidden_states,
    "TransformerBridge": transformer_lens,
}
