"""Tiny random models of several architectures, with a byte tokenizer and a chat template, for tests. No download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor

SPECIAL = ["<pad>", "<eos>", "<bos>", "<turn>", "<end>", "<boi>", "<eoi>", "<img>"]
NAMED = {"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<img>"}
TEMPLATE = (
    "<bos>{% for m in messages %}<turn>{{ m['role'] }}:"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<boi>{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endif %}<end>{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant:{% endif %}"
)


def byte_tokenizer(special: Sequence[str] = SPECIAL, named: dict[str, str] = NAMED) -> PreTrainedTokenizerFast:
    """One token a byte, and the `special` tokens; `named` become attributes of the tokenizer (`image_token`, ...)."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: i for i, token in enumerate([*special, *letters])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(special))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        extra_special_tokens=dict(named),
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _loud(kind: Any, config: Any) -> Any:
    """Default initialisation makes tiny layers almost the identity: larger weights, so that a wrong layer shows. The
    same weights on every call."""
    torch.manual_seed(7)
    model = kind(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2 and "embed" not in name:
                weight.normal_(0, 0.25)
            elif "norm" in name and "weight" in name:
                weight.add_(0.2 * torch.randn_like(weight))
    return model.eval()


def llama(layers: int = 3) -> tuple[Any, Any, None]:
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return _loud(LlamaForCausalLM, config), tokenizer, None


def gpt2() -> tuple[Any, Any, None]:
    tokenizer = byte_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=3, n_head=4, n_positions=256, eos_token_id=1, bos_token_id=2
    )
    return _loud(GPT2LMHeadModel, config), tokenizer, None


def gemma3() -> tuple[Any, Any, Any]:
    """Image-text Gemma3: sliding and full layers, 4 tokens an image."""
    tokenizer = byte_tokenizer()
    text = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )
    vision = SiglipVisionConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        vision_use_head=False,
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        boi_token_index=5,
        eoi_token_index=6,
        image_token_index=7,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    model = _loud(Gemma3ForConditionalGeneration, config)
    with torch.no_grad():  # zero by default, so that an image would have no effect
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(0, 0.3)
    pictures = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    processor = Gemma3Processor(pictures, tokenizer, image_seq_length=4, chat_template=TEMPLATE)
    return model, tokenizer, processor


FAMILIES = {"llama": llama, "gpt2": gpt2, "gemma3": gemma3}
