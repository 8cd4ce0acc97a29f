"""Units of work: prompts of similar length in a batch, within a budget of tokens, so that little of it is padding; and
as many batches as a commit is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hooks.encoded import Encoded
from hooks.prompt import Prompt

SIMILAR = 0.8  # the shortest prompt of a unit has at least this share of the longest one's tokens
# Padded tokens of a unit. A CPU is busy with a few hundred, so the budget that pads least wins; a GPU needs some
# thousand to be the limit (a forward of 28 layers costs its host some 8 ms, whatever its size).
CPU_BUDGET, GPU_BUDGET = 2048, 8192
# Where little is kept of each prompt, a unit is several batches: about a second of forwards (floating-point operations
# of two cores, of one large GPU), because laying out, sealing and logging a shard costs some 4 ms whatever it holds.
CPU_WORK, GPU_WORK = 5e11, 2e14
MOST_BATCHES = 16
MOST_BYTES = 16 << 20  # of values: beyond, writing them is what costs


def budget_on(device: torch.device) -> int:
    """The budget of units on this device, where none is asked for."""
    return CPU_BUDGET if device.type == "cpu" else GPU_BUDGET


def tokens_of_units(device: torch.device, weights: int) -> int:
    """How many tokens the batches of one unit may have together, with a model of so many weights."""
    work = CPU_WORK if device.type == "cpu" else GPU_WORK
    return min(int(work / (2 * max(weights, 1))), MOST_BATCHES * budget_on(device))


def joined(
    batches: Sequence[list[int]], tokens: Sequence[int], nbytes: Sequence[int], max_tokens: int
) -> list[list[list[int]]]:
    """Neighbouring batches as units: as many as have at most `max_tokens` and MOST_BYTES together, at least one.

    `tokens` and `nbytes` are those of each prompt, over all variants. A pure function of its input.
    """
    units: list[list[list[int]]] = []
    room_tokens = room_bytes = 0
    for batch in batches:
        size, values = sum(tokens[i] for i in batch), sum(nbytes[i] for i in batch)
        if units and size <= room_tokens and values <= room_bytes:
            units[-1].append(batch)
        else:
            units.append([batch])
            room_tokens, room_bytes = max_tokens, MOST_BYTES
        room_tokens, room_bytes = room_tokens - size, room_bytes - values
    return units


def kinds_of(
    model: Any, prompts: Sequence[Prompt] | Sequence[Encoded], lengths: Sequence[int]
) -> list[tuple[int, int]]:
    """Which prompts may share a unit: text and pictures apart, where a model needs it each number of pictures, and
    where padding would change its numbers each length."""
    counts = [one.n_images if isinstance(one, Encoded) else len(one.images) for one in prompts]
    pictures = [max(min(n, 1), model.encoder.batch_kind(one)) for n, one in zip(counts, prompts, strict=True)]
    pads = all(model.pads.values())
    return [(kind, 0 if pads else length) for kind, length in zip(pictures, lengths, strict=True)]


def length_sorted(lengths: Sequence[int], max_tokens: int, separate: Sequence[Any] | None = None) -> list[list[int]]:
    """Indices of the prompts, unit by unit. A unit's padded size is at most `max_tokens` (a single longer prompt is a
    unit of its own); `separate` keeps kinds (see `kinds_of`) in units of their own. A pure function of its input."""
    kinds = [0] * len(lengths) if separate is None else list(separate)
    order = sorted(range(len(lengths)), key=lambda i: (kinds[i], lengths[i], i))
    units: list[list[int]] = []
    for i in order:
        unit = units[-1] if units else []
        fits = bool(unit) and (len(unit) + 1) * lengths[i] <= max_tokens
        if fits and kinds[unit[0]] == kinds[i] and lengths[unit[0]] >= SIMILAR * lengths[i]:
            unit.append(i)
        else:
            units.append([i])
    return units
