"""B5 and B6: a grid of steerings, layers x directions x coefficients: at the last token, and at every token."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from measure import SETTING, Line, main, paired
from models import equal_prompts, subject, subjects
from subjects_of_sweeps import Scene, assert_close, directions, plainly_steered, steered
from torch import Tensor

COEFFICIENTS = (-4.0, -1.0, 1.0, 4.0)
NAIVE = "best naive: a plain forward a cell, without mask and cache, the head on last rows"


def lines(quick: bool) -> Iterator[Line]:
    on_cpu = SETTING.device == "cpu" and not SETTING.tiny
    for one in [subject("qwen-like", layers=10)] if on_cpu else subjects():
        rows, tokens = (2, 96) if quick else (4, 96) if on_cpu else (8, 256)
        yield from _of(Scene.of(one, equal_prompts(rows, tokens)), quick)


def _of(scene: Scene, quick: bool) -> Iterator[Line]:
    depth = scene.model.n_layers
    _, last = scene.ids()
    on_gpu = SETTING.device == "cuda"
    for name, at, columns, way, gate, goal in (
        ("B5", "last", last, "prefix", 15.0, 40.0 if on_gpu else 23.0),
        ("B6", "all", None, "suffix", 2.2, 1.95 if on_gpu else 2.6),
    ):
        # Twice the layers times the coefficients; half of that where every token is steered, which takes long.
        vectors = directions(1 if quick and at == "all" else 2, scene.model.d_model).to(SETTING.device)
        points = [(layer, v, c) for layer in range(depth) for v in vectors for c in COEFFICIENTS]
        what = f"{scene.subject.words}, {len(scene.prompts)} x {last[0] + 1} tokens, {len(points)} cells"
        cells = [steered(v, layer, c, at) for layer, v, c in points]

        def ours(cells: list = cells) -> Tensor:
            return scene.read(cells, tokens=8 * sum(len(str(prompt.text)) for prompt in scene.prompts))

        def naive(columns: Tensor | None = columns, points: list = points) -> Tensor:
            return torch.stack([scene.plain([(layer, plainly_steered(v, c, columns))]) for layer, v, c in points])

        assert {one.way for one in scene.passes().plan(dict(enumerate(cells)))} == {way}
        assert_close(ours(), naive(), f"steering at {at}")
        yield Line(name, f"steering at {at}; {what}", paired(ours, naive), gate, goal, peer="best naive", note=NAIVE)


if __name__ == "__main__":
    main("grid", lines)
