"""Tiny models as judges: tokenizers that write numbers in several ways, a short rubric, the score by brute force."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tiny_models import NAMED, SPECIAL, TEMPLATE, _loud
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hooks.load import load_model

DIGITS = "0123456789"
PAIRS = [(a, b) for a, b in product(DIGITS[1:], DIGITS)]
SHORT = (
    "name: short\nmode: number\ntemplate: 'How good, 0 to 100, is this: {question} > {answer}'\nabstain: [REFUSAL]\n"
)


def merging_tokenizer(merges: list[tuple[str, str]], *, metaspace: bool = False) -> Any:
    """Bytes, and whatever `merges` make of them. With `metaspace` text begins with a space of its own, as in
    sentencepiece."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet() + (["▁", "\n", " "] if metaspace else []))
    vocabulary = dict.fromkeys([*SPECIAL, *letters, *(a + b for a, b in merges)])
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges=merges))
    if metaspace:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
        core.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    else:
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", extra_special_tokens=dict(NAMED)
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


TOKENIZERS = {
    "one digit a token": lambda: merging_tokenizer([]),
    "up to two digits": lambda: merging_tokenizer([("0", "0"), *PAIRS]),  # 100 = 1, 00 or 10, 0, as merges rank
    "up to three digits": lambda: merging_tokenizer([*PAIRS, *((a + b, c) for (a, b), c in product(PAIRS, DIGITS))]),
    "spaces in front": lambda: merging_tokenizer([("Ġ", digit) for digit in DIGITS]),
    "a space of its own": lambda: merging_tokenizer([("▁", digit) for digit in DIGITS], metaspace=True),
}


def judge_model(tokenizer: Any, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny llama with this tokenizer."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return load_model(_loud(LlamaForCausalLM, config).to(dtype), tokenizer, check=False)


def leaning(module: Any, towards: dict[int, float]) -> Any:
    """While it is hooked, the model's logits of these tokens are larger by so much."""
    push = torch.zeros(module.config.get_text_config().vocab_size)
    for token, size in towards.items():
        push[token] = size
    return module.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits + push.to(logits.dtype))


def short_rubric(folder: Path) -> Path:
    (folder / "short.yaml").write_text(SHORT)
    return folder / "short.yaml"


def brute_force(model: Any, prompt: Any) -> dict[str, float]:
    """The probability of each of the 101 numbers with and without a space in front, every beginning of every string
    read whole, without a cache or a pad; written without any code of the judge."""
    encoded, tokenizer = model.encoder.encode(prompt), model.tokenizer
    digits = [i for i in range(len(tokenizer)) if str(tokenizer.convert_ids_to_tokens(i))[:1] in tuple(DIGITS)]
    newline = len(tokenizer("\n", add_special_tokens=False)["input_ids"])
    paths = {}
    for text in (f"{form}{number}" for number in range(101) for form in ("", " ")):
        paths[text] = tuple(tokenizer("\n" + text, add_special_tokens=False)["input_ids"][newline:])
    after: dict[tuple[int, ...], torch.Tensor] = {}
    for length in range(max(map(len, paths.values())) + 1):
        same = sorted({path[:length] for path in paths.values() if len(path) >= length})
        ids = torch.tensor([[*encoded.input_ids.tolist(), *path] for path in same])
        types = {
            name: torch.nn.functional.pad(value[None].expand(len(same), -1), (0, length))
            for name, value in encoded.per_token.items()
        }
        pictures = {name: torch.cat([value] * len(same)) for name, value in encoded.images.items()}
        with torch.no_grad():
            logits = model.module(input_ids=ids, **types, **pictures).logits[:, -1]
        after |= dict(zip(same, logits.double().softmax(-1), strict=True))
    out = {}
    for text, path in paths.items():
        p = math.prod(after[path[:n]][token].item() for n, token in enumerate(path))
        out[text] = p * (1 - after[path][digits].sum().item())
    return out


def brute_score(ps: dict[str, float]) -> tuple[float, float]:
    mass = sum(ps.values())
    return sum(int(text) * p for text, p in ps.items()) / mass, mass
