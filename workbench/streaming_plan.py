"""Which group each row of streamed moments belongs to, which scatters are added up, and whether the sums fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int

from hooks.accumulate import BINS
from hooks.positions import Scope
from hooks.prompt import Prompt
from hooks.site import Site
from stores.canonical import plain
from workbench.subspace.streamed import StreamedMoments
from workbench.subspace.sums import Sums

MEMINFO = Path("/proc/meminfo")
COVARIANCES = ("within", "groups", None)


@dataclass(frozen=True)
class Layout:
    """The sites of one stream and what is a row there."""

    sites: tuple[Site, ...]
    d_model: int
    scope: Scope
    mean: bool

    @property
    def tower(self) -> str:
        return self.sites[0].tower


@dataclass(frozen=True, eq=False)
class Grouping:
    """Groups are (variant, class), variant by variant. `passing` are the variants that pass the model for them,
    `variants` what they are called; `cells` gives each group its scatter, () for none."""

    names: tuple[str, ...]
    classes: tuple[dict[str, Any], ...]
    class_of: Int[np.ndarray, " prompt"]
    passing: tuple[str, ...]
    minus: str | None
    half: Bool[np.ndarray, "prompt split"]
    cells: tuple[int, ...]

    @property
    def variants(self) -> tuple[str, ...]:
        return self.passing if self.minus is None else tuple(f"{name}-{self.minus}" for name in self.passing)

    @property
    def groups(self) -> int:
        return len(self.passing) * len(self.classes)

    def result(
        self,
        layouts: Sequence[Layout],
        states: Sequence[Mapping[str, np.ndarray]],
        rows_of: Sequence[np.ndarray],
        ids: Sequence[str],
        info: Mapping[str, Any],
    ) -> StreamedMoments:
        """The accumulators' states as moments."""
        is_class = (self.class_of == np.arange(len(self.classes))[:, None]).astype(np.int64)  # [class, prompt]
        parts = []
        for layout, state, rows in zip(layouts, states, rows_of, strict=True):
            halves = [is_class @ (rows[:, [v]] * self.half) for v in range(len(self.passing))]
            parts.append(
                Sums(
                    sites=layout.sites,
                    counts=(is_class @ rows).T.ravel(),
                    half_counts=np.concatenate(halves),
                    rows_of=rows.copy(),
                    cells=self.cells,
                    **state,
                )
            )
        groups = tuple((v, c) for v in range(len(self.passing)) for c in range(len(self.classes)))
        return StreamedMoments(
            variants=self.variants,
            classes=self.classes,
            prompts=tuple(ids),
            class_of=self.class_of,
            half=self.half,
            groups=groups,
            parts=tuple(parts),
            info=info,
            chosen=tuple(range(len(groups))),
        )


def grouped(
    prompts: Sequence[Prompt],
    by: str | Sequence[str] | Callable[[Prompt], Any] | None,
    variants: Sequence[str],
    minus: str | None,
    covariance: str | None,
    splits: int,
    seed: int,
) -> Grouping:
    """The grouping that these arguments of `wb.moments` ask for. Raises ValueError for what cannot be."""
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance={covariance!r} is unknown: expected 'within', 'groups' or None.")
    if splits < 0:
        raise ValueError(f"splits={splits}: expected 0 (no reliability) or more.")
    passing = tuple(name for name in variants if name != minus)
    if minus is not None and (minus not in variants or not passing):
        raise ValueError(
            f"minus={minus!r} with variants {', '.join(variants)}: expected at least one other variant, as in "
            "variants=('base', 'tuned'), minus='base'."
        )
    names, values = _class_values(prompts, by)
    classes = list(dict.fromkeys(values))
    number = {value: i for i, value in enumerate(classes)}
    class_of = np.array([number[value] for value in values], np.int64)
    cells = {
        "within": [v for v in range(len(passing)) for _ in classes],
        "groups": range(len(passing) * len(classes)),
        None: (),
    }
    return Grouping(
        names=names,
        classes=tuple(dict(zip(names, value, strict=True)) for value in classes),
        class_of=class_of,
        passing=passing,
        minus=minus,
        half=balanced_halves(class_of, splits, seed),
        cells=tuple(cells[covariance]),
    )


