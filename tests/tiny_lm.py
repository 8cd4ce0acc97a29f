"""Tiny random causal language models of the six families that every back end must agree on. No download."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import byte_tokenizer
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

WIDTH, LAYERS, WINDOW = 32, 3, 8  # an odd number of layers; a window shorter than the prompts

_IDS: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
_SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    **_IDS,
}
# A head of its own: with the embedding's, these two would say one token for ever.
_GEMMA: dict[str, Any] = {
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": WINDOW,
    "tie_word_embeddings": False,
}


def loud(module: Any) -> Any:
    """Every parameter with noise of its own: by default tiny layers are almost the identity, biases are zero and norms
    one, so that a wrong layer or a forgotten bias would not show. The same weights on every call."""
    noise = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.dim() == 1:
                weight.add_(0.2 * torch.randn(weight.shape, generator=noise))
            elif not any(part in name for part in ("embed", "wte", "wpe", "lm_head")):
                weight.copy_(0.25 * torch.randn(weight.shape, generator=noise))
            else:
                # Quieter, or a model whose head is its embedding (GPT-2) would say its last token for ever.
                weight.copy_(0.1 * torch.randn(weight.shape, generator=noise))
    return module.eval()


def llama() -> Any:
    return loud(LlamaForCausalLM(LlamaConfig(vocab_size=len(byte_tokenizer()), **_SIZES)))


def qwen2() -> Any:
    """Biases on the queries, keys and values."""
    return loud(Qwen2ForCausalLM(Qwen2Config(vocab_size=len(byte_tokenizer()), **_SIZES)))


def qwen3() -> Any:
    """A norm on the queries and keys of each head, heads wider than the stream's share."""
    return loud(Qwen3ForCausalLM(Qwen3Config(vocab_size=len(byte_tokenizer()), head_dim=12, **_SIZES)))


def gpt2() -> Any:
    """Learned positions, one joint projection, tied embeddings."""
    config = GPT2Config(
        vocab_size=len(byte_tokenizer()), n_embd=WIDTH, n_layer=LAYERS, n_head=4, n_positions=256, **_IDS
    )
    return loud(GPT2LMHeadModel(config))


def gemma2() -> Any:
    """Norms before and behind both branches, a sliding window on every other layer, capped logits."""
    config = Gemma2Config(vocab_size=len(byte_tokenizer()), **_SIZES, **_GEMMA)
    return loud(Gemma2ForCausalLM(config))


def gemma3() -> Any:
    """As Gemma2 without the caps; norms on queries and keys; two bases of rotation."""
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    config = Gemma3TextConfig(vocab_size=len(byte_tokenizer()), layer_types=kinds, **_SIZES, **_GEMMA)
    return loud(Gemma3ForCausalLM(config))


LANGUAGE_MODELS = {
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "gpt2": gpt2,
    "gemma2": gemma2,
    "gemma3": gemma3,
}
