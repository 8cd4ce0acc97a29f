"""B10, as a share of a run: what committing pooled rows adds to the time of a capture.

Gated: wall time of a capture over that of the same capture whose commits do nothing, paired, on all cores of the
process: the writer is a thread beside the forwards. Reported beside: the processor's seconds of the commits (values
looked at, hashed twice, laid out, written and logged) against those of the whole capture. Units are those that capture
makes by itself: some batches each, as little is kept of each prompt.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from clocks import SETTING, wall_seconds
from measure import Line, main
from models import byte_tokenizer, long_prompts, made, small
from pairs import paired
from scratch import scratch

import workbench as wb


def shares(quick: bool) -> Iterator[Line]:
    for layers, width in ((2, 64),) if SETTING.tiny else ((8, 512), (12, 1024)):
        yield from _of_model(small(layers, width), quick)


def _of_model(config: Any, quick: bool) -> Iterator[Line]:
    model = wb.load_model(made(config, torch.bfloat16), byte_tokenizer(), device=SETTING.device, check=False)
    words = f"qwen-like {config.num_hidden_layers} x {config.hidden_size}, bfloat16"
    prompts = long_prompts(4 if SETTING.tiny else 64 if quick else 128)
    pairs = 15 if config.hidden_size < 1024 else 5  # a run of the larger model takes ten seconds
    for at, pool in (("prompt", "mean"), ("last", "none")):
        asked: dict[str, Any] = {"at": at, "pool": pool, "progress": False}  # in the units that capture makes by itself
        what = f"commits of a capture, pool={pool!r} at {at!r}; {words}, {len(prompts)} prompts"
        with scratch() as folder, _every_core() as cores:

            def whole(asked: dict[str, Any] = asked, new: Any = folder.new) -> None:
                store = wb.capture(model, prompts, to=new(), **asked)
                assert not store.missing()

            def forwards(whole: Any = whole, asked: dict[str, Any] = asked, new: Any = folder.new) -> None:
                with mock.patch.object(wb.ActivationStore, "commit", lambda *given, **named: True):
                    wb.capture(model, prompts, to=new(), **asked)

            ratio = paired(whole, forwards, pairs=pairs, seconds=wall_seconds)
            work = sorted(_processor_share(model, prompts, folder.new(), asked) for _ in range(3))[1]
        low, high = 100 * (1 / ratio.high - 1), 100 * (1 / ratio.low - 1)
        yield Line(
            "B10", f"{what}, {cores} cores, {low:.2f} to {high:.2f}", value=100 * (1 / ratio.median - 1),
            unit="% more time", gate=1.0, direction="<=",
        )  # fmt: skip
        yield Line("B10", what, value=100 * work, unit="% of the processor's time", direction="<=")


@contextmanager
def _every_core() -> Iterator[int]:
    """All cores of this machine and as many threads, not the one that a benchmark is pinned to: the harder case, as the
    writer's thread has no core to itself."""
    if SETTING.tiny or not hasattr(os, "sched_setaffinity"):
        yield 1
        return
    pinned, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        yield len(os.sched_getaffinity(0))
    finally:
        os.sched_setaffinity(0, pinned)
        torch.set_num_threads(threads)


def _processor_share(model: Any, prompts: list[wb.Prompt], to: Path, asked: dict[str, Any]) -> float:
    work, commit = [], wb.ActivationStore.commit

    def timed(self: wb.ActivationStore, *arguments: Any, **named: Any) -> bool:
        worked = time.thread_time()
        try:
            return commit(self, *arguments, **named)
        finally:
            work.append(time.thread_time() - worked)

    worked = time.process_time()
    with mock.patch.object(wb.ActivationStore, "commit", timed):
        store = wb.capture(model, prompts, to=to, **asked)
    assert not store.missing() and len(work) == len(store.plan)
    return sum(work) / (time.process_time() - worked)


if __name__ == "__main__":
    main("pooled", shares)
