"""The Hugging Face back end: any model that `hooks.blocks` can find the residual stream of, with its own forward and
cache."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hooks.adapters import Adapters
from hooks.blocks import image_token_id, towers_of
from hooks.encode import Batch, Encoder, last_rows, next_token_index
from hooks.engine import Visit, hooked
from hooks.model import Edits, Generation, Keeps, NothingEdited, Trace
from hooks.positions import Tokens
from hooks.prompt import Prompt

# What a checkpoint's own generation config holds besides (Qwen: a repetition penalty) is not asked for: greedy
# is the argmax of the logits, and a sample is drawn from them.
PLAIN_DECODING: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "guidance_scale": None,
}
PLAIN_SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": None, "typical_p": 1.0}


class HuggingFaceModel:
    """A Hugging Face model whose residual stream can be read and edited (the protocol `TracedModel`).

    `variant("base")` and `variant(adapter)` are views of the same weights with adapters off, or one of them on.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        processor: Any,
        *,
        name: str,
        identity: dict[str, Any],
        adapters: Adapters | None = None,
    ) -> None:
        config: Any = module.config
        text = config.get_text_config(decoder=True)
        self.module = module
        self.name = name
        self.identity = identity
        self.adapters = adapters
        self.active = adapters.names[0] if adapters else None
        self.towers = towers_of(module)
        self.n_layers = len(self.towers["language"])
        self.d_model: int = text.hidden_size
        self.encoder = Encoder(tokenizer, processor, image_token_id(config))
        self.tokenizer = tokenizer
        self.stop_ids = _stop_ids(module, tokenizer)
        self._accepts = set(inspect.signature(module.forward).parameters)

    def __repr__(self) -> str:
        towers = ", ".join(f"{len(blocks)} {tower} layers" for tower, blocks in self.towers.items())
        variant = self.active or "base"
        return f"<{type(self.module).__name__} {self.name!r}, variant {variant!r}: {towers}, d_model {self.d_model}>"

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @property
    def variants(self) -> tuple[str, ...]:
        return ("base", *(self.adapters.names if self.adapters else ()))

    @property
    def depths(self) -> dict[str, int]:
        return {tower: len(blocks) for tower, blocks in self.towers.items()}

    def variant(self, name: str) -> HuggingFaceModel:
        """The same weights with this adapter on, or with none for `"base"`."""
        if name not in self.variants:
            raise ValueError(
                f"variant {name!r} is not loaded: expected one of {', '.join(self.variants)} (load_model(..., "
                "adapter=...))."
            )
        view = copy.copy(self)
        view.active = None if name == "base" else name
        return view

    def encode(self, prompts: Sequence[Prompt]) -> Batch:
        return self.encoder(prompts)

    def run(
        self,
        batch: Batch,
        keep: Keeps | None = None,
        edits: Edits | None = None,
        *,
        logits: bool = True,
        must_edit: bool = True,
    ) -> Trace:
        """One forward, padded right. Without `logits` it ends after the last wanted site. Raises NothingEdited when
        edits
        were given and touched no position (unless `must_edit` is False: the caller counts over many batches)."""
        batch = batch.padded("right")
        inputs: dict[str, Any] = {
            name: value for name, value in self._on_device(batch).items() if name in self._accepts
        }
        tokens = batch.tokens.to(self.device)
        columns, of_row = next_token_index(batch)
        if "use_cache" in self._accepts:
            inputs["use_cache"] = False
        if cut := "logits_to_keep" in self._accepts:  # one column a distinct length, gathered before the LM head
            inputs["logits_to_keep"] = columns.to(self.device)
        out: Any = None
        with self._ready(), self._hooked(batch, keep, edits, lambda: tokens, stop=not logits) as visit:
            out = self.module(**inputs)
        chosen = None
        if logits:
            all_columns = out.logits if cut else out.logits[:, columns.to(self.device)]
            chosen = last_rows(all_columns, of_row)
        trace = Trace({site: kept[0] for site, kept in visit.kept.items() if kept}, chosen, visit.tallies)
        _refuse_no_edit(visit, must_edit)
        return trace

    def generate(
        self,
        batch: Batch,
        keep: Keeps | None = None,
        edits: Edits | None = None,
        *,
        must_edit: bool = True,
        max_new_tokens: int = 64,
        **sampling: Any,
    ) -> Generation:
        """Answers to the prompts (a response given in a prompt is left out), padded left, with the KV cache; greedy
        unless `do_sample=True` (with `temperature`, `top_p`, ...; the checkpoint's own sampling settings do not count).
        Scopes are extended token by token; rows that have ended are edited no more."""
        for name in ("num_beams", "num_return_sequences"):
            if (sampling.get(name) or 1) > 1:
                raise ValueError(
                    f"{name}={sampling[name]} multiplies and moves rows inside generate, so per-row edits would act on "
                    f"others: use {name}=1 (for several samples, give the prompt several times)."
                )
        stop_ids = self._stopping(sampling)
        batch = self.encoder.collate([one.prompt_only() for one in batch.encoded], "left")
        clock = _StepClock(batch.tokens.to(self.device), stop_ids)
        handle = self.module.register_forward_pre_hook(clock.tick, with_kwargs=True)
        options = {**PLAIN_DECODING, "pad_token_id": self.encoder.pad_id, **sampling}
        if options["do_sample"]:
            options = {**PLAIN_SAMPLING, **options}
        if stop_ids:
            options["eos_token_id"] = sorted(stop_ids)
        try:
            with self._ready(), self._hooked(batch, keep, edits, lambda: clock.tokens) as visit:
                out = self.module.generate(**self._on_device(batch), max_new_tokens=max_new_tokens, **options)  # type: ignore[operator]
        finally:
            handle.remove()
        written = out[:, batch.inputs["input_ids"].shape[1] :].tolist()
        ids = [_until_stop(row, stop_ids) for row in written]
        finished = [bool(row) and row[-1] in stop_ids for row in ids]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        generation = Generation([text.strip() for text in texts], ids, finished, visit.kept, visit.tallies)
        _refuse_no_edit(visit, must_edit)
        return generation

    def _stopping(self, sampling: dict[str, Any]) -> frozenset[int]:
        given = sampling.get("eos_token_id")
        return self.stop_ids if given is None else frozenset([given] if isinstance(given, int) else given)

    def _on_device(self, batch: Batch) -> dict[str, Tensor]:
        moved = {name: value.to(self.device) for name, value in batch.inputs.items()}
        return {name: value.to(self.dtype) if value.is_floating_point() else value for name, value in moved.items()}

    @contextmanager
    def _ready(self) -> Iterator[None]:
        if self.module.training:
            raise RuntimeError(
                "the model is in training mode, where dropout changes every residual: call model.module.eval() first."
            )
        if self.adapters is not None:
            self.adapters.activate(self.active)
        with torch.inference_mode():
            yield

    def _hooked(
        self, batch: Batch, keep: Keeps | None, edits: Edits | None, now: Callable[[], Tokens], stop: bool = False
    ) -> Any:
        def tokens_of(tower: str, resid: Tensor) -> Tokens:
            if tower == "language":
                return now()
            if len(resid) != len(batch.image_rows):
                raise RuntimeError(
                    f"the vision tower read {len(resid)} pictures; the prompts have {len(batch.image_rows)} images: "
                    "expected one picture an image (an image that is cut into tiles cannot be told apart here)."
                )
            return Tokens.of_patches(resid.shape[0], resid.shape[1], resid.device, batch.image_rows)

        owners = {"language": range(len(batch)), "vision": batch.image_rows}
        return hooked(self.towers, keep or {}, edits or {}, tokens_of, owners, stop=stop)


