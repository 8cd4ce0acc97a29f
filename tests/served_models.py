"""Tiny checkpoints for a real server: they say what the words of the question ask for, so that replies are known."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from tiny_models import byte_tokenizer
from tiny_processors import CORE, IMAGE, gemma3
from transformers import LlamaConfig, LlamaForCausalLM

SAYS = {  # word in the question: pieces of the reply, each one token; the last one is repeated where it is "..."
    "TAG": ["<reasoning>kind</reasoning>", "<score>73</score>"],
    "OBJECT": ['{"justification": "kind", ', '"worse": "B", ', '"score": 64}'],
    "NUMBER": ["42"],
    "PROSE": ["I cannot say."],
    "FOREVER": ["well, ", "..."],
    "NOTHING": [],
}
STARTS = [f"<{word.lower()}>" for word in SAYS]
PIECES = [piece for pieces in SAYS.values() for piece in pieces]
TEXT = (
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for p in m['content'] %}PARTS{% endfor %}{% endif %}"
)
PARTS = "{% if p['type'] == 'image' %}IMAGE{% else %}{{ p['text'] }}{% endif %}"


def template(image: str) -> str:
    """A turn each; the generation prompt ends in the start token of the first word that the conversation holds."""
    turn = "<turn>{{ m['role'] }}:" + TEXT.replace("PARTS", PARTS.replace("IMAGE", image)) + "<end>"
    starts = "".join(
        f"{{% {'elif' if n else 'if'} '{word}' in said.text %}}{start}"
        for n, (word, start) in enumerate(zip(SAYS, STARTS, strict=True))
    )
    collected = "{% set said.text = said.text + (m['content'] if m['content'] is string else m['content'] | string) %}"
    return (
        "<bos>{% set said = namespace(text='') %}{% for m in messages %}" + turn + collected + "{% endfor %}"
        "{% if add_generation_prompt %}<turn>assistant:" + starts + "{% endif %}{% endif %}"
    )


def speaking(model: Any, tokenizer: Any, width: int) -> Any:
    """Its blocks add nothing, each token has a code of signs, and the head answers it with the token's successor."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in [*STARTS, *PIECES, "<eos>"]}
    assert len(set(ids.values())) == len(ids) and None not in ids.values()
    noise = torch.Generator().manual_seed(1)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("self_attn.o_proj.weight", "mlp.down_proj.weight")) and "vision" not in name:
                weight.zero_()
        embedding.copy_(torch.randint(0, 2, embedding.shape, generator=noise) * 2.0 - 1)
        head.zero_()
        for start, pieces in zip(STARTS, SAYS.values(), strict=True):
            said = [start, *pieces, "..." if pieces[-1:] == ["..."] else "<eos>"]
            for token, successor in itertools.pairwise(said):
                head[ids[successor]] += embedding[ids[token]] * 10 / width
    return model


def speaking_llama(folder: Path) -> Path:
    tokenizer = byte_tokenizer([*CORE, *STARTS])
    tokenizer.add_tokens(PIECES)
    tokenizer.chat_template = template("")
    sizes = dict(hidden_size=64, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    ids = dict(pad_token_id=0, eos_token_id=1, bos_token_id=2)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=False, **sizes, **ids))
    for part in (speaking(model, tokenizer, 64), tokenizer):
        part.save_pretrained(folder)
    return folder


def seeing_gemma3(folder: Path) -> Path:
    """A random image-text model: what it says depends on the picture."""
    return gemma3().save(folder)


def speaking_gemma3(folder: Path) -> Path:
    """The image-text model with the blocks and the head of a speaking one."""
    family = gemma3()
    family.tokenizer.add_special_tokens({"additional_special_tokens": STARTS})
    family.tokenizer.add_tokens(PIECES)
    model = family.model
    model.resize_token_embeddings(len(family.tokenizer), mean_resizing=False)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    speaking(model, family.tokenizer, 32)
    assert model.config.image_token_index == IMAGE
    return family._replace(template=template("<boi>")).save(folder)
