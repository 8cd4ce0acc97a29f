"""B10, as a share of a run: what the writer thread takes from a capture of pooled rows.

Gated: the processor's seconds of `ActivationStore.commit` whole (values looked at, hashed twice, laid out, written and
logged) against those of the whole capture. What a commit waits for the disk (fsync of file, folder and log) takes
nothing from forwards that run meanwhile; it is reported beside, as the time in which the thread was in a commit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from measure import Line
from models import long_prompts, subject
from scratch import scratch

import workbench as wb


def shares(quick: bool) -> Iterator[Line]:
    chosen = subject("qwen-like")
    model, prompts = chosen.traced(), long_prompts(min(chosen.n_prompts, 24 if quick else 64))
    for at, pool in (("prompt", "mean"), ("last", "none")):
        with scratch() as folder:
            found = [_share(model, prompts, folder.new(), chosen.max_tokens, at, pool) for _ in range(3)]
        what = f"commits of a capture, pool={pool!r} at {at!r}; {chosen.words}, {len(prompts)} prompts"
        work, inside = (100 * sorted(column)[1] for column in zip(*found, strict=True))
        yield Line("B10", what, value=work, unit="% of the processor's time", gate=1.0, direction="<=")
        yield Line("B10", what, value=inside, unit="% of the time a commit was under way", direction="<=")


def _share(model: Any, prompts: list[wb.Prompt], to: Path, max_tokens: int, at: str, pool: str) -> tuple[float, float]:
    work, inside, commit = [], [], wb.ActivationStore.commit

    def timed(self: wb.ActivationStore, *arguments: Any, **named: Any) -> bool:
        began, worked = time.perf_counter(), time.thread_time()
        try:
            return commit(self, *arguments, **named)
        finally:
            work.append(time.thread_time() - worked)
            inside.append(time.perf_counter() - began)

    began, worked = time.perf_counter(), time.process_time()
    with mock.patch.object(wb.ActivationStore, "commit", timed):
        store = wb.capture(model, prompts, to=to, at=at, pool=pool, max_tokens=max_tokens, progress=False)
    run = time.perf_counter() - began, time.process_time() - worked
    assert not store.missing() and len(work) == len(store.plan)
    return sum(work) / run[1], sum(inside) / run[0]
