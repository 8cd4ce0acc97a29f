"""B2: a capture of last tokens into a store, against how others do it: in the order given, and with our units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import h5py
import torch
from agreement import assert_close, last_tokens
from measure import SETTING, Line, Ratio, main, paired
from models import Subject, long_prompts, subject, subjects
from peers import PEERS, Peer, plain_forward
from scratch import Scratch, scratch
from torch import Tensor

import workbench as wb
from workbench.units import length_sorted

GIVEN_ORDER = 16  # prompts a batch, as scripts have it
# peer: gate of given order, of our units; goal on a GPU of given order
GATES = {"nnsight": (2.0, 1.1, 3.0), "output_hidden_states": (2.0, 1.1, 3.0), "TransformerBridge": (3.0, 1.4, 5.0)}
ABSENT = {"nnsight": "pip install nnsight", "TransformerBridge": "pip install transformer-lens"}
NOTE = "each peer writes [layer, prompt, d_model] to one HDF5 file; output_hidden_states has one layer less"


def lines(quick: bool) -> Iterator[Line]:
    small = quick and SETTING.device == "cpu" and not SETTING.tiny
    for one in [subject("qwen-like", layers=2)] if small else subjects():
        with scratch() as folder:
            n = 128 if small else one.n_prompts  # few prompts pad less than many, so depth gives way
            yield from _of(one, long_prompts(n), folder)


def _of(subject: Subject, prompts: Sequence[wb.Prompt], folder: Scratch) -> Iterator[Line]:
    texts = [str(prompt.text) for prompt in prompts]
    size = f"{subject.words}, {len(texts)} prompts, {sum(map(len, texts))} tokens"
    model = subject.traced()

    def ours() -> wb.ActivationStore:
        return wb.capture(model, prompts, to=folder.new(), max_tokens=subject.max_tokens, progress=False)

    truth = last_tokens(ours(), prompts)
    peers = {name: make(subject) for name, make in PEERS.items()}
    ready = {name: peer for name, peer in peers.items() if peer is not None}
    orders = {
        f"given order, {GIVEN_ORDER} a batch": in_order(len(texts), GIVEN_ORDER),
        "our units": length_sorted([len(text) for text in texts], subject.max_tokens),
    }
    if SETTING.device == "cuda":
        orders["one prompt a batch"] = in_order(len(texts), 1)
    for kind, (words, batches) in enumerate(orders.items()):
        runs: dict[str, Callable[[], object]] = {}
        for name, peer in ready.items():
            assert_close(truth, captured(peer, texts, batches), f"{name}, {words}")
            runs[name] = partial(stored, peer, texts, batches, folder)
        if kind == 0 and not SETTING.quick:
            runs["plain forward, keeping nothing"] = partial(_passed, plain_forward(subject), texts, batches)
        first, *others = runs
        ratio = paired(ours, runs[first], also={name: runs[name] for name in others}, between=folder.clear)
        ratios: dict[str, Ratio] = {first: ratio, **ratio.also}
        for name, one in ratios.items():
            gates = GATES.get(name)
            gate = (
                None if gates is None else (gates[0], gates[1], 8.0 if name == "output_hidden_states" else None)[kind]
            )
            goal = gates[2] if gates is not None and kind == 0 else gate
            yield Line("B2", f"{words}; {size}", one, gate, goal, peer=name, note=NOTE)
        for name in peers.keys() - ready.keys():
            yield Line("B2", f"{words}; {size}", peer=name, note=f"not installed: {ABSENT[name]}")


def in_order(n: int, size: int) -> list[list[int]]:
    return [list(range(at, min(at + size, n))) for at in range(0, n, size)]


def captured(peer: Peer, texts: Sequence[str], batches: Sequence[Sequence[int]]) -> Tensor:
    """[layer, text, d_model], in the order of the texts."""
    values = torch.cat([peer([texts[i] for i in batch]) for batch in batches], dim=1)
    order = torch.tensor([i for batch in batches for i in batch])
    out = torch.empty_like(values)
    out[:, order] = values
    return out


def stored(peer: Peer, texts: Sequence[str], batches: Sequence[Sequence[int]], folder: Scratch) -> None:
    with h5py.File(folder.new(), "w") as file:
        file["residuals"] = captured(peer, texts, batches).view(torch.uint16).numpy()


def _passed(peer: Peer, texts: Sequence[str], batches: Sequence[Sequence[int]]) -> None:
    for batch in batches:
        peer([texts[i] for i in batch])


if __name__ == "__main__":
    main("capture_peers", lines)
