"""What a benchmark runs on, and its clock: CPU seconds of one core, or a GPU's own events."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # a bare checkout needs no install; every script comes here before it imports workbench
for _name, _value in {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}.items():
    os.environ.setdefault(_name, _value)

Clock = Callable[[Callable[[], object], int], float]  # (call, times) -> seconds of one call


@dataclass
class Setting:
    """Set once, by `measure.main`, before any line is measured."""

    device: str = "cpu"  # or "cuda"
    quick: bool = False  # sizes for two cores and a minute
    tiny: bool = False  # sizes that only show that the script runs; nothing is judged


SETTING = Setting()


def cpu_seconds(call: Callable[[], object], times: int) -> float:
    """CPU seconds of the whole process, which sits on one core: what a writer thread spends counts too."""
    began = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - began) / times


def cuda_seconds(call: Callable[[], object], times: int) -> float:
    """Seconds between two CUDA events, all streams synchronised before the first and before the second: what the host
    makes the device wait for, and copies on side streams, are inside."""
    import torch

    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    began.record()
    for _ in range(times):
        call()
    torch.cuda.synchronize()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1000 / times


def wall_seconds(call: Callable[[], object], times: int) -> float:
    """Seconds on the wall: only for what waits by its nature (a disk), and said in the line's note."""
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


def clock() -> Clock:
    return cuda_seconds if SETTING.device == "cuda" else cpu_seconds


def calls_of(call: Callable[[], object], seconds: Clock, least: float) -> int:
    """How many calls make one measurement of at least `least` seconds. Calls it once or twice, which also warms it up:
    the second call counts, unless the first was long already."""
    taken = seconds(call, 1)
    if taken < max(0.5, least):
        taken = seconds(call, 1)
    return max(1, min(1000, math.ceil(least / max(taken, 1e-6))))


def pin() -> int | None:
    """Puts every thread of this process, and those to come, on the idlest core, and torch on one thread. Returns the
    core, None where the system cannot pin."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = _idlest(os.sched_getaffinity(0))
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
    return core


def _idlest(cores: set[int]) -> int:
    before = _idle_ticks()
    time.sleep(0.2)
    after = _idle_ticks()
    return max(sorted(cores), key=lambda core: after.get(core, 0) - before.get(core, 0))


def _idle_ticks() -> dict[int, int]:
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    return {int(words[0][3:]): int(words[4]) for words in lines if words[0][:3] == "cpu" and words[0] != "cpu"}


def device_name() -> str:
    """The processor in words: the GPU's name, or one core of the CPU's."""
    if SETTING.device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"one core of {names[0]}" if names else "one CPU core"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
