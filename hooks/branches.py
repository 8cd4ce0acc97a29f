"""Branches: the logits behind many short continuations of each prompt, from one reading of the prompt.

Three ways, the first that was seen to give whole forwards' numbers is taken: "tree", all continuations as one row under
a mask of its own; "rows", each continuation as a row behind a copy of its prompt's cache; "whole", no cache at all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.asked import TOLERANCE, distance
from hooks.encode import Batch
from hooks.encoded import Encoded
from hooks.prefix_cache import Prefix, by_column, one_step
from hooks.recording import CannotReplay
from hooks.token_tree import TokenTree, tree_masks

WAYS = ("tree", "rows", "whole")
_ROWS_AT_ONCE = 64  # of whole forwards


@dataclass(frozen=True, eq=False)
class Read:
    """Prompts that were read once: the logits that choose each row's next token, and the cache behind them, which
    `branch_logits` uses up. The first `shared` columns were read before, once for all rows."""

    batch: Batch
    logits: Float[Tensor, "row vocab"]
    cache: Prefix | None
    shared: int = 0


def read(model: Any, encoded: Sequence[Encoded], beginning: Prefix | None = None) -> Read:
    """One forward over prompts padded left (responses left out). `beginning` is the cache of the tokens that all of
    them begin with (`beginning_of`), which are not read again."""
    shared = 0 if beginning is None else beginning.length
    batch = _laid_out(model, encoded, shared)
    if not getattr(model, "native", False):
        return Read(batch, model.run(batch).logits, None)
    after = None if beginning is None else beginning.rows([0] * len(batch))
    out, _ = model.decoded(batch, None, None, model.stop_ids, one_step(model), after)
    return Read(batch, out.logits[0], Prefix(out.past_key_values, batch.inputs["input_ids"].shape[1]), shared)


def branch_logits(model: Any, behind: Read, tree: TokenTree, way: str) -> Float[Tensor, "row node vocab"]:
    """The logits that choose what comes after each node of the tree, for each prompt: one forward ("whole": several).
    Raises CannotReplay where the model does not do it this way."""
    match way:
        case "tree":
            return _as_tree(model, behind, tree)
        case "rows":
            return _as_rows(model, behind, tree)
        case _:
            return _whole(model, behind.batch.encoded, tree.paths)


def way_of(model: Any, encoded: Sequence[Encoded], tree: TokenTree) -> str:
    """The first way whose logits are those of whole forwards, measured on the shortest and the longest of these prompts
    at two nodes, to the rounding of the model's dtype; once a model, with pictures and without."""
    key = ("branches", any(one.n_images for one in encoded))
    if key not in model._found:
        model._found[key] = _measured(model, _shortest_and_longest(model, encoded), tree)
    return model._found[key]


def _measured(model: Any, encoded: Sequence[Encoded], tree: TokenTree) -> str:
    if not getattr(model, "native", False) or model.why_not_generate:
        return "whole"
    nodes = [len(tree) // 2, len(tree) - 1]
    expected = _whole(model, encoded, [tree.paths[n] for n in nodes])
    for way in ("tree", "rows"):
        try:
            found = branch_logits(model, read(model, encoded), tree, way)[:, nodes]
        except torch.OutOfMemoryError:
            raise
        except Exception:  # what an architecture does not expect it meets in many ways
            continue
        if distance(found, expected) <= _rounding(model):
            return way
    return "whole"


def beginning_of(behind: Read, row: int, length: int) -> Prefix:
    """The cache of the first `length` tokens of a row that has no pads, on its own. Raises CannotReplay for caches that
    have let them go, or that do not say which columns they hold."""
    if behind.cache is None or int(behind.batch.tokens.position[row, 0]) != 0:
        raise CannotReplay("there is no cache of this row from its first column on")
    one = behind.cache.rows([row])
    new = copy.copy(one.cache)
    new.layers = [_first_columns(layer, length, behind.cache.length) for layer in one.cache.layers]
    return Prefix(new, length)


def why_not_shared(model: Any, beginning: Prefix, one: Encoded) -> str | None:
    """Why the tokens of `beginning` have to be read again for each prompt, or None: a short and a longer row behind
    them had the logits of the same rows read whole, to the rounding of the model's dtype."""
    rows = [one, one.extended(one.input_ids[-7:].tolist())]
    try:
        off = distance(read(model, rows, beginning).logits, read(model, rows).logits)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:120]}"
    return None if off <= _rounding(model) else f"behind a shared beginning logits were off by {off:.1e}"


def may_share(model: Any, columns: int) -> bool:
    """False for rows that a sliding window cuts (pads behind a shared beginning would push it out of sight), and for
    models that keep the positions of the prompts they read last for themselves (three-axis rotations)."""
    window = model.identity.get("sliding_window")
    remembers = any(hasattr(part, "rope_deltas") for part in model.module.modules())
    return not remembers and getattr(model, "native", False) and (window is None or columns <= window)


