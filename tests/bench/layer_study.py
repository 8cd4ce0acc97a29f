"""B15: the layer study. Every layer x 21 directions on a prompt set, next-token logit difference: wb.sweep against one
plain forward a layer, direction and batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from measure import SETTING, Line, main, paired
from models import equal_prompts, long_prompts, subject, subjects
from subjects_of_sweeps import Scene, plainly_ablated

import workbench as wb
from workbench.units import length_sorted

DIRECTIONS = 21
NAIVE = "best naive: our units, a plain forward a cell, without mask and cache, the head on last rows"


def lines(quick: bool) -> Iterator[Line]:
    on_cpu = SETTING.device == "cpu" and not SETTING.tiny
    for one in [subject("qwen-like", layers=4 if quick else 8)] if on_cpu else subjects():
        asked = {"right": "a", "contrary": "b"}
        chosen = equal_prompts(8, 40) if quick else long_prompts(32 if on_cpu else 1000)
        prompts = [replace(prompt, tags=asked) for prompt in chosen]
        yield from _of(Scene.of(one, prompts))


def _of(scene: Scene) -> Iterator[Line]:
    depth, width = scene.model.n_layers, scene.model.d_model
    rng, sites = np.random.default_rng(0), [wb.Site(layer) for layer in range(depth)]
    found = [wb.Directions.of(sites, rng.normal(size=(depth, width)), role="write") for _ in range(DIRECTIONS)]
    cells = [wb.Ablate(v, layer=layer, to="zero") for v in found for layer in range(depth)]

    def ours() -> wb.ResultTable:
        options = {"max_tokens": 8192 if SETTING.device == "cuda" else 1024, "progress": False}
        return wb.sweep(scene.model, scene.prompts, cells, **options)

    units = length_sorted([len(str(prompt.text)) for prompt in scene.prompts], scene.subject.max_tokens)
    batches = [Scene(scene.subject, scene.model, [scene.prompts[i] for i in unit]) for unit in units]
    a, b = (scene.subject.tokenizer(letter).input_ids[0] for letter in "ab")

    def naive() -> np.ndarray:
        out = np.zeros((len(cells), len(scene.prompts)))
        for batch, unit in zip(batches, units, strict=True):
            for c, cell in enumerate(cells):
                v = torch.tensor(cell.direction.unit[cell.layer], dtype=torch.float32).to(SETTING.device)
                logits = batch.plain([(cell.layer, plainly_ablated(v))]).float()
                out[c, unit] = (logits[:, b] - logits[:, a]).cpu()
        return out

    _assert_equal(ours(), naive(), scene.prompts, scene.subject.module.dtype)
    tokens = sum(len(str(prompt.text)) for prompt in scene.prompts)
    what = f"{depth} layers x {DIRECTIONS} directions x {len(scene.prompts)} prompts ({tokens} tokens); "
    yield Line("B15", what + scene.subject.words, paired(ours, naive), 1.5, 1.9, peer="best naive", note=NAIVE)


def _assert_equal(table: wb.ResultTable, naive: np.ndarray, prompts: Sequence[wb.Prompt], dtype: torch.dtype) -> None:
    column = {prompt.id: n for n, prompt in enumerate(prompts)}
    rows = [row for row in table.rows() if row["intervention"] == "ablate"]
    assert len(rows) == naive.size
    ours = np.zeros_like(naive)
    for row in rows:
        ours[row["cell"] - 1, column[row["prompt"]]] = row["logit_difference"]
    off = np.abs(ours - naive).max() / np.abs(naive).max()
    # The script ablates in the model's own dtype, which leaves more of the direction than we do.
    assert off <= (5e-2 if dtype == torch.bfloat16 else 1e-4), f"logit differences differ by {off:.1e} of the largest"


if __name__ == "__main__":
    main("layer_study", lines)
