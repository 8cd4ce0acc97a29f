"""The models and prompts of the benchmarks: random weights, a byte tokenizer, lengths from a seeded generator, no
download."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from clocks import SETTING
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import workbench as wb

SPECIAL = ["<pad>", "<eos>", "<bos>"]


@dataclass(frozen=True)
class Subject:
    """A model under measurement, in words, and what a run on its device wants: the prompts of a long run, and the
    padded tokens of one unit."""

    words: str
    module: Any
    tokenizer: PreTrainedTokenizerFast
    n_prompts: int
    max_tokens: int

    def traced(self) -> Any:
        """As a TracedModel; what a user gets from `wb.load_model`."""
        return wb.load_model(self.module, self.tokenizer, device=SETTING.device, check=False)


def subjects() -> Iterator[Subject]:
    """On a CPU the Qwen2-like 8 x 512; on CUDA the shapes of Gemma3-4B (text) and Qwen2.5-7B. All in bfloat16, made one
    after the other."""
    for name in ["qwen-like"] if SETTING.device == "cpu" and not SETTING.tiny else REAL:
        yield subject(name)


def subject(name: str, dtype: torch.dtype = torch.bfloat16, layers: int = 8) -> Subject:
    """The model called "qwen-like", of so many layers, or one of the names in REAL; in the sizes of the setting."""
    config = small(layers) if name == "qwen-like" else REAL[name](SETTING.tiny)
    on_gpu = SETTING.device == "cuda"
    n_prompts = 4 if SETTING.tiny else (256 if SETTING.quick else 1024) if on_gpu else 64 if SETTING.quick else 256
    words = f"{name} {config.num_hidden_layers} x {config.hidden_size}, {str(dtype).removeprefix('torch.')}"
    return Subject(words, made(config, dtype), byte_tokenizer(), n_prompts, 8192 if on_gpu else 2048)


def small(layers: int = 8, width: int = 512) -> PretrainedConfig:
    """Qwen2-like: the head is about a fifth of the weights that a token passes, as in Gemma3-4B."""
    return Qwen2Config(
        vocab_size=2048 * layers,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=max(1, width // 256),
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        **_ids(),
    )


def gemma3_4b(tiny: bool = False) -> PretrainedConfig:
    """The language model of Gemma3-4B: five sliding layers to a full one."""
    sizes = dict(
        vocab_size=262_208,
        hidden_size=2560,
        intermediate_size=10_240,
        num_hidden_layers=34,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=1024,
    )
    if tiny:
        sizes |= dict(
            vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=6, head_dim=16, sliding_window=16
        )
    return Gemma3TextConfig(max_position_embeddings=8192, **sizes, **_ids())


def qwen25_7b(tiny: bool = False) -> PretrainedConfig:
    sizes = dict(
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
    )
    if tiny:
        sizes |= dict(vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4)
    return Qwen2Config(max_position_embeddings=8192, tie_word_embeddings=False, **sizes, **_ids())


REAL = {"gemma3-4b": gemma3_4b, "qwen2.5-7b": qwen25_7b}
KINDS = {Qwen2Config: Qwen2ForCausalLM, Gemma3TextConfig: Gemma3ForCausalLM}


def _ids() -> dict[str, int]:
    return dict(pad_token_id=0, eos_token_id=1, bos_token_id=2)


def made(config: PretrainedConfig, dtype: torch.dtype) -> Any:
    """The model with random weights, made where it will run; the same weights on every call."""
    torch.manual_seed(0)
    was = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(SETTING.device):
            return KINDS[type(config)](config).eval()
    finally:
        torch.set_default_dtype(was)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte: the length of a text is its length in tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: i for i, token in enumerate([*SPECIAL, *letters])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")


def lengths(n: int, seed: int = 0) -> list[int]:
    """Tokens of n prompts: lognormal, median 90, sigma 0.7, clipped to 20..400 (mean about 112)."""
    drawn = np.random.default_rng(seed).lognormal(np.log(90), 0.7, n)
    return [int(length) for length in drawn.round().clip(20, 400)]


def long_prompts(n: int, seed: int = 0) -> list[wb.Prompt]:
    return texts(lengths(n, seed), seed)


def short_prompts(n: int, seed: int = 0) -> list[wb.Prompt]:
    """8 to 24 tokens: where a pass is bound by overhead and weights."""
    return texts(np.random.default_rng(seed).integers(8, 25, n).tolist(), seed)


def equal_prompts(n: int, tokens: int, seed: int = 0) -> list[wb.Prompt]:
    return texts([tokens] * n, seed)


def texts(sizes: Sequence[int], seed: int = 0) -> list[wb.Prompt]:
    """Raw texts of random letters, of exactly these numbers of tokens."""
    rng = np.random.default_rng(seed + 1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz "))
    return [wb.Prompt(f"p{i:04d}", text="".join(rng.choice(letters, size))) for i, size in enumerate(sizes)]
