"""The Hugging Face back end: any model that `hooks.blocks` can find the residual stream of, with its own forward and
cache."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hooks.adapters import Adapters
from hooks.blocks import UnsupportedArchitecture, image_token_id, towers_of
from hooks.decoding import PLAIN_DECODING, PLAIN_SAMPLING, StepClock, stop_ids_of, until_stop
from hooks.encode import Batch, Encoder, last_rows, next_token_index
from hooks.engine import Passed, Stop, Visit, forward_hooks, hooked, outside, wanted
from hooks.joints import Joint, find_joints
from hooks.model import Edits, Generation, Keeps, NothingEdited, Trace
from hooks.positions import Tokens
from hooks.prompt import Prompt
from hooks.site import Site
from hooks.spot import Spot
from hooks.stream import ResidualStream
from hooks.view import View, text_view


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
        self.module = module
        self.name = name
        self.identity = identity
        self.adapters = adapters
        self.active = adapters.names[0] if adapters else None
        self.towers = towers_of(module)
        self.n_layers = len(self.towers["language"])
        layout = self.towers["language"].layout
        assert layout is not None
        self.layout = layout
        self.d_model: int = layout.width
        self._joints: dict[str, list[Joint]] = {}  # found when they are first asked for; one dict for all variants
        self.encoder = Encoder(tokenizer, processor, image_token_id(config))
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids_of(module, tokenizer)
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
        with self._ready(batch), self._hooked(batch, keep, edits, lambda: tokens, once=True, stop=not logits) as visit:
            out = self._forward(inputs)
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
        clock = StepClock(batch.tokens.to(self.device), stop_ids)
        handle = self.module.register_forward_pre_hook(clock.tick, with_kwargs=True)
        options = {**PLAIN_DECODING, "pad_token_id": self.encoder.pad_id, **sampling}
        if options["do_sample"]:
            options = {**PLAIN_SAMPLING, **options}
        if stop_ids:
            options["eos_token_id"] = sorted(stop_ids)
        try:
            with self._ready(batch), self._hooked(batch, keep, edits, lambda: clock.tokens) as visit:
                out = self._generate(self._on_device(batch), max_new_tokens=max_new_tokens, **options)
        finally:
            handle.remove()
        written = out[:, batch.inputs["input_ids"].shape[1] :].tolist()
        ids = [until_stop(row, stop_ids) for row in written]
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
    def _ready(self, batch: Batch | None = None) -> Iterator[None]:
        if self.module.training:
            raise RuntimeError(
                "the model is in training mode, where dropout changes every residual: call model.module.eval() first."
            )
        if self.adapters is not None:
            self.adapters.activate(self.active)
        with torch.inference_mode():
            yield

    def _forward(self, inputs: dict[str, Any]) -> Any:
        return self.module(**inputs)

    def _generate(self, inputs: dict[str, Tensor], **options: Any) -> Tensor:
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
    ) -> AbstractContextManager[Visit]:
        def view_of(site: Site, tensor: Tensor) -> View:
            if site.tower == "language":
                return text_view(site, tensor, now(), self.layout)
            return self._vision_view(batch, tensor)

        spots = {site: self.spot(site, text_only=not batch.image_rows) for site in wanted(keep, edits)}
        return hooked(
            spots, keep or {}, edits or {}, view_of, len(batch), once=once, stop=stop, attach=self._attach
        )

    def _attach(self, stops: Sequence[Stop], passed: Passed) -> AbstractContextManager[Any]:
        return forward_hooks(stops, passed)

    def _vision_view(self, batch: Batch, resid: Tensor) -> View:
        return PatchView.of(batch, resid)

    def tower_of(self, site: Site) -> ResidualStream:
        """The tower of a site. Raises ValueError for a site outside the model."""
        tower = self.towers.get(site.tower)
        if tower is None or site.layer >= len(tower):
            raise outside(site, None if tower is None else len(tower), tuple(self.towers))
        return tower

    def spot(self, site: Site, *, text_only: bool = True) -> Spot:
        """Where a site is hooked. Raises ValueError for a site outside the model, UnsupportedArchitecture for a place
        that its blocks do not have. Blocks that text alone does not pass leave the stream as it is: their sites
        are the end of the block before."""
        tower = self.tower_of(site)
        if site.point == "projector" and self.encoder.image_token_id is None:
            raise UnsupportedArchitecture(
                f"{type(self.module).__name__} gives images no positions in its language stream (no image token id in "
                "its config): expected sites of the vision tower, or of the language stream at text positions."
            )
        if text_only and site.layer in tower.skipped:
            return _end_before(tower, site.layer)
        block = tower.blocks[site.layer]
        if site.point == "resid_post":
            return Spot(block, "output", tower.writes)
        start = Spot(block, "input", tower.reads)
        if site.point in ("resid_pre", "projector"):
            return start
        if site.tower != "language":
            raise UnsupportedArchitecture(f"site {site}: expected resid_pre or resid_post in a vision tower.")
        if "language" not in self._joints:
            self._joints["language"] = find_joints(self.module, tower)
        try:
            return self._joints["language"][site.layer].spot(site.point, start)
        except UnsupportedArchitecture as error:
            raise UnsupportedArchitecture(f"site {site} of {type(self.module).__name__}: {error}") from None


def _end_before(tower: ResidualStream, layer: int) -> Spot:
    passed = [n for n in range(layer) if n not in tower.skipped]
    if passed:
        return Spot(tower.blocks[passed[-1]], "output", tower.writes)
    first = next(n for n in range(len(tower)) if n not in tower.skipped)
    return Spot(tower.blocks[first], "input", tower.reads)


@dataclass(frozen=True)
class PatchView:
    """The view of a vision tower with one row an image."""

    tokens: Tokens

    @staticmethod
    def of(batch: Batch, resid: Tensor) -> PatchView:
        if resid.dim() != 3 or len(resid) != len(batch.image_rows):
            raise RuntimeError(
                f"the vision tower read {len(resid)} pictures; the prompts have {len(batch.image_rows)} images: "
                "expected one picture an image (an image that is cut into tiles cannot be told apart here)."
            )
        return PatchView(Tokens.of_patches(resid.shape[0], resid.shape[1], resid.device, batch.image_rows))

    def rows(self, resid: Tensor) -> Tensor:
        return resid

    def back(self, rows: Tensor) -> Tensor:
        return rows


def _refuse_no_edit(visit: Visit, must_edit: bool) -> None:
    counts = [tally.edited for listed in visit.tallies.values() for tally in listed]
    if must_edit and counts and not any(bool(edited.any()) for edited in counts):
        sites = ", ".join(str(site) for site in visit.tallies)
        raise NothingEdited(
            f"the edits at {sites} touched no position of any row: expected at least one. Their scope matches no "
            "token of these prompts (an 'image' scope on text, a 'response' scope on prompts without one)."
        )
