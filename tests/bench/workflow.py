"""B13: answers and the residuals of their tokens behind every layer. The peer is the workflow of published scripts:
generate one answer, trace question and answer again with nnsight, save a file a sample. Ours captures while it
generates, many prompts at a time, into one store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec

import numpy as np
import torch
from agreement import assert_close
from measure import SETTING, Line, main, paired
from models import Subject, subject, subjects, texts
from peers import nnsight_model
from scratch import Scratch, scratch
from torch import Tensor

import workbench as wb

PEER = "nnsight: generate, trace again"


def lines(quick: bool) -> Iterator[Line]:
    on_gpu = SETTING.device == "cuda"
    n, new_tokens = (4, 4) if SETTING.tiny else (256, 64) if on_gpu and not quick else (64, 64) if on_gpu else (32, 32)
    goal = 30.0 if on_gpu else 8.0
    for one in [subject("qwen-like", layers=4)] if quick and not on_gpu and not SETTING.tiny else subjects():
        what = f"{n} answers of {new_tokens} tokens, residuals of all of them; {one.words}"
        if find_spec("nnsight") is None:
            yield Line("B13", what, peer=PEER, note="not installed: pip install nnsight")
            continue
        prompts = questions(n)
        with scratch() as folder:
            _assert_same(one, prompts[:8], new_tokens, folder)
            ours, peer = _ours(one, prompts, new_tokens, folder), _peer(one, prompts, new_tokens, folder)
            ratio = paired(ours, peer, between=folder.clear)
        yield Line("B13", what, ratio, goal, goal, peer=PEER, note="questions of 40 to 60 tokens, template included")


def questions(n: int) -> list[wb.Prompt]:
    """As long as a question of one sentence in a chat template."""
    return texts(np.random.default_rng(3).integers(40, 61, n).tolist())


def _ours(of: Subject, prompts: Sequence[wb.Prompt], new_tokens: int, folder: Scratch) -> Callable[[], object]:
    model = of.traced()

    def run() -> wb.ActivationStore:
        to = folder.new()
        return wb.capture(
            model, prompts, at="response", responses="generate", max_new_tokens=new_tokens, to=to, progress=False
        )

    return run


def _peer(of: Subject, prompts: Sequence[wb.Prompt], new_tokens: int, folder: Scratch) -> Callable[[], object]:
    import nnsight

    model = nnsight_model(of)

    def sample(prompt: wb.Prompt) -> dict[str, Tensor]:
        inputs = of.tokenizer(str(prompt.text), return_tensors="pt").to(SETTING.device)
        asked = inputs["input_ids"].shape[1]
        ids = of.module.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
        with torch.inference_mode(), model.trace(ids):
            states = nnsight.save([])
            for layer in model.model.layers:
                states.append(layer.output[0, asked:])
        return {"token_ids": ids[0, asked:].cpu(), "residuals": torch.stack(states).cpu()}

    def run() -> list[dict[str, Tensor]]:
        to = folder.new()
        to.mkdir()
        samples = [sample(prompt) for prompt in prompts]
        for prompt, one in zip(prompts, samples, strict=True):
            torch.save(one, to / f"{prompt.id}.pt")
        return samples

    return run


def _assert_same(of: Subject, prompts: Sequence[wb.Prompt], new_tokens: int, folder: Scratch) -> None:
    """The same residuals as long as the same answer is written: in bfloat16 near ties fall otherwise in a batch, and
    from there on the two answers are two texts. Most of the tokens must be common."""
    store = _ours(of, prompts, new_tokens, folder)()
    samples = _peer(of, prompts, new_tokens, folder)()
    values = torch.stack([torch.from_numpy(store.values(site)) for site in store.sites])
    rows: dict[str, list[int]] = {}
    for row, identifier in enumerate(store.prompt_ids):
        rows.setdefault(identifier, []).append(row)
    common = 0
    for prompt, theirs in zip(prompts, samples, strict=True):
        mine = rows[prompt.id]
        pairs = zip(store.token_ids[mine].tolist(), theirs["token_ids"].tolist(), strict=False)
        equal = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(mine), len(theirs["token_ids"])))
        assert_close(values[:, mine[:equal]], theirs["residuals"][:, :equal], f"answer to {prompt.id}")
        common += equal
    assert common > len(prompts) * new_tokens / 2, f"only {common} tokens of {len(prompts)} answers are the same"


if __name__ == "__main__":
    main("workflow", lines)
