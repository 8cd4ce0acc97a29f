"""A model that is only planned: its config and its encoder, no weights; what it is asked to run is noted instead."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from hooks.backends.hf import HuggingFaceModel
from hooks.checkpoint_files import check_config
from hooks.checkpoints import checkpoint_config, checkpoint_tokenizer
from hooks.encode import Batch
from hooks.model import Generation, Trace
from hooks.processors import load_processor
from hooks.shortcuts import Shortcuts
from hooks.site import Site
from hooks.structure import image_encoder_of, image_token_id, text_depth, vision_config
from workbench.interventions.passes import Passes
from workbench.planning.encoder import PlannedEncoder


@dataclass(frozen=True)
class Call:
    """Calls of the model on one batch: `rows` by `columns`, `tokens` of them real, from the block `start` on.

    A generation of `new` tokens is that many calls at most, its prompt the first of them; `behind` columns stand in a
    cache before. `together` pictures pass the tower at once. `kept` are bytes that hooks hold meanwhile, `logits` the
    rows that the head reads, `copies` how often these are held in float32 while a token is chosen.
    """

    kind: str
    rows: int
    columns: int
    tokens: int
    images: int = 0
    together: int = 0
    start: int = 0
    behind: int = 0
    new: int = 0
    kept: int = 0
    logits: int = 0
    copies: int = 2

    @property
    def calls(self) -> int:
        return max(1, self.new)


class PlannedModel(HuggingFaceModel):
    """Stands where a HuggingFaceModel would in all that is decided before a forward: units, edits, passes. `calls` are
    what it was asked to run. It is taken to pad well and to allow every shortcut, which a load measures."""

    def __init__(
        self, module: nn.Module, tokenizer: Any, processor: Any, *, name: str, dtype: torch.dtype, device: str,
        variants: Sequence[str],
    ) -> None:  # fmt: skip
        config: Any = module.config
        self.module, self.config, self.name = module, config, name
        self.identity = {"model": name}
        self.adapters = self.checkup = self.why_not_generate = None
        self.encoder = PlannedEncoder(tokenizer, processor, image_token_id(config))
        self.tokenizer = tokenizer
        text: Any = config.get_text_config(decoder=True)
        depth = text_depth(module)
        if depth is None:
            raise ValueError(f"the config of {name} states no number of layers: expected num_hidden_layers.")
        self.n_layers, self.d_model = depth, int(text.hidden_size)
        self.active = next((one for one in variants if one != "base"), None)
        self.pads = {"right": True, "left": True}
        self.stop_ids = frozenset()
        blocks: Any = SimpleNamespace(blocks=list(range(depth)))
        self.towers = {"language": blocks}
        self.calls: list[Call] = []
        self.pictures: dict[str, int] = {}  # prompt -> tokens of its images
        self._planned = (torch.device(device), dtype, ("base", *(one for one in variants if one != "base")))
        self._depths = {"language": depth}
        if vision_config(config) is not None:
            self._depths["vision"] = int(image_encoder_of(module)[1] or 0)

    @property
    def device(self) -> torch.device:
        """The one that is planned for."""
        return self._planned[0]

    @property
    def dtype(self) -> torch.dtype:
        return self._planned[1]

    @property
    def variants(self) -> tuple[str, ...]:
        return self._planned[2]

    @property
    def depths(self) -> dict[str, int]:
        return self._depths

    def run(self, *_: Any, **__: Any) -> Trace:
        """Raises RuntimeError: there are no weights."""
        raise RuntimeError(f"{self.name} is only planned: expected wb.load_model(...) for anything that runs.")

    def variant(self, name: str | Sequence[str]) -> PlannedModel:  # type: ignore[override]
        """The same plan with this adapter on, or with one for each row. Raises ValueError for one that is not named."""
        names = (name,) if isinstance(name, str) else tuple(name)
        if strange := [one for one in names if one not in self.variants]:
            raise ValueError(
                f"variant {strange[0]!r} is not planned: expected one of {', '.join(self.variants)} (variants=)."
            )
        view = copy.copy(self)  # the calls stay in one list
        view.active = names if not isinstance(name, str) else None if name == "base" else name
        return view

    def with_variants(self, names: Sequence[str]) -> PlannedModel:
        """The same model with other adapters, and calls of its own."""
        view = copy.copy(self)
        device, dtype, _ = self._planned
        view._planned = (device, dtype, ("base", *names))
        view.active, view.calls, view.pictures = next(iter(names), None), [], {}
        return view

    def why_not_by_row(self, variants: Sequence[str]) -> str | None:
        return None

    def injected_layers(self) -> tuple[int, ...]:
        """As the config states them: the first layers, one for each level of the tower that is added."""
        indexes = getattr(vision_config(self.config), "deepstack_visual_indexes", None) or ()
        return tuple(range(1, len(indexes) + 1))

    def spot(self, site: Site, *, text_only: bool = True) -> Any:
        return SimpleNamespace(module=site.layer, side="output" if site.point == "resid_post" else "input")

    def note(self, kind: str, batch: Batch, **facts: Any) -> None:
        """Notes a call on this batch."""
        rows, columns = batch.inputs["input_ids"].shape
        behind = facts.get("behind", 0)
        real = int((batch.tokens.position[:, behind:] >= 0).sum())
        images = 0 if behind else len(batch.image_rows)
        if images:
            shown = batch.tokens.is_image.sum(dim=1).tolist()
            self.pictures |= {one.id: n for one, n in zip(batch.encoded, shown, strict=True)}
        facts = {"tokens": real, "images": images, "together": min(images, 1), **facts}
        self.calls.append(Call(kind, rows, columns - behind, **facts))

    def generate(
        self,
        batch: Batch,
        keep: Any = None,
        edits: Any = None,
        *,
        max_new_tokens: int,
        after: Any = None,
        copies: int = 2,
        **_: Any,
    ) -> Generation:
        """Notes that the batch would be answered."""
        facts = {"new": max_new_tokens, "logits": len(batch), "copies": copies}
        self.note("answer", batch, behind=0 if after is None else after.length, **facts)
        return Generation([""] * len(batch), [[] for _ in batch.encoded], [False] * len(batch))


class PlannedPasses(Passes):
    """Passes that are chosen as they would be, and noted instead of run."""

    _model: PlannedModel

    def __init__(self, model: PlannedModel, batch: Batch, bounds: Any, measured: set[bool]) -> None:
        """`measured` holds for which batches, with pictures or without, shortcuts were measured already."""
        super().__init__(model, batch, bounds)
        self._measured = measured

    @property
    def allowed(self) -> Shortcuts:  # type: ignore[override]
        pictures = bool(self._batch.image_rows)
        if pictures not in self._measured:
            self._measured.add(pictures)
            few = self._batch.rows(list(range(min(2, len(self._batch)))) if len(self._batch) > 1 else [0, 0])
            depth = self._model.n_layers
            # As hooks.shortcuts measures: whole, from each start, copies, stairs, twice a prefix and what is behind.
            for _ in range(1 + len({1, depth // 2, depth - 1, depth} - {0}) + 2 + 4):
                self._model.note("measure shortcuts", few)
        needs = self._bytes_per_row * len(self._batch)
        if needs <= self._bounds.bytes:
            return Shortcuts(None, None, None, None)
        why = "the recorded streams would not fit"
        return Shortcuts(why, why, why, None)

    @property
    def clean(self) -> Any:  # type: ignore[override]
        if "clean" not in vars(self):
            kept = self._bytes_per_row * len(self._batch) if self.allowed.replay is None else 0
            self._model.note("read", self._batch, kept=kept, logits=len(self._batch))
            vars(self)["clean"] = (self._trace(len(self._batch)), None)
        return vars(self)["clean"]

    def _trace(self, rows: int) -> Trace:
        return Trace({}, torch.empty(rows, 1, device="meta"), {})

    def _run(self, one: Any, grid: Any) -> Trace:
        return self._read(one, grid, one.start if one.way == "suffix" else 0)

    def _climbed(self, one: Any, grid: Any, cells: Mapping[int, Any], recorded: bool) -> tuple[Trace, Any]:
        wider = type(grid)([{}, *grid.edits])
        return self._read(one, wider, one.start if recorded else 0), wider

    def _read(self, one: Any, grid: Any, start: int) -> Trace:
        if start:
            _ = self.clean
        batch = grid.batch(self._batch)
        kept = self._bytes_per_row * len(self._batch) if "clean" in vars(self) else 0
        self._model.note("read", batch, start=start, kept=kept, logits=len(batch))
        return self._trace(len(batch))

    def _behind(self, one: Any, grid: Any) -> Trace:
        self._shared(one.start)
        batch = grid.batch(self._left)
        self._model.note("read", batch, behind=one.start, logits=len(batch))
        return self._trace(len(batch))

    def _prefix(self, model: Any, batch: Batch, length: int) -> Any:
        real = int((batch.tokens.position[:, :length] >= 0).sum())
        rows, images = len(batch), len(batch.image_rows)
        self._model.calls.append(Call("prefix", rows, length, real, images, min(images, 1), new=1, logits=rows))
        return _NoCache(length)


@dataclass(frozen=True)
class _NoCache:
    length: int

    def rows(self, index: Sequence[int]) -> _NoCache:
        return self


def planned(
    source: Any, tokenizer: Any, processor: Any, *, dtype: str | torch.dtype, device: str, variants: Sequence[str]
) -> PlannedModel:
    """The plan of a model from a folder (config.json, tokenizer and processor files), a config, or a dict of one.

    The module is made on the meta device: it has shapes and no values. Nothing is downloaded. Raises FileNotFoundError
    for a folder that is not there, ValueError for a config without its tokenizer.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    name = "planned"
    if isinstance(source, str | Path):
        folder = Path(source)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} has no config.json: expected a local folder with it (nothing is downloaded), or a config."
            )
        config, name = checkpoint_config(str(folder), local_files_only=True), folder.name
        if processor is None and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            processor = load_processor(str(folder))
        if tokenizer is None:
            tokenizer = getattr(processor, "tokenizer", None) or checkpoint_tokenizer(str(folder))
    elif isinstance(source, Mapping):
        if "model_type" not in source:
            raise ValueError("the config has no model_type: expected what a config.json holds, {'model_type': ...}.")
        check_config(name, source, trusted=False)
        config = AutoConfig.for_model(**source)
    else:
        config = source
    tokenizer = tokenizer or getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise ValueError("a config alone cannot read prompts: expected tokenizer= (and processor= for images).")
    chosen: Any = getattr(config, "dtype", None) if dtype == "auto" else dtype
    chosen = getattr(torch, chosen) if isinstance(chosen, str) else chosen or torch.float32
    sees = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    auto: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    with torch.device("meta"):
        module = auto.from_config(config, dtype=chosen, trust_remote_code=False)
    return PlannedModel(module, tokenizer, processor, name=name, dtype=chosen, device=device, variants=variants)