def _as_tree(model: Any, behind: Read, tree: TokenTree) -> Tensor:
    batch, cache = _laid_out(model, behind.batch.encoded, behind.shared, [tree.tokens]), behind.cache
    assert cache is not None
    position = behind.batch.tokens.position.to(model.device)

    def change(kwargs: dict[str, Any]) -> None:
        if kwargs.get("position_ids") is None:
            raise CannotReplay("the model counts positions by itself")
        kwargs["position_ids"] = kwargs["position_ids"][..., tree.depth.to(model.device)]
        kwargs["attention_mask"] = tree_masks(model.module.config, cache.cache, position, tree, model.dtype)

    return _all_logits(model, batch, cache, change)


def _as_rows(model: Any, behind: Read, tree: TokenTree) -> Tensor:
    assert behind.cache is not None
    encoded, leaves = behind.batch.encoded, tree.leaves
    longest = max(map(len, leaves))
    # A shorter leaf is filled up behind its end: nothing in front of the fill can see it.
    filled = [[*leaf, *[leaf[-1]] * (longest - len(leaf))] for leaf in leaves]
    rows = [row for row in range(len(encoded)) for _ in leaves]
    batch = _laid_out(model, [encoded[row] for row in rows], behind.shared, filled * len(encoded))
    logits = _all_logits(model, batch, behind.cache.rows(rows)).unflatten(0, (len(encoded), len(leaves)))
    where = [next(n for n, leaf in enumerate(leaves) if leaf[: len(path)] == path) for path in tree.paths]
    return logits[:, where, tree.depth]


def _whole(model: Any, encoded: Sequence[Encoded], paths: Sequence[tuple[int, ...]]) -> Tensor:
    longer = [one.prompt_only().extended(path) for one in encoded for path in paths]
    parts = [longer[first : first + _ROWS_AT_ONCE] for first in range(0, len(longer), _ROWS_AT_ONCE)]
    logits = [model.run(model.encoder.collate(part, "right")).logits for part in parts]
    return torch.cat(logits).unflatten(0, (len(encoded), len(paths)))


def _all_logits(
    model: Any, batch: Batch, after: Prefix, change: Callable[[dict[str, Any]], None] = lambda kwargs: None
) -> Float[Tensor, "row pos vocab"]:
    """The logits of every column behind the cache, of one forward that the library's `generate` prepares (positions of
    three axes, types of tokens) and `change` may have the last word on."""
    seen: list[Tensor] = []

    def enter(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        kwargs = {**kwargs, **({"logits_to_keep": 0} if "logits_to_keep" in kwargs else {})}
        change(kwargs)
        return args, kwargs

    def leave(module: Any, args: Any, output: Any) -> None:
        seen.append(output.logits)

    entered = model.module.register_forward_pre_hook(enter, with_kwargs=True)
    left = model.module.register_forward_hook(leave)
    try:
        model.decoded(batch, None, None, model.stop_ids, one_step(model), after)
    finally:
        entered.remove()
        left.remove()
    (logits,) = seen
    return logits[:, -(batch.inputs["input_ids"].shape[1] - after.length) :]


def _laid_out(model: Any, encoded: Sequence[Encoded], shared: int, more: Sequence[Sequence[int]] = ((),)) -> Batch:
    """The prompts padded left, with more tokens behind each; the first `shared` tokens of every row in the first
    columns, and its pads behind those."""
    given = list(more) * len(encoded) if len(more) == 1 else list(more)
    plain = [one.prompt_only() for one in encoded]
    batch = model.encoder.collate(
        [one.extended(ids) if ids else one for one, ids in zip(plain, given, strict=True)], "left"
    )
    if not shared:
        return batch
    columns = batch.inputs["input_ids"].shape[1]
    pads = torch.tensor([columns - len(one) for one in batch.encoded])[:, None]
    column = torch.arange(columns).expand(len(batch), -1)
    taken = torch.where(column < shared, column + pads, torch.where(column < shared + pads, column - shared, column))
    inputs = {
        name: value.gather(1, taken.reshape(*taken.shape, *[1] * (value.dim() - 2)).expand_as(value))
        if by_column(value, batch)
        else value
        for name, value in batch.inputs.items()
    }
    moved = {name: getattr(batch.tokens, name).gather(1, taken) for name in ("input_ids", "position", "is_image")}
    return replace(batch, inputs=inputs, tokens=replace(batch.tokens, **moved))


def _first_columns(layer: Any, length: int, columns: int) -> Any:
    keys = getattr(layer, "keys", None)
    if not isinstance(keys, Tensor) or keys.shape[-2] != columns or hasattr(layer, "conv_states"):
        raise CannotReplay(f"{type(layer).__name__} does not give out its first columns")
    new = copy.copy(layer)
    # Copies: a slice would keep the whole row in memory.
    new.keys, new.values = layer.keys[..., :length, :].clone(), layer.values[..., :length, :].clone()
    if hasattr(layer, "cumulative_length"):
        new.cumulative_length = length
    return new


def _shortest_and_longest(model: Any, encoded: Sequence[Encoded]) -> list[Encoded]:
    by_length = sorted(encoded, key=len)
    together = all(model.pads.values()) and not model.encoder.crosses
    return [by_length[0], by_length[-1]] if len(by_length) > 1 and together else by_length[:1]


def _rounding(model: Any) -> float:
    return TOLERANCE.get(model.dtype, TOLERANCE[torch.float32])
