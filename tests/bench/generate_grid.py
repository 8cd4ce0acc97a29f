"""B7: answers under a grid of cells that steer the generated tokens: one shared prefill, and a generation a cell."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from measure import SETTING, Line, main, paired
from models import equal_prompts, subject, subjects
from subjects_of_sweeps import Scene, _editing, directions, plainly_steered, steered

NEW = 16


def lines(quick: bool) -> Iterator[Line]:
    on_cpu = SETTING.device == "cpu" and not SETTING.tiny
    depth, prompts = 4 if quick else 10, equal_prompts(4, 96)
    for one in [subject("qwen-like", layers=depth)] if on_cpu else subjects():
        n = 8 if on_cpu else 16
        if SETTING.device == "cpu":  # in float32 tokens must be equal; in bfloat16 near ties may fall either way
            exact = _Answers(Scene.of(subject("qwen-like", torch.float32, layers=depth), prompts), n)
            exact.compare(least=1.0)
        yield _line(_Answers(Scene.of(one, prompts), n))


class _Answers:
    """The same answers by ours and by a plain generation a cell."""

    def __init__(self, scene: Scene, n: int) -> None:
        self.scene, self.n = scene, n
        self.layers = [cell * scene.model.n_layers // n for cell in range(n)]
        self.vectors = directions(n, scene.model.d_model).to(SETTING.device)
        steps = enumerate(zip(self.layers, self.vectors, strict=True))
        self.cells = {c: steered(v, layer, 6.0, "response") for c, (layer, v) in steps}
        self.ids, _ = scene.ids()

    def ours(self) -> list[list[int]]:
        found: dict[int, list[list[int]]] = {}
        rows = len(self.ids)
        for answers in self.scene.passes().answer(self.cells, NEW):
            for place, c in enumerate(answers.cells):
                found[c] = answers.generation.token_ids[place * rows : (place + 1) * rows]
        return [row for c in sorted(found) for row in found[c]]

    def naive(self) -> list[list[int]]:
        rows, ids = [], self.ids
        options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
        for layer, v in zip(self.layers, self.vectors, strict=True):
            step = plainly_steered(v, 6.0)
            hook = _editing(lambda h, step=step: step(h) if h.shape[1] == 1 else h)  # the prompt is left alone
            handle = self.scene.blocks[layer].register_forward_hook(hook)
            try:
                with torch.inference_mode():
                    out = self.scene.subject.module.generate(ids, attention_mask=torch.ones_like(ids), **options)
            finally:
                handle.remove()
            rows += [row[: row.index(1) + 1] if 1 in row else row for row in out[:, ids.shape[1] :].tolist()]
        return rows

    def compare(self, least: float) -> float:
        """The share of equal answers, at least this much; refuses a steering that changes none."""
        ours, naive = self.ours(), self.naive()
        same = sum(a == b for a, b in zip(ours, naive, strict=True)) / len(naive)
        assert same >= least, f"only {same:.0%} of the answers are equal"
        plain = self.scene.model.generate(self.scene.model.encode(self.scene.prompts), max_new_tokens=NEW).token_ids
        assert ours[: len(plain)] != plain, "the steering changes no answer: equal tokens would show nothing"
        return same


def _line(answers: _Answers) -> Line:
    same, scene = answers.compare(least=0.0), answers.scene
    rows, columns = answers.ids.shape
    what = f"{answers.n} cells, {NEW} new tokens; {scene.subject.words}, {rows} x {columns} tokens"
    note = f"{same:.0%} of the answers equal, in float32 all; naive: generate with a plain hook, a cell at a time"
    return Line("B7", what, paired(answers.ours, answers.naive), 5.0, 8.0, peer="generate a cell", note=note)


if __name__ == "__main__":
    main("generate_grid", lines)
