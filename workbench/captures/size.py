"""How much a capture will write, before it writes: a line where it is much, a refusal where the disk cannot hold it."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hooks.backends.hf import HuggingFaceModel
from hooks.encoded import Encoded
from hooks.prompt import Prompt
from hooks.structure import parameter_count
from stores import ActivationStore, StoreError, bytes_of
from workbench.captures.plan import Kept, tokens_of
from workbench.units import budget_on, joined, kinds_of, length_sorted, tokens_of_units

SAID = 2**30  # bytes; a capture that will write more says so before it begins
RATE = 10_000  # tokens a second, for the rate that is stated


def unwritten(to: str | Path, ids: Sequence[str]) -> set[str]:
    """The prompts whose rows are not on disk yet: all of them, but what an earlier run has committed under `to`."""
    try:
        store = ActivationStore.open(to)
        left = {identifier for unit in store.missing() for identifier in unit.prompt_ids}
    except StoreError:  # nothing there yet; or what is wrong is said when it is opened to be written
        return set(ids)
    planned = {identifier for unit in store.plan for identifier in unit.prompt_ids}
    return {identifier for identifier in ids if identifier in left or identifier not in planned}


def rows_of(
    model: HuggingFaceModel, kept: Sequence[Kept], outlines: Sequence[Encoded], new_tokens: int = 0
) -> list[dict[str, int]]:
    """Rows of each prompt by stream, of one variant; where the model writes the answers, the most there can be."""
    return [{part.name: _rows(model, part, one, new_tokens) for part in kept} for one in outlines]


def _rows(model: HuggingFaceModel, part: Kept, one: Encoded, new_tokens: int) -> int:
    if part.tower == "vision":
        return math.ceil(part.rows_per_image * one.n_images)
    if part.pool.reduce == "mean":
        return 1
    known: Mapping[object, int] = {"last": 1, "all": len(one), "prompt": one.prompt_length}
    if new_tokens or part.pool.scope in known:
        return new_tokens or known[part.pool.scope]
    return int(part.pool.mask(tokens_of(model, one)).sum())


def values_of(kept: Sequence[Kept], rows: Mapping[str, int]) -> int:
    """Bytes of the values of one prompt with so many rows in each stream."""
    return sum(rows[part.name] * len(part.sites) * part.stream.d_model * part.dtype.itemsize for part in kept)


def units_of(
    model: HuggingFaceModel,
    prompts: Sequence[Prompt],
    kept: Sequence[Kept],
    lengths: Sequence[int],
    rows: Sequence[Mapping[str, int]],
    *,
    variants: int,
    together: bool,
    max_tokens: int | None,
    answered: bool,
) -> list[list[list[int]]]:
    """The units of a capture: indices of prompts, batch by batch. One batch each where `max_tokens` is given, or where
    the model writes answers."""
    budget = (max_tokens or budget_on(model.device)) // (variants if together else 1)
    batches = length_sorted(lengths, budget, kinds_of(model, prompts, lengths))
    if answered or max_tokens is not None:
        return [[batch] for batch in batches]
    most = tokens_of_units(model.device, parameter_count(model.module))
    values = [variants * values_of(kept, each) for each in rows]
    return joined(batches, [variants * length for length in lengths], values, most)


def bytes_coming(
    kept: Sequence[Kept], units: Iterable[Sequence[int]], rows: Sequence[Mapping[str, int]], variants: int
) -> int:
    """Bytes on disk of these units of prompts."""
    streams = [part.stream for part in kept]
    return sum(
        bytes_of(streams, {stream.name: variants * sum(rows[i][stream.name] for i in unit) for stream in streams})
        for unit in units
    )


def in_bulk(nbytes: int, tokens: int) -> bool:
    """True where sha256 (half a GB/s) could hold up the forward, so that shards are sealed with a faster hash: many
    bytes, and more than 4 KiB a token. One position of every layer is some 100 KiB, what is kept once a prompt 1 KiB a
    token; a GPU reads 60,000 tokens/s with a model of 4B."""
    return nbytes > max(4096 * tokens, 64 << 20)


def announce(name: str, nbytes: int, tokens: int, at_most: bool, show: bool) -> None:
    """One line where much will be written: how much, and what the disk must keep up with."""
    if show and nbytes > SAID:
        rate = nbytes / max(tokens, 1) * RATE
        print(
            f"  {name}: {'at most' if at_most else 'about'} {_readable(nbytes)} for {tokens:,} tokens; at "
            f"{RATE:,} tokens/s the disk takes {_readable(rate)}/s",
            file=sys.stderr,
            flush=True,
        )


def refuse_full(to: str | Path, nbytes: int) -> None:
    """Raises ValueError when the disk under `to` has less room than that."""
    folder = Path(to).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise ValueError(
            f"this capture would write {_readable(nbytes)} under {to}: expected as much room, but the disk has "
            f"{_readable(free)}. Capture fewer layers (sites='resid_post:8-15'), fewer positions (at='last', "
            "pool='mean'), or statistics alone (wb.moments); or choose another disk."
        )


def _readable(nbytes: int | float) -> str:
    power = min(4, int(math.log2(max(nbytes, 1)) // 10))
    return f"{nbytes / 2 ** (10 * power):.{0 if power == 0 else 1}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
