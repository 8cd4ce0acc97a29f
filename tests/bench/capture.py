"""B1: a capture into a store, against the bare forward of the same units that keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from agreement import assert_close, last_tokens, one_by_one
from measure import SETTING, Line, main, paired
from models import Subject, long_prompts, subjects
from scratch import Scratch, scratch
from torch.nn.utils.rnn import pad_sequence

import workbench as wb
from workbench.units import length_sorted

CHECKED = 64  # prompts that are compared, one by one, with plain hooks


def lines(quick: bool) -> Iterator[Line]:
    on_gpu = SETTING.device == "cuda"
    for subject in subjects():
        prompts = long_prompts(48 if quick and not on_gpu and not SETTING.tiny else subject.n_prompts)
        with scratch() as folder:
            ratio = _measured(subject, prompts, folder)
            gate, goal = (0.95, 0.95) if on_gpu else (0.85, 0.90)
            yield Line("B1", f"last token into a store; {_size(subject, prompts)}", ratio, gate, goal, peer=BARE)
            if not quick:
                ratio = _measured(subject, prompts, folder, pool="mean", at="prompt")
                yield Line("B1", f"mean of all tokens; {_size(subject, prompts)}", ratio, peer=BARE)
        if not quick or SETTING.tiny:
            some = prompts[: max(4, len(prompts) // 8)]
            with scratch(in_memory=True) as folder:
                ratio = _measured(subject, some, folder, at="all")
            gate = 0.90 if on_gpu else None
            yield Line("B1", f"all tokens, to memory; {_size(subject, some)}", ratio, gate, gate, peer=BARE)


BARE = "bare forward, same units"


def _size(subject: Subject, prompts: Sequence[wb.Prompt]) -> str:
    return f"{subject.words}, {len(prompts)} prompts, {sum(len(prompt.text or '') for prompt in prompts)} tokens"


def _measured(subject: Subject, prompts: Sequence[wb.Prompt], folder: Scratch, **how: str):
    model = subject.traced()

    def ours() -> wb.ActivationStore:
        to = folder.new()
        return wb.capture(model, prompts, to=to, max_tokens=subject.max_tokens, progress=False, **how)

    store = ours()
    if not how:
        some = prompts[:CHECKED]
        truth = one_by_one(subject, [str(prompt.text) for prompt in some])
        assert_close(last_tokens(store, some), truth, "capture against plain hooks")
    return paired(ours, bare_forward(subject, prompts), between=folder.clear)


def bare_forward(subject: Subject, prompts: Sequence[wb.Prompt]) -> Callable[[], None]:
    """The base model over units of similar length, ids made and moved before: no head, mask or cache, nothing kept."""
    ids = [torch.tensor(subject.tokenizer(str(prompt.text)).input_ids) for prompt in prompts]
    units = length_sorted([len(one) for one in ids], subject.max_tokens)
    batches = [pad_sequence([ids[i] for i in unit], batch_first=True).to(SETTING.device) for unit in units]
    base = subject.module.model

    def run() -> None:
        with torch.inference_mode():
            for batch in batches:
                base(batch, use_cache=False)

    return run


if __name__ == "__main__":
    main("capture", lines)
