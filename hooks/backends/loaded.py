"""A loaded model before it runs: its towers and sites, and its adapters as variants."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import nn

from hooks.adapters import Active, Adapters
from hooks.blocks import UnsupportedArchitecture, image_token_id
from hooks.decoding import stop_ids_of
from hooks.deepstack import injected_layers
from hooks.encode import Batch, Encoder
from hooks.engine import outside
from hooks.example import towers_with
from hooks.features import ImageFeatures
from hooks.joints import Joint, find_joints
from hooks.locate import located
from hooks.prompt import Prompt
from hooks.site import Site
from hooks.spot import Spot
from hooks.spread import spread
from hooks.stream import ResidualStream
from hooks.structure import refuse_two_streams

Model = TypeVar("Model", bound="LoadedModel")
# Tokens of one forward of several variants, where nothing else is asked for. On one core 12 variants of 4 x 64 tokens
# (12 layers of width 1024, bfloat16) take 0.92 of the time of one by one in forwards of 1,024 tokens; 0.98 in one of
# 3,072, as the bare base does, and more than 1 while other cores use the memory.
CPU_TOKENS, GPU_TOKENS = 1024, 8192


class LoadedModel:
    """A model's parts by name. `variant("base")` and `variant(adapter)` are views of the same weights with adapters
    off, or one of them on; `variant([...])` is one whose batch rows each have their own."""

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        processor: Any,
        *,
        name: str,
        identity: dict[str, Any],
        adapters: Adapters | None = None,
        wrapper: Any = None,
    ) -> None:
        """`wrapper` is another library's own object around the module; here there is none."""
        config: Any = module.config
        refuse_two_streams(config)
        self.module = module
        self.name = name
        self.identity = identity
        self.adapters = adapters
        self.active: Active = adapters.names[0] if adapters else None
        self.encoder = Encoder(tokenizer, processor, image_token_id(config))
        self.towers = towers_with(module, self.encoder)
        self.n_layers = len(self.towers["language"])
        layout = self.towers["language"].layout
        assert layout is not None
        self.layout = layout
        self.d_model: int = layout.width
        self.checkup: Any = None  # the Checkup of the load
        self.why_not_generate: str | None = None  # what the check-up of the load found against it
        self.pads = {"right": True, "left": True}  # False where padding on that side was seen to change numbers
        self.masks_text = True  # False where padded text was seen to do without an attention mask (`hooks.masks`)
        self._found: dict[str, Any] = {}  # joints and injected layers, when first asked for; one dict for all variants
        self.features = ImageFeatures(module, self.towers["language"].blocks)
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids_of(module, tokenizer)
        self._accepts = set(inspect.signature(module.forward).parameters)

    def __repr__(self) -> str:
        towers = ", ".join(f"{len(blocks)} {tower} layers" for tower, blocks in self.towers.items())
        variant = self.active or "base"
        if isinstance(variant, tuple):
            variant = f"{', '.join(dict.fromkeys(variant))} row by row"
        return f"<{type(self.module).__name__} {self.name!r}, variant {variant!r}: {towers}, d_model {self.d_model}>"

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def spread(self) -> bool:
        """True where the weights lie on several devices (`device_map`)."""
        if "spread" not in self._found:
            self._found["spread"] = spread(self.module)
        return self._found["spread"]

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @property
    def variants(self) -> tuple[str, ...]:
        return ("base", *(self.adapters.names if self.adapters else ()))

    @property
    def depths(self) -> dict[str, int]:
        return {tower: len(blocks) for tower, blocks in self.towers.items()}

    @property
    def facts(self) -> dict[str, Any]:
        """What provenance keeps of the model: its identity, and the checks that it passed on load."""
        return {"model": self.identity, "checks": None if self.checkup is None else self.checkup.record()}

    def injected_layers(self) -> tuple[int, ...]:
        """The layers into which image features are added from outside the stream (deepstack); usually none."""
        if "injected" not in self._found:
            self._found["injected"] = injected_layers(self)
        return self._found["injected"]

    def variant(self: Model, name: str | Sequence[str]) -> Model:
        """The same weights with this adapter on, or with none for `"base"`. A list gives each row of a batch its own
        variant, in one forward (see `across`); raises ValueError for adapters that cannot act row by row."""
        names = (name,) if isinstance(name, str) else tuple(name)
        for one in names:
            if one not in self.variants:
                raise ValueError(
                    f"variant {one!r} is not loaded: expected one of {', '.join(self.variants)} (load_model(..., "
                    "adapter=...), or --adapter)."
                )
        view = copy.copy(self)
        if isinstance(name, str):
            view.active = None if name == "base" else name
        else:
            if why := self.why_not_by_row(names):
                raise ValueError(f"variants {', '.join(dict.fromkeys(names))} cannot be rows of one batch: {why}.")
            view.active = names
        return view

    def why_not_by_row(self, variants: Sequence[str]) -> str | None:
        """Why these variants cannot be rows of one batch, or None: they can. (A layer whose rows turn out not to be
        told apart refuses in the forward: RowsUnknown.)"""
        distinct = tuple(dict.fromkeys(variants))
        return None if self.adapters is None or len(distinct) < 2 else self.adapters.why_not_by_row(distinct)

    def across(self: Model, batch: Batch, variants: Sequence[str]) -> tuple[Model, Batch]:
        """The view and the batch in which the rows of `batch` stand once for each variant, variant by variant:
        `view.run(rows)` and `view.generate(rows)` read the base weights once for all of them."""
        rows = batch.rows(list(range(len(batch))) * len(variants))
        return self.variant([variant for variant in variants for _ in range(len(batch))]), rows

    def across_in_parts(
        self: Model, batch: Batch, variants: Sequence[str], max_tokens: int | None = None
    ) -> list[tuple[Model, Batch]]:
        """`across` as several forwards, the variants in turn and shared out evenly, each of at most `max_tokens` padded
        tokens (default: 1,024 on a CPU, 8,192 elsewhere), or of one variant. For forwards that read many tokens: there
        the weights are read once anyway, and what a layer leaves no longer fits the caches, or the memory."""
        most = max_tokens or (CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS)
        each = max(1, most // batch.inputs["input_ids"].numel())
        n = -(-len(variants) // each)
        ends = [len(variants) * part // n for part in range(n + 1)]
        return [self.across(batch, variants[start:end]) for start, end in pairwise(ends)]

    def encode(self, prompts: Sequence[Prompt]) -> Batch:
        return self.encoder(prompts)

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
        if site.point == "projector" and self.encoder.image_token_id is None:
            raise UnsupportedArchitecture(
                f"{type(self.module).__name__} gives images no positions in its language stream (no image token id in "
                "its config): expected sites of the vision tower, or of the language stream at text positions."
            )
        return located(self.tower_of(site), site, self._joints, text_only=text_only)

    def _joints(self) -> list[Joint]:
        if "joints" not in self._found:
            self._found["joints"] = find_joints(self.module, self.towers["language"])
        return self._found["joints"]
