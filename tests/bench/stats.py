"""B11: streamed statistics: how wrong their covariances are, what memory they take, and what they cost over a capture.

- accuracy: 16,384 rows of width 512 with a slowly decaying spectrum and two dimensions at 400 and -150, two hundred
  times their spread, as units of 2,048; the worst relative error of a variance against float64 on the same rows. Beside
  it the one-pass formula in float32, which is what a plain sum of squares gives.
- memory: the peak of 32 times as many rows minus the peak of these, as a share of what storing the difference would
  take. On a CPU the peak of a process of its own; on CUDA the allocator's.
- cost: `wb.moments` against a capture of last tokens of the same prompts in the same units.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from measure import SETTING, Line, main, paired  # first: it puts the checkout on the path

# isort: split
import resource

import numpy as np
import torch

from hooks.accumulate import Accumulator
from hooks.model import Where
from hooks.positions import Tokens
from hooks.site import Site

ROWS, WIDTH, UNIT, POSITIONS = 16_384, 512, 2048, 128
WORST = 1e-4  # of a variance, relative; the formula without a pilot is off by some sixty times as much
SITE = Site(0)


def lines(quick: bool) -> Iterator[Line]:
    yield from accuracy()
    yield memory()
    yield from cost(quick)


# Accuracy


def accuracy() -> Iterator[Line]:
    size = f"{ROWS:,} x {WIDTH}, two dimensions at 400 and -150"
    for dtype in (torch.float32, torch.bfloat16):
        units = [unit.to(dtype) for unit in rows_of(ROWS)]
        values = torch.cat(units).double().cpu().numpy()
        exact = values.var(axis=0, ddof=1)
        raw = torch.cat(units).float()
        naive = ((raw * raw).sum(dim=0) / ROWS - raw.mean(dim=0) ** 2).double().cpu().numpy()
        mean, covariance = streamed(units)
        assert np.abs(mean - values.mean(axis=0)).max() < 1e-5 * np.abs(values).max(), "means"
        off = np.abs(covariance - np.cov(values.T)) / np.sqrt(np.outer(exact, exact))
        assert off.max() < WORST, "covariances"
        yield Line(
            "B11",
            f"worst variance, {str(dtype).removeprefix('torch.')}; {size}",
            value=float(np.abs(np.diag(covariance) / exact - 1).max()),
            gate=WORST,
            direction="<=",
            unit="relative error",
            note=f"sum of squares in float32, no pilot: {np.abs(naive / exact - 1).max():.2g}",
        )


def rows_of(rows: int) -> Iterator[torch.Tensor]:
    """Units [UNIT, WIDTH] in float32 on the device, each made when it is asked for."""
    scale = torch.exp(-torch.arange(WIDTH) / 40.0) + 0.05
    maker = torch.Generator().manual_seed(0)
    mean = 0.3 * torch.randn(WIDTH, generator=maker)
    scale[[7, 300]], mean[[7, 300]] = torch.tensor([2.0, 0.75]), torch.tensor([400.0, -150.0])
    for _ in range(0, rows, UNIT):
        yield (torch.randn(UNIT, WIDTH, generator=maker) * scale + mean).to(SETTING.device)


def streamed(units: Iterable[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance by the accumulator: units of prompts of POSITIONS tokens, all of them counted."""
    prompts = UNIT // POSITIONS
    position = torch.arange(1, POSITIONS + 1, device=SETTING.device).expand(prompts, -1)
    length = torch.full((prompts,), POSITIONS + 1, device=SETTING.device)
    nothing = torch.zeros_like(position, dtype=torch.bool)
    summed = Accumulator([SITE], WIDTH, 1, scope="all", cells=[0], splits=50, device=SETTING.device)
    count = 0
    for unit in units:
        tokens = Tokens(position, position, length, length, length, nothing, torch.zeros_like(length))
        keep = summed.keeps(np.zeros(prompts, np.int64), np.zeros((prompts, 50), bool))[SITE]
        with torch.inference_mode():
            keep(unit.reshape(prompts, POSITIONS, WIDTH), Where(SITE, tokens))
        count += int(summed.fold([""] * prompts).sum())
    state = summed.state()
    off = state["sums"][0, 0] / count
    return state["pilot"][0, 0] + off, (state["scatter"][0, 0] - count * np.outer(off, off)) / (count - 1)


# Memory


def memory() -> Line:
    few, many = (2 * UNIT, 4 * UNIT) if SETTING.tiny else (ROWS, 32 * ROWS)
    grown = peak_of(many) - peak_of(few)
    return Line(
        "B11",
        f"peak memory, {few:,} to {many:,} rows of {WIDTH}, beside the rows",
        value=max(0.0, grown / (4 * WIDTH * (many - few))),
        gate=0.05,
        direction="<=",
        unit="of their bytes",
        note=f"the peak grew by {grown / 1e6:.1f} MB; the rows between take {4e-6 * WIDTH * (many - few):.0f} MB",
    )


def peak_of(rows: int) -> int:
    """Bytes at most while so many rows are streamed."""
    if SETTING.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        streamed(rows_of(rows))
        return torch.cuda.max_memory_allocated()
    command = [sys.executable, str(Path(__file__)), "peak", str(rows)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


# Cost


COSTS = (
    ("means, last token", 1.01, {"covariance": None}),
    ("covariance, last token", 1.08, {}),
    ("means, all tokens", 1.01, {"covariance": None, "at": "all"}),
    ("covariance, all tokens", 1.08, {"at": "all"}),
    ("sketch of rank 64, last token", None, {"sketch": 64}),
)


def cost(quick: bool) -> Iterator[Line]:
    from models import subjects
    from scratch import scratch

    for subject in subjects():
        with scratch(in_memory=True) as folder:
            yield from _cost_on(subject, folder, quick)


def _cost_on(subject: Any, folder: Any, quick: bool) -> Iterator[Line]:
    from models import long_prompts

    import workbench as wb

    on_gpu, model = SETTING.device == "cuda", subject.traced()
    small = quick and not on_gpu and not SETTING.tiny
    prompts = long_prompts(16 if small else subject.n_prompts)
    how = {"max_tokens": subject.max_tokens, "progress": False}

    def captured() -> wb.ActivationStore:
        return wb.capture(model, prompts, to=folder.new(), **how)

    store, stats = captured(), wb.moments(model, prompts, **how)
    for site in stats.sites:
        values = store.values(site, np.float64)
        assert np.abs(stats.mean(site) - values.mean(axis=0)).max() < 1e-5 * np.abs(values).max(), "means"
        off = stats.moments(site).covariance - np.cov(values.T)
        assert np.abs(off).max() < 1e-4 * values.var(axis=0).max(), "covariances"
    for words, goal, options in COSTS if not small else (each for each in COSTS if each[0].startswith("covariance")):
        what = f"{words}; {subject.words}, {len(prompts)} prompts"
        ratio = paired(partial(wb.moments, model, prompts, **options, **how), captured, between=folder.clear)
        gate = goal if on_gpu else None
        yield Line("B11", what, ratio, gate, goal, direction="<=", peer="capture of last tokens")


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        torch.set_num_threads(1)
        streamed(rows_of(int(sys.argv[2])))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    else:
        main("stats", lines)