def _class_values(
    prompts: Sequence[Prompt], by: str | Sequence[str] | Callable[[Prompt], Any] | None
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The names of what tells classes apart, and each prompt's values of them."""
    if by is None:
        return (), [()] * len(prompts)
    if callable(by):
        names, found = ("group",), [(by(prompt),) for prompt in prompts]
    else:
        names = (by,) if isinstance(by, str) else tuple(by)
        tags = {name for prompt in prompts for name in prompt.tags}
        if unknown := [name for name in names if name != "label" and name not in tags]:
            raise ValueError(f"by={unknown[0]!r} is no tag of these prompts: expected 'label', or of {sorted(tags)}.")
        found = [tuple(p.label if name == "label" else p.tags.get(name) for name in names) for p in prompts]
    for value in (value for values in found for value in values):
        if not isinstance(plain(value), str | int | float | bool | None):
            raise ValueError(f"a class is {value!r}: expected text, a number, a truth value or None.")
    return names, [tuple(plain(value) for value in values) for values in found]


def balanced_halves(class_of: Int[np.ndarray, " prompt"], splits: int, seed: int) -> Bool[np.ndarray, "prompt split"]:
    """Random halves of the prompts, True for the first: within each class, and over all, equal to within one."""
    rng, n = np.random.default_rng(seed), len(class_of)
    half = np.zeros((n, splits), bool)
    for split in range(splits):
        half[np.lexsort((rng.random(n), class_of)), split] = (np.arange(n) + split) % 2 == 0
    return half


def refuse_too_large(
    layouts: Sequence[Layout], grouping: Grouping, sketch: int | None, memory: float | int | None, device: torch.device
) -> None:
    """Raises ValueError, saying what would fit, when the sums would take more than `memory` bytes of the device."""
    if sketch is not None and sketch < 1:
        raise ValueError(f"sketch={sketch}: expected the rank of the sketch, at least 1, or None for the whole.")
    budget = free_memory(device) / 2 if memory is None else memory
    needed = bytes_of(layouts, grouping, sketch)
    if needed <= budget:
        return
    without = bytes_of(layouts, grouping, None, covariance=False)
    row = bytes_of(layouts, grouping, 1) - without if grouping.cells else 0
    rank = int((budget - without) // row) if row else 0
    cells = len(set(grouping.cells))
    ways = [f"sketch={1 << (rank.bit_length() - 1)}"] if rank >= 8 else []
    ways += ["covariance='within'"] if cells > len(grouping.passing) else []
    ways += ["covariance=None"] if grouping.cells and without <= budget else []
    raise ValueError(
        f"the sums need {needed / 1e9:.3g} GB ({sum(len(part.sites) for part in layouts)} sites, {grouping.groups} "
        f"groups, {cells} covariances a site, {grouping.half.shape[1]} splits), and {budget / 1e9:.3g} GB are allowed: "
        f"expected {', '.join([*ways, 'fewer sites, classes or splits'])}, or memory= in bytes."
    )


def bytes_of(layouts: Sequence[Layout], grouping: Grouping, sketch: int | None, *, covariance: bool = True) -> int:
    """What the accumulators take; of the forward itself, nothing is counted."""
    groups, splits, cells = grouping.groups, grouping.half.shape[1], len(set(grouping.cells)) if covariance else 0
    total = 0
    for part in layouts:
        of_group = part.d_model * (4 + 8 * (1 + splits)) + 8 + 8 * BINS
        of_cell = 8 * part.d_model * (part.d_model if sketch is None else 2 * sketch)
        product = 4 * part.d_model**2 if cells and sketch is None else 0
        total += len(part.sites) * (groups * of_group + cells * of_cell) + product
    return total


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device; on a CPU with those that the system would give back."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    lines = MEMINFO.read_text().splitlines() if MEMINFO.exists() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
