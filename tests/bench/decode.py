"""B9: what steering every layer costs while answers are written: against a generation without any hook, and against the
same steering by a plain hook, nnsight and TransformerBridge. On a GPU also under CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from measure import SETTING, Line, main, paired
from models import Subject, equal_prompts, subject, subjects
from peers import bridge_of, nnsight_model
from subjects_of_sweeps import _editing, directions, plainly_steered, steered
from torch import Tensor

from hooks.edits import LowRankEdit
from hooks.site import Site

PROMPT = 24  # tokens of a prompt: it is the steps behind it that are measured
SIZE = 3.0
GATE, GOAL = 1.12, 1.08
ON_GPU = 1.05
HOOKS = "a plain hook a layer"
Answers = Callable[[], list[list[int]]]


def lines(quick: bool) -> Iterator[Line]:
    on_cpu = SETTING.device == "cpu" and not SETTING.tiny
    new = 4 if SETTING.tiny else (16 if quick else 32) if on_cpu else 128
    sizes = (1, 8) if quick or SETTING.tiny else (1, 8, 64)
    for one in [subject("qwen-like", layers=8)] if on_cpu else subjects():
        for rows in sizes:
            yield from _of(Steered(one, rows, new))
    if on_cpu:  # where our attention of few queries plays no role
        yield from _of(Steered(subject("qwen-like", torch.float32), sizes[-1], new))


def _of(scene: Steered) -> Iterator[Line]:
    others = {HOOKS: scene.plain_hooks, **scene.peers()}
    # In float32 every token must be equal; in bfloat16 the near ties of random weights fall either way.
    Steered(subject("qwen-like", torch.float32), scene.rows, scene.new).compare()
    what = f"{scene.rows} rows, {scene.new} new tokens; {scene.subject.words}"
    note = "tokens equal to those of every peer in float32; each peer steers with its own words for it"
    ratio = paired(scene.ours, scene.plain, also=others)
    on_gpu = SETTING.device == "cuda"
    gate, goal = (ON_GPU, ON_GPU) if on_gpu else (GATE, GOAL)
    yield Line("B9", f"every layer steered, {what}", ratio, gate, goal, "<=", "generate, no hook", note)
    for name, other in ratio.also.items():
        least = None if name == HOOKS else 1.0
        yield Line("B9", f"the same steering, {what}", other, least, peer=name)
    for name in ("nnsight", "TransformerBridge"):
        if name not in others:
            yield Line("B9", f"the same steering, {what}", peer=name, note="not installed")
    if on_gpu:
        yield from scene.graphs(what)


@dataclass
class Steered:
    """One model and one batch, steered by all that can."""

    subject: Subject
    rows: int
    new: int
    model: Any = field(init=False)
    decoding: str = field(init=False, default="")  # what the last answers of ours say of themselves

    def __post_init__(self) -> None:
        self.subject.module.generation_config.eos_token_id = None  # every answer has its full length
        self.model = self.subject.traced()
        self.prompts = equal_prompts(self.rows, PROMPT)
        self.batch = self.model.encode(self.prompts)
        self.ids: Tensor = self.batch.inputs["input_ids"].to(SETTING.device)
        self.vectors = directions(self.model.n_layers, self.model.d_model).to(SETTING.device)
        self.edits: dict[Site, list[LowRankEdit]] = {}
        for layer, v in enumerate(self.vectors):
            self.edits |= steered(v, layer, SIZE, "all")

    def ours(self, decode: str = "dynamic", steering: bool = True) -> list[list[int]]:
        out = self.model.generate(
            self.batch, edits=self.edits if steering else None, max_new_tokens=self.new, eos_token_id=[], decode=decode
        )
        self.decoding = out.decoding
        return out.token_ids

    def plain(self) -> list[list[int]]:
        """Hugging Face as users run it, unsteered."""
        with torch.inference_mode():
            out = self.subject.module.generate(self.ids, **self._options())
        return out[:, PROMPT:].tolist()

    def plain_hooks(self) -> list[list[int]]:
        layers = self.subject.module.model.layers
        steps = [plainly_steered(v.to(self.model.dtype), SIZE) for v in self.vectors]
        handles = [layer.register_forward_hook(_editing(step)) for layer, step in zip(layers, steps, strict=True)]
        try:
            return self.plain()
        finally:
            for handle in handles:
                handle.remove()

    def peers(self) -> dict[str, Answers]:
        made = {"nnsight": _nnsight, "TransformerBridge": _bridge}
        there = {"nnsight": "nnsight", "TransformerBridge": "transformer_lens"}
        return {name: make(self) for name, make in made.items() if find_spec(there[name])}

    def compare(self) -> None:
        """Our tokens are those of every peer, and those of a static cache and of CUDA graphs; and the steering changes
        some, or equal tokens would show nothing."""
        ours = self.ours()
        assert ours != self.plain(), "the steering changes no answer"
        for name, other in {HOOKS: self.plain_hooks, **self.peers()}.items():
            assert ours == other(), f"{name} gives other tokens"
        for way in ("static", "graph"):
            assert ours == self.ours(way), f"{way} decoding gives other tokens"
            possible = way == "static" or SETTING.device == "cuda"
            assert not possible or self.decoding == way, self.decoding

    def graphs(self, what: str) -> Iterator[Line]:
        """A CUDA graph a token, the edits inside; the capture is in the time, as a batch has one."""
        self.ours("graph")
        if self.decoding != "graph":
            yield Line("B9", f"CUDA graphs, {what}", peer="CUDA graphs, no edits", note=self.decoding)
            return
        edited = paired(lambda: self.ours("graph"), lambda: self.ours("graph", steering=False))
        what, peer = f"CUDA graphs, every layer steered, {what}", "CUDA graphs, no edits"
        yield Line("B9", what, edited, ON_GPU, ON_GPU, "<=", peer)
        yield Line("B9", what, paired(lambda: self.ours("graph"), self.plain), peer="generate, no hook")

    def _options(self) -> dict[str, Any]:
        options = dict(max_new_tokens=self.new, do_sample=False, pad_token_id=0)
        return {"attention_mask": torch.ones_like(self.ids), **options}


def _nnsight(scene: Steered) -> Answers:
    import nnsight

    model = nnsight_model(scene.subject)
    steps = [SIZE * v.to(scene.model.dtype) for v in scene.vectors]

    def run() -> list[list[int]]:
        with torch.inference_mode(), model.generate(scene.ids, **scene._options()) as tracer:
            for _ in tracer.iter[: scene.new]:
                for layer, step in zip(model.model.layers, steps, strict=True):
                    layer.output = layer.output + step
            out = nnsight.save(tracer.result)
        return out[:, PROMPT:].tolist()

    return run


def _bridge(scene: Steered) -> Answers:
    bridge = bridge_of(scene.subject)
    steps = [SIZE * v.to(scene.model.dtype) for v in scene.vectors]
    hooks = [(f"blocks.{n}.hook_out", lambda h, hook, step=step: h + step) for n, step in enumerate(steps)]
    options = dict(max_new_tokens=scene.new, do_sample=False, stop_at_eos=False, return_type="tokens", verbose=False)

    def run() -> list[list[int]]:
        with torch.inference_mode(), bridge.hooks(fwd_hooks=hooks):
            return bridge.generate(scene.ids, **options)[:, PROMPT:].tolist()

    return run


if __name__ == "__main__":
    main("decode", lines)
