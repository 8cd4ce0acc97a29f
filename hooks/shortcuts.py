"""Shortcuts: which parts of a forward a model lets us reuse, measured on a batch of its own and never assumed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hooks.asked import TOLERANCE, distance
from hooks.encode import Batch
from hooks.prefix_cache import next_token, prefix
from hooks.recording import CannotReplay, Recorder, Recording
from hooks.site import Site
from hooks.spread import WHY
from hooks.staircase import Staircase

_FEW = 2  # rows of a measurement


@dataclass(frozen=True)
class Shortcuts:
    """For each way to leave out work: None where it was seen to give the forward's own numbers, else why it is not
    taken. `replay`: blocks in front of the first edit, bit for bit; `copies`: several edited copies a pass;
    `staircase`: copies that join on the way; `prefix`: one cache for what differs only behind it."""

    replay: str | None
    copies: str | None
    staircase: str | None
    prefix: str | None


def shortcuts(model: Any, batch: Batch) -> Shortcuts:
    """What this model allows, measured on the first rows of the batch; with pictures and without are two answers, each
    measured once for all variants of a model."""
    if not getattr(model, "native", False):
        return _nothing(f"backend {model.identity.get('backend', type(model).__name__)!r} runs whole forwards")
    if isinstance(model.active, tuple):
        return _nothing("each row has its own adapter")
    if getattr(model, "spread", False):
        return _nothing(WHY)
    key = ("shortcuts", bool(batch.image_rows))
    if key not in model._found:
        model._found[key] = _measured(model, batch.rows(_shortest_and_longest(model, batch)))
    return model._found[key]


def _nothing(why: str) -> Shortcuts:
    return Shortcuts(why, why, why, why)


def _shortest_and_longest(model: Any, batch: Batch) -> list[int]:
    by_length = sorted(range(len(batch)), key=lambda row: len(batch.encoded[row]))
    return by_length[:1] + by_length[-1:] if len(batch) >= _FEW else by_length * _FEW


def _measured(model: Any, batch: Batch) -> Shortcuts:
    recorder = Recorder(model.towers["language"], len(batch))
    clean = model.run(batch, through=recorder.recording()).logits
    recording, depth = recorder.recorded(), model.n_layers
    starts = sorted({1, depth // 2, depth - 1, depth} - {0})
    replay = _first_reason(
        lambda: None if all(_same(model, batch, recording, start, clean) for start in starts) else _MOVED
    )
    if replay is not None:
        return Shortcuts(replay, replay, replay, _first_reason(lambda: _prefix(model, batch, clean)))
    near = TOLERANCE[model.dtype]

    def repeated(through: AbstractContextManager[Any], copies: int) -> str | None:
        rows = batch.rows(list(range(len(batch))) * copies)
        logits = model.run(rows, through=through).logits.unflatten(0, (copies, -1))
        off = max(distance(each, clean) for each in logits)
        return None if off <= near else f"{_MOVED} (by {off:.1e})"

    middle = max(1, depth // 2)
    stairs = [0, middle, depth]
    return Shortcuts(
        replay,
        _first_reason(lambda: repeated(recording.starting(middle, 3), 3)),
        _first_reason(
            lambda: repeated(Staircase(model.towers["language"], len(batch), stairs).climbing(), 1 + len(stairs))
        ),
        _first_reason(lambda: _prefix(model, batch, clean)),
    )


_MOVED = "a forward that was passed in part gave other logits than the whole one"


def _same(model: Any, batch: Batch, recording: Recording, start: int, clean: Tensor) -> bool:
    return torch.equal(model.run(batch, through=recording.starting(start)).logits, clean)


def _prefix(model: Any, batch: Batch, clean: Tensor) -> str | None:
    """Also refuses a model whose generation was found unsound on load: the cache is what it went wrong with."""
    if model.why_not_generate:
        return model.why_not_generate
    lengths = [len(one) for one in batch.encoded]
    if not model.pads["left"] and len(set(lengths)) > 1:
        return "padding on the left changes this model's numbers"
    copies = [0, 1, 0, 1]
    for columns in (1, 3):  # recurrent layers may take one token behind a cache, and go wrong with several
        shared = prefix(model, batch, max(lengths) - columns)
        logits = next_token(model, batch.rows(copies), {}, shared.rows(copies)).logits
        assert logits is not None
        off = max(distance(each, clean) for each in logits.unflatten(0, (2, -1)))
        if off > TOLERANCE[model.dtype]:
            return f"{columns} tokens behind a cache gave other logits (by {off:.1e})"
    return None


def _first_reason(measure: Callable[[], str | None]) -> str | None:
    try:
        return measure()
    except CannotReplay as error:
        return str(error)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what an architecture does not expect it meets in many ways
        return f"{type(error).__name__}: {str(error)[:120]}"


def start_of(model: Any, site: Site, *, text_only: bool) -> int:
    """The first block that an edit at this site changes: behind its output the next one."""
    if site.tower != "language" or site.point == "projector":
        return 0
    spot, blocks = model.spot(site, text_only=text_only), model.towers["language"].blocks
    found = next((n for n, block in enumerate(blocks) if block is spot.module), None)
    if found is None:
        return site.layer
    return found + 1 if spot.side == "output" else found
