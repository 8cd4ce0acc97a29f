"""B3 and B4: ablation of one direction behind each block in turn, next-token logits; all layers, and the late half."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from measure import SETTING, Line, main, paired
from models import short_prompts, subject, subjects, texts
from subjects_of_sweeps import Scene, ablated, assert_close, directions, plainly_ablated
from torch import Tensor

NAIVE = "best naive: a plain forward a layer, without mask and cache, the head on last rows"


def lines(quick: bool) -> Iterator[Line]:
    on_cpu = SETTING.device == "cpu" and not SETTING.tiny
    for one in [subject("qwen-like", layers=10)] if on_cpu else subjects():
        sizes = [44, 40, 36, 33] if quick else [88, 80, 76, 72] if on_cpu else [1024] * 8
        yield from _suffix(Scene.of(one, texts(sizes)))
        yield from _short(Scene.of(one, short_prompts(4 if on_cpu else 8)))


def _suffix(scene: Scene) -> Iterator[Line]:
    depth, what = scene.model.n_layers, f"{scene.subject.words}, {len(scene.prompts)} prompts, {scene.tokens} tokens"
    vectors = directions(depth, scene.model.d_model).to(SETTING.device)
    cells = [ablated(v, layer) for layer, v in enumerate(vectors)]

    def ours(first: int = 0) -> Tensor:
        return scene.read(cells[first:], exact=True)

    def naive(first: int = 0) -> Tensor:
        return torch.stack([scene.plain([(n, plainly_ablated(vectors[n]))]) for n in range(first, depth)])

    batch = scene.model.encode(scene.prompts)
    whole = torch.stack([scene.model.run(batch, edits=cell).logits for cell in cells])
    assert torch.equal(ours(), whole), "suffix recomputation is not bit-equal to whole forwards"
    peers = {name: make(scene, vectors) for name, make in {"nnsight": nnsight, "TransformerBridge": bridge}.items()}
    for name, peer in {"best naive": naive, **peers}.items():
        if peer is not None:
            assert_close(whole, peer(), name)
    also = {name: peer for name, peer in peers.items() if peer is not None}
    ratio = paired(ours, naive, also=also)
    theory = f"theory {2 * depth / (depth + 1):.2f}; bit-equal to whole forwards"
    gpu = SETTING.device == "cuda"
    yield Line(
        "B3",
        f"suffix, all layers; {what}",
        ratio,
        1.6,
        1.85 if gpu else 1.7,
        peer="best naive",
        note=f"{NAIVE}; {theory}",
    )
    for name, gate, goal in (("nnsight", 1.8, 1.9), ("TransformerBridge", 2.0, 2.5)):
        yield Line(
            "B3",
            f"suffix, all layers; {what}",
            ratio.also.get(name),
            gate,
            goal,
            peer=name,
            note=_absent(name, ratio.also),
        )
    half = depth // 2
    late = paired(lambda: ours(half), lambda: naive(half))
    yield Line("B4", f"suffix, late half; {what}", late, 2.1, 3.1 if gpu else 2.3, peer="best naive", note=NAIVE)


def _short(scene: Scene) -> Iterator[Line]:
    """Few tokens: a pass costs its weights, so cells of all layers climb in one."""
    depth = scene.model.n_layers
    vectors = directions(depth, scene.model.d_model).to(SETTING.device)
    cells = [ablated(v, layer) for layer, v in enumerate(vectors)]
    one_by_one = [Scene(scene.subject, scene.model, [prompt]) for prompt in scene.prompts]

    def ours() -> Tensor:
        return torch.cat([each.read(cells) for each in one_by_one], dim=1)

    def naive() -> Tensor:
        return torch.stack(
            [torch.cat([each.plain([(n, plainly_ablated(v))]) for each in one_by_one]) for n, v in enumerate(vectors)]
        )

    ways = {one.way for one in one_by_one[0].passes().plan(dict(enumerate(cells)))}
    assert ways == {"staircase"}, f"the planner chose {ways} for short prompts"
    assert_close(ours(), naive(), "staircase")
    what = f"staircase, prompts one by one; {scene.subject.words}, {len(scene.prompts)} prompts, {scene.tokens} tokens"
    yield Line("B3", what, paired(ours, naive), 3.0, 5.0, peer="best naive", note=NAIVE)


def nnsight(scene: Scene, vectors: Tensor) -> Callable[[], Tensor] | None:
    """One trace a layer, as its documentation edits a layer's output."""
    if find_spec("nnsight") is None:
        return None
    import nnsight as library

    model = library.NNsight(scene.subject.module)
    ids, last = scene.ids()
    row = torch.arange(len(ids), device=ids.device)
    mask = (torch.arange(ids.shape[1], device=ids.device) <= last[:, None]).long()

    def run() -> Tensor:
        found = []
        for n, v in enumerate(vectors):
            with torch.inference_mode(), model.trace(ids, attention_mask=mask):
                layer = model.model.layers[n]
                h = layer.output
                u = v.to(h)
                layer.output = h - (h @ u)[..., None] * u
                logits = library.save(model.lm_head.output[row, last])
            found.append(logits)
        return torch.stack(found)

    return run


def bridge(scene: Scene, vectors: Tensor) -> Callable[[], Tensor] | None:
    """TransformerLens: run_with_hooks, a forward a layer."""
    if find_spec("transformer_lens") is None:
        return None
    from peers import bridge_of

    made = bridge_of(scene.subject)
    ids, last = scene.ids()
    row = torch.arange(len(ids), device=ids.device)
    mask = (torch.arange(ids.shape[1], device=ids.device) <= last[:, None]).long()

    def hook_of(v: Tensor) -> Callable[..., Tensor]:
        def hook(h: Tensor, hook: object) -> Tensor:
            u = v.to(h)
            return h - (h @ u)[..., None] * u

        return hook

    def run() -> Tensor:
        with torch.inference_mode():
            return torch.stack(
                [
                    made.run_with_hooks(
                        ids, attention_mask=mask, fwd_hooks=[(f"blocks.{n}.hook_resid_post", hook_of(v))]
                    )[row, last]
                    for n, v in enumerate(vectors)
                ]
            )

    return run


def _absent(name: str, measured: object) -> str:
    return "" if name in measured else "not installed"  # type: ignore[operator]


if __name__ == "__main__":
    main("sweep", lines)
