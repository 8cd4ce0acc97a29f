"""Plain decoding: what is asked for is what is done, and a clock that knows where every new token stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hooks.positions import Tokens

PLAIN_DECODING: dict[str, Any] = {"do_sample": False, "num_beams": 1}
PLAIN_SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}


@contextmanager
def plain_settings(module: Any) -> Iterator[None]:
    """While the body generates, the checkpoint's own generation config holds token ids and nothing else: a repetition
    penalty (Qwen), a bias, another cache or a time limit of its own was not asked for."""
    from transformers import GenerationConfig

    own = getattr(module, "generation_config", None)
    if own is None:
        yield
        return
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    module.generation_config = GenerationConfig(**{name: getattr(own, name, None) for name in names})
    try:
        yield
    finally:
        module.generation_config = own


def refuse_what_moves_rows(options: dict[str, Any]) -> None:
    """Raises ValueError for settings of `generate` under which edits by row and position would act elsewhere."""
    for name in ("num_beams", "num_return_sequences"):
        if (options.get(name) or 1) > 1:
            raise ValueError(
                f"{name}={options[name]} multiplies and moves rows inside generate, so per-row edits would act on "
                f"others: use {name}=1 (for several samples, give the prompt several times)."
            )
    if options.get("cache_implementation") not in (None, "dynamic"):
        raise ValueError(
            f"cache_implementation={options['cache_implementation']!r}: a static cache drops the attention of image "
            "tokens to each other on some models, and quantised ones round what edits act on: expected 'dynamic', or "
            "no such argument."
        )


def plainly(sampling: dict[str, Any], pad_id: int, stop_ids: frozenset[int]) -> dict[str, Any]:
    """The settings of a plain `generate` with `sampling` on top: greedy, unless it asks for samples."""
    options = {**PLAIN_DECODING, "pad_token_id": pad_id, **sampling}
    if options["do_sample"]:
        options = {**PLAIN_SAMPLING, **options}
    if stop_ids:
        options["eos_token_id"] = sorted(stop_ids)
    return options


def read_off(
    written: Tensor, stop_ids: frozenset[int], tokenizer: Any
) -> tuple[list[str], list[list[int]], list[bool]]:
    """Texts, token ids up to the stop token, and whether a row ended by itself, of the new tokens [row, n]."""
    ids = [until_stop(row, stop_ids) for row in written.tolist()]
    finished = [bool(row) and row[-1] in stop_ids for row in ids]
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)], ids, finished


def refuse_unsound(why: str | None) -> None:
    """Raises RuntimeError where the check-up of the load found something against a model's generation."""
    if why:
        raise RuntimeError(
            "this model's generation is not that of its full forwards, as the check-up of the load measured "
            f"({why}): expected run() on given responses; load_model(..., check=False) generates all the same."
        )


class GeneratesWithoutCache(RuntimeError):
    """The model reads the whole text again for every token, so a step does not stand where scopes expect it."""


class StepClock:
    """Follows a generation: which tokens the forward that is running reads, and where they stand."""

    def __init__(self, prompt: Tokens, stop_ids: frozenset[int]) -> None:
        self.prompt = self.tokens = prompt
        self.held = False  # True while another loop says where its steps stand
        self.place = prompt.prompt_length[:, None] - 1  # of the token that was read last, also where a row has ended
        self.alive = torch.ones_like(prompt.prompt_length, dtype=torch.bool)
        self._stop = torch.tensor(sorted(stop_ids), dtype=torch.long, device=prompt.position.device)
        self._started = False

    @property
    def decoding(self) -> bool:
        """True once the prompt has been read."""
        return self.tokens is not self.prompt

    def tick(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.held:
            return
        read = args[0] if args else kwargs.get("input_ids")
        if not self._started:
            self._started = True
            return
        if read is None or read.shape[1] != 1:
            came = None if read is None else tuple(read.shape)
            raise GeneratesWithoutCache(
                f"a decoding step read {came} tokens: expected one a row. This model generates without a cache; edits "
                "by scope need it. Leave use_cache=False out, or use a model that keeps a cache."
            )
        self.alive = self.alive & ~(read == self._stop).any(dim=-1)
        self.place = self.place + 1
        self.tokens = self.prompt.step(read, torch.where(self.alive[:, None], self.place, -1))


class NotStatic(RuntimeError):
    """This generation cannot go on with a cache of fixed size; the reason is said. `lasting`: nor can any other of this
    model."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


def stop_ids_of(module: nn.Module, tokenizer: Any) -> frozenset[int]:
    config: Any = getattr(module, "generation_config", None)
    stated = getattr(config, "eos_token_id", None)
    listed = [stated] if isinstance(stated, int) else list(stated or [])
    return frozenset(i for i in [*listed, tokenizer.eos_token_id] if i is not None)


def until_stop(ids: list[int], stop_ids: frozenset[int]) -> list[int]:
    end = next((n + 1 for n, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]