class _StepClock:
    """Follows a generation: which tokens the forward that is running reads, and where they stand."""

    def __init__(self, prompt: Tokens, stop_ids: frozenset[int]) -> None:
        self.tokens = prompt
        self._stop = torch.tensor(sorted(stop_ids), dtype=torch.long, device=prompt.position.device)
        self._next = prompt.prompt_length.clone()
        self._alive = torch.ones_like(self._next, dtype=torch.bool)
        self._started = False

    def tick(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        read = args[0] if args else kwargs.get("input_ids")
        if not self._started:
            self._started = True
            return
        if read is None or read.shape[1] != 1:
            came = None if read is None else tuple(read.shape)
            raise RuntimeError(
                f"a decoding step read {came} tokens: expected one a row. This model generates without a cache; edits "
                "by scope need it."
            )
        self._alive &= ~torch.isin(read[:, 0], self._stop)
        position = torch.where(self._alive, self._next, -1)
        self._next = self._next + 1
        self.tokens = self.tokens.step(read, position[:, None])


def _stop_ids(module: nn.Module, tokenizer: Any) -> frozenset[int]:
    config: Any = getattr(module, "generation_config", None)
    stated = getattr(config, "eos_token_id", None)
    listed = [stated] if isinstance(stated, int) else list(stated or [])
    return frozenset(i for i in [*listed, tokenizer.eos_token_id] if i is not None)


def _until_stop(ids: list[int], stop_ids: frozenset[int]) -> list[int]:
    end = next((n + 1 for n, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]


def _refuse_no_edit(visit: Visit, must_edit: bool) -> None:
    counts = [tally.edited for listed in visit.tallies.values() for tally in listed]
    if must_edit and counts and not any(bool(edited.any()) for edited in counts):
        sites = ", ".join(str(site) for site in visit.tallies)
        raise NothingEdited(
            f"the edits at {sites} touched no position of any row: expected at least one. Their scope matches no "
            "token of these prompts (an 'image' scope on text, a 'response' scope on prompts without one)."
        )
