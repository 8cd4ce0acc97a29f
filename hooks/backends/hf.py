"""The Hugging Face back end: any model that `hooks.blocks` can find the residual stream of, with its own forward and
cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from hooks.backends.loaded import LoadedModel
from hooks.decode_attention import quick_few_queries
from hooks.decoding import (
    StepClock,
    plain_settings,
    plainly,
    read_off,
    refuse_unsound,
    refuse_what_moves_rows,
)
from hooks.encode import Batch
from hooks.engine import Passed, Stop, Visit, forward_hooks, hooked, wanted
from hooks.head import NextToken, contiguous_head
from hooks.model import Edits, Generation, Keeps, Trace
from hooks.positions import Tokens
from hooks.prefix_cache import Prefix, text_of
from hooks.site import Site
from hooks.spread import placed_on
from hooks.static_decode import generated
from hooks.tower_rows import vision_view
from hooks.view import View, text_view


class HuggingFaceModel(LoadedModel):
    """A Hugging Face model whose residual stream can be read and edited (the protocol `TracedModel`)."""

    reads_images = True  # where the model does; False for a back end that takes text alone
    native = True  # the forward is the module's own, so that its blocks can be passed in part

    @classmethod
    def adopted(cls, module: nn.Module) -> nn.Module:
        """What this back end works on when a module is given: that module."""
        return module

    def run(
        self,
        batch: Batch,
        keep: Keeps | None = None,
        edits: Edits | None = None,
        *,
        logits: bool = True,
        must_edit: bool = True,
        through: AbstractContextManager[Any] | None = None,
    ) -> Trace:
        """One forward, padded right. Without `logits` it ends after the last wanted site. Raises NothingEdited when
        edits were given and touched no position (unless `must_edit` is False: the caller counts over many batches).
        `through` wraps the forward: it records the blocks, or passes them in part (`hooks.recording`,
        `hooks.staircase`)."""
        batch = self._padded(batch, "right")
        inputs: dict[str, Any] = {
            name: value for name, value in self._on_device(batch).items() if name in self._accepts
        }
        if not self.masks_text and not batch.image_rows:
            inputs.pop("attention_mask", None)
        tokens = batch.tokens.to(self.device)
        if "use_cache" in self._accepts:
            inputs["use_cache"] = False
        cuts = "logits_to_keep" in self._accepts and not self.spread  # columns and stream on two devices
        head = NextToken(self.module, batch, cuts=cuts, gathers=self.native)
        out: Any = None
        hooking = {"once": True, "stop": not logits, "in_part": through is not None}
        with (
            self._ready(batch),
            through or nullcontext(),
            head.gathering() if logits else nullcontext(),
            self._hooked(batch, keep, edits, lambda: tokens, **hooking) as visit,
        ):
            out = self._forward({**inputs, **head.arguments})
        chosen = head.of(out.logits) if logits else None
        trace = Trace({site: kept[0] for site, kept in visit.kept.items() if kept}, chosen, visit.tallies)
        if must_edit:
            visit.refuse_idle()
        return trace

    def generate(
        self,
        batch: Batch,
        keep: Keeps | None = None,
        edits: Edits | None = None,
        *,
        must_edit: bool = True,
        max_new_tokens: int = 64,
        after: Prefix | None = None,
        decode: str = "dynamic",
        **sampling: Any,
    ) -> Generation:
        """Answers to the prompts (a response given in a prompt is left out), padded left, with the KV cache; greedy
        unless `do_sample=True` (with `temperature`, `top_p`, ...; the checkpoint's own sampling settings do not count).
        Scopes are extended token by token; rows that have ended are edited no more. With `after`
        (hooks.prefix_cache) the columns of that cache are not read again, and nothing acts on them. `decode="graph"`
        replays one CUDA graph a token, `"static"` makes its steps one by one (hooks.static_decode)."""
        refuse_what_moves_rows(sampling)
        refuse_unsound(self.why_not_generate)
        stop_ids = self._stopping(sampling)
        options = {**plainly(sampling, self.encoder.pad_id, stop_ids), "max_new_tokens": max_new_tokens}
        batch = self.encoder.collate([one.prompt_only() for one in batch.encoded], "left")
        out, visit, decoding = generated(self, batch, keep, edits, stop_ids, options, after, decode)
        texts, ids, finished = read_off(out[:, batch.inputs["input_ids"].shape[1] :], stop_ids, self.tokenizer)
        generation = Generation(texts, ids, finished, visit.kept, visit.tallies, decoding)
        if must_edit:
            visit.refuse_idle()
        return generation

    def decoded(
        self,
        batch: Batch,
        keep: Keeps | None,
        edits: Edits | None,
        stop_ids: frozenset[int],
        options: dict[str, Any],
        after: Prefix | None = None,
        by: Callable[..., Tensor] | None = None,
    ) -> tuple[Any, Visit]:
        """What the library's own `generate` returns under keeps and edits for prompts padded left, and what they
        saw. `by` is another loop than the library's (hooks.static_decode)."""
        batch = self._padded(batch, "left")
        inputs, tokens = self._on_device(batch), batch.tokens
        if after is not None:
            inputs, tokens = text_of(inputs, batch), tokens.columns(slice(after.length, None))
            options = {**options, "past_key_values": after.cache}
        clock = StepClock(tokens.to(self.device), stop_ids)
        hooking = self._hooked(batch, keep, edits, lambda: clock.tokens)  # may run the model, to find its joints
        handle = self.module.register_forward_pre_hook(clock.tick, with_kwargs=True)
        try:
            with (
                plain_settings(self.module),
                self._ready(batch),
                quick_few_queries(self.device, self.dtype),
                contiguous_head(self.module),
                hooking as visit,
            ):
                out = self._generate(inputs, **options) if by is None else by(inputs, options, clock, visit)
        finally:
            handle.remove()
        return out, visit

    def _padded(self, batch: Batch, side: str) -> Batch:
        if not self.pads[side] and len({len(one) for one in batch.encoded}) > 1:
            raise ValueError(
                f"this model's numbers change when shorter rows are padded on the {side} (the check-up of the load "
                "measured it): expected rows of one length. wb.capture, wb.generate and wb.sweep see to it."
            )
        return batch.padded(side)

    def _stopping(self, sampling: dict[str, Any]) -> frozenset[int]:
        given = sampling.get("eos_token_id")
        return self.stop_ids if given is None else frozenset([given] if isinstance(given, int) else given)

    def _on_device(self, batch: Batch) -> dict[str, Tensor]:
        moved = {name: value.to(self.device) for name, value in batch.inputs.items()}
        return {name: value.to(self.dtype) if value.is_floating_point() else value for name, value in moved.items()}

    @contextmanager
    def _ready(self, batch: Batch | None = None) -> Iterator[None]:
        if self.module.training:
            raise RuntimeError(
                "the model is in training mode, where dropout changes every residual: call model.module.eval() first."
            )
        acting = nullcontext() if self.adapters is None else self.adapters.acting(self.active, batch)
        with torch.inference_mode(), acting, self._features_during(batch):
            yield

    def _features_during(self, batch: Batch | None) -> AbstractContextManager[None]:
        return self.features.during(batch)

    def _forward(self, inputs: dict[str, Any]) -> Any:
        return self.module(**inputs)

    def _generate(self, inputs: dict[str, Tensor], **options: Any) -> Any:
        return self.module.generate(**inputs, **options)  # type: ignore[operator]

    def _hooked(
        self,
        batch: Batch,
        keep: Keeps | None,
        edits: Edits | None,
        now: Callable[[], Tokens],
        *,
        once: bool = False,
        stop: bool = False,
        in_part: bool = False,
    ) -> AbstractContextManager[Visit]:
        def view_of(site: Site, tensor: Tensor) -> View:
            if site.tower == "language":
                tokens = now()
                if in_part and self.layout.plain and len(tensor) < len(tokens.position):
                    tokens = tokens.first(len(tensor))
                view = text_view(site, tensor, tokens, self.layout)
            else:
                view = self._vision_view(batch, tensor)
            return placed_on(self.device, tensor, view) if self.spread else view

        spots = {site: self.spot(site, text_only=not batch.image_rows) for site in wanted(keep, edits)}
        return hooked(spots, keep or {}, edits or {}, view_of, len(batch), once=once, stop=stop, attach=self._attach)

    def _attach(self, stops: Sequence[Stop], passed: Passed) -> AbstractContextManager[Any]:
        return forward_hooks(stops, passed)

    def _vision_view(self, batch: Batch, resid: Tensor) -> View:
        return vision_view(batch, resid, getattr(self.module.config, "vision_config", None))
