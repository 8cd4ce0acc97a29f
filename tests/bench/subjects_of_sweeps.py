"""What the sweep benchmarks share: a batch, directions, our cells, and the best that a plain script does instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from clocks import SETTING
from models import Subject
from torch import Tensor, nn

import workbench as wb
from hooks.edits import LowRankEdit
from hooks.site import Site
from workbench.interventions.passes import Passes
from workbench.interventions.planner import Bounds

BUDGET = 2 * 2**30
# Re-batched cells sum in another order: two units in the last place of the largest logit in bfloat16.
TOLERANCE = {torch.bfloat16: 2e-2, torch.float32: 1e-5}


@dataclass(frozen=True)
class Scene:
    """A model under measurement and one batch of prompts, as ours and as plain ids padded right."""

    subject: Subject
    model: Any
    prompts: Sequence[wb.Prompt]

    @staticmethod
    def of(subject: Subject, prompts: Sequence[wb.Prompt]) -> Scene:
        return Scene(subject, subject.traced(), prompts)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.subject.module.model.layers)

    @property
    def tokens(self) -> int:
        return sum(len(str(prompt.text)) for prompt in self.prompts)

    def ids(self) -> tuple[Tensor, Tensor]:
        """Ids padded right, and the column of each row's last token."""
        rows = [self.subject.tokenizer(str(prompt.text)).input_ids for prompt in self.prompts]
        width = max(map(len, rows))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=SETTING.device)
        return padded, torch.tensor([len(row) - 1 for row in rows], device=SETTING.device)

    def passes(self, *, exact: bool = False, tokens: int | None = None) -> Passes:
        bounds = Bounds(tokens or self.subject.max_tokens, BUDGET, exact, 2048 if SETTING.device == "cuda" else 256)
        return Passes(self.model, self.model.encode(self.prompts), bounds)

    def read(self, cells: Sequence[dict[Site, list[LowRankEdit]]], **options: Any) -> Tensor:
        """[cell, row, vocab]: what a sweep reads, its clean pass included."""
        readings = list(self.passes(**options).read(dict(enumerate(cells))))
        order = torch.tensor([c for reading in readings for c in reading.cells])
        logits = torch.cat([reading.logits for reading in readings])
        return logits[order.argsort().to(logits.device)]

    def plain(self, hooked: Sequence[tuple[int, Any]]) -> Tensor:
        """[row, vocab] of one forward as a careful script writes it: the base model without mask and cache, hooks that
        edit a block's output, and the head on contiguous last rows."""
        ids, last = self.ids()
        handles = [self.blocks[layer].register_forward_hook(_editing(edit)) for layer, edit in hooked]
        try:
            with torch.inference_mode():
                states = self.subject.module.model(ids, use_cache=False).last_hidden_state
                return self.subject.module.lm_head(states[torch.arange(len(ids), device=ids.device), last])
        finally:
            for handle in handles:
                handle.remove()


def directions(n: int, width: int) -> Tensor:
    """Unit vectors [n, width], float32."""
    drawn = torch.randn(n, width, generator=torch.Generator().manual_seed(0))
    return drawn / drawn.norm(dim=-1, keepdim=True)


def ablated(v: Tensor, layer: int) -> dict[Site, list[LowRankEdit]]:
    """Our cell: v taken out behind a block, at every token."""
    row = v[None, None].cpu()
    return {Site(layer): [LowRankEdit(row, row, -torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1), ("all",))]}


def steered(v: Tensor, layer: int, coefficient: float, at: str) -> dict[Site, list[LowRankEdit]]:
    """Our cell: a multiple of v added behind a block."""
    row, shift = v[None, None].cpu(), torch.full((1, 1), coefficient)
    return {Site(layer): [LowRankEdit(row, row, torch.zeros(1, 1), shift, torch.ones(1), (at,))]}


def plainly_ablated(v: Tensor) -> Any:
    """The same, as scripts write it: in the model's own dtype."""

    def edit(h: Tensor) -> Tensor:
        u = v.to(h)
        return h - (h @ u)[..., None] * u

    return edit


def plainly_steered(v: Tensor, coefficient: float, columns: Tensor | None = None) -> Any:
    """A multiple of v added to every token, or to one column a row."""

    def edit(h: Tensor) -> Tensor:
        step = coefficient * v.to(h)
        if columns is None:
            return h + step
        out = h.clone()
        out[torch.arange(len(h), device=h.device), columns] += step
        return out

    return edit


def assert_close(ours: Tensor, theirs: Tensor, what: str) -> None:
    """No logit differs by more than the dtype's tolerance of the largest one."""
    off = float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())
    assert off <= TOLERANCE[theirs.dtype], f"{what}: logits differ by {off:.1e} of the largest"


def _editing(edit: Any) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return edit(output) if isinstance(output, Tensor) else (edit(output[0]), *output[1:])

    return hook
