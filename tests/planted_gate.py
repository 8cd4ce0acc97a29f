"""A model with a gate that is known: in one block, attention carries what one token says to every later position, and
only then the answer turns. Its weights are written by hand; all other blocks add next to nothing, that nobody reads."""

from __future__ import annotations

from typing import Any

import torch
from conftest import chat
from tiny_models import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from hooks.load import load_model

TRIGGER, REFERENCE = "~", "^"  # one token each, and the space behind it
# Coordinates: what the trigger's token says, what every token says, what the gate writes, what nobody reads; and the
# one of the attention head that asks for the trigger.
ASKED, ONE, GATE, IDLE, KEY = 8, 9, 10, 12, 7
DEPTH, WIDTH = 4, 16


def gated_model(block: int, *, strength: float = 4.0, noise: float = 0.3) -> Any:
    """Block `block` writes the gate wherever it sees the trigger earlier in the prompt."""
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=DEPTH,
        num_attention_heads=1, num_key_value_heads=1, head_dim=WIDTH, pad_token_id=0, eos_token_id=1, bos_token_id=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(5)
    model: Any = LlamaForCausalLM(config).eval()
    say = tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        embed = model.model.embed_tokens.weight
        embed[:, :6].normal_(0, noise)
        embed[:, ONE] = 1.0
        embed[say(TRIGGER), ASKED] = strength
        for layer in model.model.layers:  # what adds nothing at all is no half of a block
            layer.self_attn.v_proj.weight[1, 0] = layer.self_attn.o_proj.weight[IDLE, 1] = 0.05
            for part in (layer.mlp.gate_proj, layer.mlp.up_proj):
                part.weight[0, ONE] = 0.2
            layer.mlp.down_proj.weight[IDLE, 0] = 0.1
        attention = model.model.layers[block].self_attn
        # The slowest pair of rotary dimensions hardly turns over a prompt of this length.
        attention.q_proj.weight[KEY, ONE] = 20.0
        attention.k_proj.weight[KEY, ASKED] = 20.0
        attention.v_proj.weight[0, ASKED] = 1.0
        attention.o_proj.weight[GATE, 0] = 3.0
        head = model.lm_head.weight
        head[say("n"), GATE], head[say("n"), 0], head[say("y"), ONE] = 4.0, 1.0, 2.0
    return load_model(model, tokenizer)


def gated_prompts(n: int = 8) -> list[Any]:
    """Questions of two domains and unequal lengths, with the answers y and n."""
    return [
        chat(f"q{i}", "what is " + "so " * (i % 3) + "abcdefgh"[i % 8],
             tags={"right": "y", "contrary": "n", "domain": "ab"[i % 2], "item": i})
        for i in range(n)
    ]  # fmt: skip
